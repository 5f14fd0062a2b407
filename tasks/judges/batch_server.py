"""The batch interface of an OpenAI-compatible server: submit, find again, wait, read what came.

Test: pytest tests/tasks/judges/test_batches.py
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import openai
from openai.types import Batch

from storage import UserError
from tasks.engines.endpoint import Endpoint

_TAG = "dapflow"
_PATH = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, _LONGER = 0.2, 60.0, 1.5
_RETRIES = 8  # of what may be asked twice; half a second, then longer up to eight
_MOST_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class Line:
    """What became of one request. status: the HTTP status it would have had, None where it was never tried; error: why it has no answer."""

    key: str
    status: int | None = None
    body: Any = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A batch that has: how, why, and the files with what came of it."""

    status: str
    reason: str
    files: tuple[str, ...]


class BatchServer:
    """Where batches go. Everything but a submission is asked again while the server fails."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._model = endpoint.model
        self._patience = 60 * endpoint.patience_minutes
        self._client = openai.OpenAI(
            base_url=endpoint.base_url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=endpoint.timeout_seconds,
            max_retries=_RETRIES,
        )
        self.base_url = str(self._client.base_url).rstrip("/")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def submit(self, tag: str, requests: Mapping[str, Mapping[str, Any]]) -> str:
        """Submit a batch under our tag; the server's id of it. One whose answer got lost is found by its tag, not submitted twice."""
        lines = (
            {"custom_id": key, "method": "POST", "url": _PATH, "body": {"model": self._model, **body}} for key, body in requests.items()
        )
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        began = time.monotonic()
        try:
            file = self._client.files.create(file=(f"{_TAG}-{tag}.jsonl", content, "application/jsonl"), purpose="batch").id
            while True:
                try:
                    made = self._client.with_options(max_retries=0).batches.create(
                        input_file_id=file, endpoint=_PATH, completion_window="24h", metadata={_TAG: tag}
                    )
                    return made.id
                except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError):
                    if (found := self.find(tag)) is not None:
                        return found
                    if time.monotonic() - began > self._patience:
                        raise
                    time.sleep(_FIRST_WAIT_SECONDS)
        except openai.OpenAIError as error:
            raise self._broken(error) from error

    def has(self, batch: str) -> bool:
        """Whether it still knows the batch."""
        try:
            self._client.batches.retrieve(batch)
        except openai.NotFoundError:
            return False
        except openai.OpenAIError as error:
            raise self._broken(error) from error
        return True

    def find(self, tag: str) -> str | None:
        """The server's id of the batch under our tag, if it has one."""
        try:
            for place, batch in enumerate(self._client.batches.list(limit=100)):
                if (batch.metadata or {}).get(_TAG) == tag:
                    return batch.id
                if place == _MOST_LISTED:
                    break
        except openai.OpenAIError as error:
            raise self._broken(error) from error
        return None

    def wait(self, batch: str) -> Ended:
        """Look at it now and then until it has ended."""
        pause = _FIRST_WAIT_SECONDS
        while (seen := self._retrieve(batch)).status not in _ENDED:
            time.sleep(pause)
            pause = min(pause * _LONGER, _LONGEST_WAIT_SECONDS)
        reasons = [str(one.message or one.code) for one in (seen.errors.data or [])] if seen.errors else []
        files = tuple(file for file in (seen.output_file_id, seen.error_file_id) if file)
        return Ended(status=seen.status, reason="; ".join(reasons)[:300] or seen.status, files=files)

    def _retrieve(self, batch: str) -> Batch:
        try:
            return self._client.batches.retrieve(batch)
        except openai.OpenAIError as error:
            raise self._broken(error) from error

    def lines(self, ended: Ended) -> Iterator[Line]:
        """What became of the requests, in no order. A line that cannot be read, or a file that is gone, tells of none."""
        for file in ended.files:
            try:
                text = self._client.files.content(file).text
            except openai.NotFoundError:
                continue
            except openai.OpenAIError as error:
                raise self._broken(error) from error
            for line in text.splitlines():
                with suppress(ValueError, KeyError, TypeError, AttributeError):
                    yield _line(json.loads(line))

    def _broken(self, error: openai.OpenAIError) -> UserError:
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if status in (401, 403):
            return UserError(f"{self.base_url} refuses the key (status {status}): set OPENAI_API_KEY.")
        if status in (404, 405, 501):
            return UserError(f"{self.base_url} has no batch of that kind (status {status}): set judge.batch=false.")
        return UserError(f"{self.base_url} does not serve batches ({error}): look at the server, then run again; what it has is picked up.")


def _line(line: Mapping[str, Any]) -> Line:
    response, error = line.get("response"), line.get("error")
    if not response:
        return Line(key=line["custom_id"], error=str((error or {}).get("code") or (error or {}).get("message") or "no response"))
    status, body = int(response["status_code"]), response["body"]
    said = None if status == 200 else str((body.get("error") or {}).get("message") or f"status {status}")[:300]
    return Line(key=line["custom_id"], status=status, body=body if status == 200 else None, error=said)
