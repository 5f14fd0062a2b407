"""One request to an OpenAI-compatible server: JSON out, text back, or why there is none. Nothing is
asked again here.

Through the openai package, whose typed objects are left aside: answers of servers of all kinds are
read as they are. Test: pytest tests/tasks/sampling/engines/test_openai.py
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from dapflow.storage import UserError
from dapflow.tasks.servers.refusal import Said, Standing, said_in, said_of, standing, status_in

_KEY = "OPENAI_API_KEY"
_HEADERS = {
    "api_key": _KEY,
    "organization": "OPENAI_ORG_ID",
    "project": "OPENAI_PROJECT_ID",
}  # of the environment, sent in headers
_NO_KEY = "none"  # servers of one's own want none
_LEAST_KEY = 8  # characters: what is shorter may stand in any answer


class CallError(Exception):
    """Why there is no answer: `status` where the server gave one, with what it said; `retry_after`
    seconds where it asked to be left alone; `unsent`: no connection was made, so that the server
    has seen nothing."""

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        said: Said = Said(),  # noqa: B008 - frozen
        retry_after: float = 0.0,
        unsent: bool = False,
        standing: Standing = "passes",
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.said = said
        self.retry_after = retry_after
        self.unsent = unsent
        self.standing = standing

    @property
    def told(self) -> str:
        """The reason, and the server's words where they say more."""
        return (
            f"{self}: {self.said.words}"
            if self.said.words and self.said.words != str(self)
            else str(self)
        )


class OverloadError(CallError):
    """The server has more to do than it bears: it said so, or did not answer in time."""


class UnusableAnswerError(Exception):
    """An answer that is not what was asked for: half a JSON, no choice in it. It is asked for
    again. came: the text of it.
    """

    came: str = ""


class Wire:
    """The connections to one server. timeout_seconds: for a whole answer, however slowly it comes.
    Raises UserError for a key or an address in the environment that cannot be used."""

    def __init__(self, base_url: str | None, timeout_seconds: float) -> None:
        import openai  # takes a second, and most processes ask no server

        self._timeout = timeout_seconds
        self._client = openai.AsyncOpenAI(
            timeout=timeout_seconds, max_retries=0, **connection(base_url)
        )  # our own retries are counted
        self.base_url = str(self._client.base_url).rstrip("/")

    async def post(self, path: str, body: Mapping[str, Any]) -> str:
        """The text of the answer. Raises CallError."""
        import openai

        try:
            async with asyncio.timeout(self._timeout):
                return without_key(
                    await self._client.post(f"/{path}", cast_to=str, body=dict(body))
                )
        except (openai.APITimeoutError, TimeoutError) as error:
            raise OverloadError("no answer in time") from error
        except openai.APIStatusError as error:
            said, status = said_of(_body(error.response.text)), error.status_code
            wait = _seconds(error.response.headers.get("retry-after", ""))
            raise _refused(f"status {status}", status, said, wait) from error
        except openai.APIConnectionError as error:
            unsent = (
                type(error.__cause__).__name__ == "ConnectError"
            )  # of httpx or httpx2, as the version of openai has it
            raise CallError("no connection", unsent=unsent) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def answer_of(text: str) -> Any:
    """An answer of status 200 as JSON. Raises UnusableAnswerError for what is none, CallError for
    an error in place of an answer.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableAnswerError("half an answer") from error
    if (said := said_in(answer)) is None:
        return answer
    status = status_in(said)
    raise _refused("an error in place of an answer", status, said)


def connection(base_url: str | None) -> dict[str, Any]:
    """What a client of the openai package is made with. Raises UserError for what no request can
    carry.
    """
    values = {name: _header(variable) for name, variable in _HEADERS.items()}
    url = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None
    if url is not None and not is_address(url):
        raise UserError(
            "OPENAI_BASE_URL is not the address of a server: it must begin with http:// or "
            "https://, for example http://host/v1."
        )
    return {"base_url": url, **values, "api_key": values["api_key"] or _NO_KEY}


def is_address(url: str) -> bool:
    """Whether a server may be at this URL."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and url.isprintable()
        )
    except ValueError:
        return False


def without_key(text: str) -> str:
    """The text of a server that may say our key back to us, without it."""
    key = os.environ.get(_KEY, "").strip()
    return text.replace(key, f"[{_KEY}]") if len(key) >= _LEAST_KEY else text


def _header(variable: str) -> str | None:
    """A value of the environment without the blanks and line ends that a file leaves around it."""
    value = os.environ.get(variable, "").strip()
    if not (value.isascii() and value.isprintable()):
        place = next(
            place
            for place, character in enumerate(value, start=1)
            if not (character.isascii() and character.isprintable())
        )
        raise UserError(
            f"{variable} cannot be sent: its character {place} is none that a request can carry. "
            "Set it again, without that."
        )
    return value or None


def _refused(reason: str, status: int | None, said: Said, retry_after: float = 0.0) -> CallError:
    kind = OverloadError if status == 429 else CallError
    return kind(reason, status, said, retry_after, standing=standing(status, said))


def _body(text: str) -> Any:
    """An error's body: JSON, or the text as it is."""
    text = without_key(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _seconds(asked: str) -> float:
    """How long a Retry-After asks to wait: seconds, or a date (RFC 9110, 10.2.3); 0 for anything
    else.
    """
    if asked.replace(".", "", 1).isdigit():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return 0.0
