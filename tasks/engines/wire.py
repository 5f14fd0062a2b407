"""One request to an OpenAI-compatible server: JSON out, text back, or why there is none. Nothing is asked again here.

With aiohttp: a call costs a tenth of the processor time that it takes through the openai package, which at many calls a second is what
limits them (python -m tests.benchmarks.judging). Test: pytest tests/tasks/engines/test_openai.py
"""

import json
import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi

_OPENAI = "https://api.openai.com/v1"


class CallError(Exception):
    """Why there is no answer: `status` where the server gave one, with what it said; `retry_after` seconds where it asked to be left alone."""

    def __init__(self, reason: str, status: int | None = None, said: str = "", retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.status = status
        self.said = said
        self.retry_after = retry_after

    @property
    def passes(self) -> bool:
        """Whether the same request may be answered later: no connection, a time-out, too many requests, an error of the server."""
        return self.status is None or self.status in (408, 409, 429) or self.status >= 500


class OverloadError(CallError):
    """The server has more to do than it bears: it said so, or did not answer in time."""


class Wire:
    """The connections to one server. Used within one event loop, and made there."""

    def __init__(self, base_url: str | None, timeout_seconds: float) -> None:
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).rstrip("/")
        self._proxy = _proxy_for(self.base_url)
        self._timeout = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: Mapping[str, Any]) -> str:
        """The text of the answer. Raises CallError."""
        try:
            async with self._open().post(f"{self.base_url}/{path}", json=body, proxy=self._proxy) as response:
                text = await response.text(errors="replace")
        except TimeoutError as error:
            raise OverloadError("no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CallError("no connection") from error
        if response.status < 300:
            return text
        asked = response.headers.get("retry-after", "")
        kind = OverloadError if response.status == 429 else CallError
        raise kind(
            f"status {response.status}",
            status=response.status,
            said=_said(text),
            retry_after=float(asked) if asked.replace(".", "", 1).isdigit() else 0.0,
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            key = os.environ.get("OPENAI_API_KEY") or "none"  # servers of one's own want none
            self._session = aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {key}"},
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                connector=aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=certifi.where())),
            )
        return self._session


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names, found once: aiohttp would look it up in a thread for every call."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def _said(text: str) -> str:
    """The server's own words about what went wrong."""
    try:
        body = json.loads(text)
        error = body.get("error", body)
        return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
    except (ValueError, AttributeError):
        return text[:300]
