"""One request to an OpenAI-compatible server: JSON out, text back, or why there is none. Nothing is asked again here.

Through the openai package, whose typed objects are left aside: answers of servers of all kinds are read as they are.
Test: pytest tests/tasks/engines/test_openai.py
"""

import asyncio
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openai  # takes a second, and most processes ask no server


class CallError(Exception):
    """Why there is no answer: `status` where the server gave one, with what it said; `retry_after` seconds where it asked to be left alone;
    `unsent`: no connection was made, so that the server has seen nothing."""

    def __init__(self, reason: str, status: int | None = None, said: str = "", retry_after: float = 0.0, unsent: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.said = said
        self.retry_after = retry_after
        self.unsent = unsent

    @property
    def passes(self) -> bool:
        """Whether the same request may be answered later: no connection, a time-out, too many requests, an error of the server."""
        return self.status is None or self.status in (408, 409, 429) or self.status >= 500


class OverloadError(CallError):
    """The server has more to do than it bears: it said so, or did not answer in time."""


class Wire:
    """The connections to one server. timeout_seconds: for a whole answer, however slowly it comes."""

    def __init__(self, base_url: str | None, timeout_seconds: float) -> None:
        import openai

        self._timeout = timeout_seconds
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",  # servers of one's own want none
            timeout=timeout_seconds,
            max_retries=0,  # ours are counted
        )
        self.base_url = str(self._client.base_url).rstrip("/")

    async def post(self, path: str, body: Mapping[str, Any]) -> str:
        """The text of the answer. Raises CallError."""
        import openai

        try:
            async with asyncio.timeout(self._timeout):
                return await self._client.post(f"/{path}", cast_to=str, body=dict(body))
        except (openai.APITimeoutError, TimeoutError) as error:
            raise OverloadError("no answer in time") from error
        except openai.APIStatusError as error:
            kind = OverloadError if error.status_code == 429 else CallError
            raise kind(
                f"status {error.status_code}",
                status=error.status_code,
                said=_said(error),
                retry_after=_seconds(error.response.headers.get("retry-after", "")),
            ) from error
        except openai.APIConnectionError as error:
            unsent = type(error.__cause__).__name__ == "ConnectError"  # of httpx or httpx2, as the version of openai has it
            raise CallError("no connection", unsent=unsent) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _seconds(asked: str) -> float:
    """How long a Retry-After asks to wait: seconds, or a date (RFC 9110, 10.2.3); 0 for anything else."""
    if asked.replace(".", "", 1).isdigit():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return 0.0


def _said(error: "openai.APIStatusError") -> str:
    """The server's own words about what went wrong."""
    body = error.body
    return str(body.get("message", body.get("detail", body)) if isinstance(body, dict) else error.message)[:300]
