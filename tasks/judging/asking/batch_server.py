"""The batch interface of an OpenAI-compatible server: submit, find again, wait, read what came.

Test: pytest tests/tasks/judging/asking/test_batches.py
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types import Batch

from dapflow.storage import UserError
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.servers.refusal import Said, said_in, said_of, standing, status_in
from dapflow.tasks.servers.wire import connection, without_key

_TAG = "dapflow"
_PATH = "/v1/chat/completions"
_GOING = (
    "validating",
    "in_progress",
    "finalizing",
    "cancelling",
    "canceling",
    "queued",
    "pending",
    "created",
    "running",
)
_ENDED = {  # how a batch has ended, by what servers call it
    "completed": "completed",
    "succeeded": "completed",
    "success": "completed",
    "ended": "completed",
    "done": "completed",
    "failed": "failed",
    "error": "failed",
    "errored": "failed",
    "expired": "expired",
    "timeout_exceeded": "expired",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
_WINDOW_HOURS = 24  # that we ask for
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, _LONGER = 0.2, 60.0, 1.5
_RETRIES = 8  # of what may be asked twice; half a second, then longer up to eight
_MOST_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class Line:
    """What became of one request. status: the HTTP status it would have had, None where it was
    never tried; error: why it has no answer, said: in the server's own words."""

    key: str
    status: int | None = None
    body: Any = None
    error: str | None = None
    said: Said = field(default_factory=Said)

    @property
    def is_refused(self) -> bool:
        """Whether the same request would be refused again."""
        return (
            self.status is not None
            and self.error is not None
            and standing(self.status, self.said) != "passes"
        )

    @property
    def is_of_the_account(self) -> bool:
        """Whether every other request would be refused for the same."""
        return self.is_refused and standing(self.status, self.said) == "account"


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
            timeout=endpoint.timeout_seconds, max_retries=_RETRIES, **connection(endpoint.base_url)
        )
        self.base_url = str(self._client.base_url).rstrip("/")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def submit(self, tag: str, requests: Mapping[str, Mapping[str, Any]]) -> str:
        """Submit a batch under our tag; the server's id of it. One whose answer got lost is found
        by its tag, not submitted twice.
        """
        lines = (
            {
                "custom_id": key,
                "method": "POST",
                "url": _PATH,
                "body": {"model": self._model, **body},
            }
            for key, body in requests.items()
        )
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        began = time.monotonic()
        try:
            file = self._client.files.create(
                file=(f"{_TAG}-{tag}.jsonl", content, "application/jsonl"), purpose="batch"
            ).id
            while True:
                try:
                    made = self._client.with_options(max_retries=0).batches.create(
                        input_file_id=file,
                        endpoint=_PATH,
                        completion_window="24h",
                        metadata={_TAG: tag},
                    )
                    return made.id
                except (
                    openai.APIConnectionError,
                    openai.InternalServerError,
                    openai.RateLimitError,
                ):
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
        """Look at it now and then until it has ended. Raises UserError when it takes longer than
        the server promises and we are patient for, or the server says of it what nobody knows the
        meaning of."""
        pause, until = _FIRST_WAIT_SECONDS, time.monotonic() + 3600 * _WINDOW_HOURS + self._patience
        while (status := _status(seen := self._retrieve(batch))) not in _ENDED:
            if status not in _GOING:
                raise UserError(
                    f"{self.base_url} says that batch {batch} is {seen.status!r}, of which nobody "
                    "knows what it means: look at the server, "
                    "then run again; the batch is picked up, and what it brings is used."
                )
            if time.monotonic() > until:
                raise UserError(
                    f"{self.base_url} has not ended batch {batch} ({status}) within its "
                    f"{_WINDOW_HOURS} hours: cancel it there, then run "
                    "again; what it has answered is used, and only the rest is asked again."
                )
            time.sleep(pause)
            pause = min(pause * _LONGER, _LONGEST_WAIT_SECONDS)
        ended = _ENDED[status]
        reasons = (
            [str(error.message or error.code) for error in (seen.errors.data or [])]
            if seen.errors
            else []
        )
        files = tuple(file for file in (seen.output_file_id, seen.error_file_id) if file)
        return Ended(
            status=ended, reason=without_key("; ".join(reasons))[:300] or ended, files=files
        )

    def _retrieve(self, batch: str) -> Batch:
        try:
            return self._client.batches.retrieve(batch)
        except openai.OpenAIError as error:
            raise self._broken(error) from error

    def lines(self, ended: Ended) -> Iterator[Line]:
        """What became of the requests, in no order. A line that cannot be read, or a file that is
        gone, tells of none.
        """
        for file in ended.files:
            try:
                content = self._client.files.content(file).content
            except openai.NotFoundError:
                continue
            except openai.OpenAIError as error:
                raise self._broken(error) from error
            for line in without_key(content.decode("utf-8", "replace")).split(
                "\n"
            ):  # other separators are characters of an answer
                with suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
                    yield _line(json.loads(line))

    def _broken(self, error: openai.OpenAIError) -> UserError:
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        words = without_key(
            said_of(
                error.body
                if isinstance(error, openai.APIStatusError) and error.body
                else str(error)
            ).words
        )
        if status in (401, 403):
            return UserError(
                f"{self.base_url} refuses the key (status {status}: {words}): set OPENAI_API_KEY."
            )
        if status in (404, 405, 501):
            return UserError(
                f"{self.base_url} has no batch of that kind (status {status}): set "
                "judge.batch=false."
            )
        return UserError(
            f"{self.base_url} does not serve batches ({words}): look at the server, then run "
            "again; what it has is picked up."
        )


def _status(batch: Batch) -> str:
    """What the server says of it, whatever way it writes that."""
    return str(batch.status).strip().lower().replace("-", "_").replace(" ", "_")


def _line(line: Mapping[str, Any]) -> Line:
    key, response = line["custom_id"], line.get("response")
    if not response:
        said = said_of(line.get("error") or "no response")
        return Line(key=key, error=said.codes[0] if said.codes else said.words, said=said)
    status, body = int(response["status_code"]), response["body"]
    said = said_in(body) if status == 200 else said_of(body)
    if said is None:
        return Line(key=key, status=status, body=body)
    return Line(
        key=key,
        status=status if status != 200 else status_in(said) or 400,
        error=said.words or f"status {status}",
        said=said,
    )
