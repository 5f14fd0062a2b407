"""An OpenAI-compatible server: requests under its limits, asked again while it fails for a time, counted.

    for key, answer in Client(endpoint).each([("a", {"messages": ...}), ...], read): ...   # as they come: what `read` made of it, or a Refusal
Test: pytest tests/tasks/engines/test_openai.py
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from storage import UserError
from tasks.engines.base import Say
from tasks.engines.limits import shared_limits
from tasks.engines.meter import Attempt, Meter, Unmetered
from tasks.engines.wire import CallError, OverloadError, Wire

Key = TypeVar("Key")
T = TypeVar("T")
_LEAST_ATTEMPTS = 3  # before the patience can be at its end
_SILENT_SECONDS = 5  # without an answer while the server fails, after which that is said
_UNUSABLE = 5  # answers to one request that cannot be used, before it is refused
_JITTER = wait_random_exponential(multiplier=0.5, max=20)


class Endpoint(BaseModel):
    """Where a model is served and how much the server bears. The key is in the environment: OPENAI_API_KEY."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    MACHINE: ClassVar[set[str]] = {  # where and how fast, which is no part of a version
        "base_url", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout_seconds", "patience_minutes"
    }  # fmt: skip
    model: str = Field(default="", description="the name that the server knows it by")
    base_url: str | None = Field(default=None, description="http://127.0.0.1:8000/v1 for example; else OPENAI_BASE_URL, else OpenAI's own")
    api: Literal["chat", "completions"] = "chat"
    token_ids: bool = Field(default=False, description="ask for token ids, which vLLM gives")
    concurrency: int = Field(default=32, ge=1, description="requests under way at once, at most: fewer while the server is overloaded")
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1, description="prompt and completion, about")
    timeout_seconds: float = Field(default=120.0, gt=0, description="for one answer")
    patience_minutes: float = Field(default=10.0, gt=0, description="how long one request is asked again while the server fails")

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What the server will not answer, however often it is asked."""

    reason: str


class Unaffordable(Refusal):
    """What the budget does not allow to be asked."""


class UnusableAnswerError(Exception):
    """An answer that is not what was asked for: half a JSON, no choice in it. It is asked for again."""


class Client(Generic[Key]):
    """Sends requests and yields answers as they come. `counts` says what happened: answers, retries by reason, refusals.

    say: is told when the server fails for longer than a moment, since it is asked again for minutes.
    """

    def __init__(self, endpoint: Endpoint, meter: Meter[Key] | None = None, say: Say = lambda sentence: None) -> None:
        self.endpoint = endpoint
        self._say, self._answered, self._told = say, time.monotonic(), False
        self._meter: Meter[Key] = meter or Unmetered()
        self.counts: Counter[str] = Counter()
        self._runner = asyncio.Runner()
        self._wire = Wire(endpoint.base_url, endpoint.timeout_seconds)
        server = f"{self._wire.base_url} {endpoint.model}"
        self._limits = shared_limits(server, endpoint.concurrency, endpoint.requests_per_minute, endpoint.tokens_per_minute)

    def close(self) -> None:
        """Close its connections."""
        self._runner.run(self._wire.close())
        self._runner.close()

    def each(
        self, requests: Iterable[tuple[Key, Mapping[str, Any]]], read: Callable[[Any], T], tokens: Callable[[Mapping[str, Any]], int]
    ) -> Iterator[tuple[Key, T | Refusal]]:
        """Ask for each, no more than `concurrency` at once, and yield what `read` makes of the answers, in the order in which they come.

        read: of the answer as JSON; raises UnusableAnswerError for one that is to be asked for again. tokens: how many a request may take,
        for the limit.
        Raises UserError when the server has failed for longer than the patience, or knows neither key nor model; what was
        under way then has been yielded before.
        """
        waiting, loop = iter(requests), self._runner.get_loop()
        most = self.endpoint.concurrency + self.endpoint.concurrency // 4  # some wait at the gate, so that no place stays empty
        asked: dict[asyncio.Task[T | Refusal], Key] = {}
        broken: UserError | None = None
        try:
            while True:
                for key, request in islice(waiting, 0 if broken else most - len(asked)):
                    asked[loop.create_task(self._ask(key, request, read, tokens(request)))] = key
                if not asked:
                    break
                done, _ = self._runner.run(asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED))
                for task in done:
                    key = asked.pop(task)
                    try:
                        answer = task.result()
                    except UserError as error:
                        broken = error
                    else:
                        unsent = isinstance(answer, Unaffordable)
                        self.counts["unsent" if unsent else "refused" if isinstance(answer, Refusal) else "answered"] += 1
                        yield key, answer
        finally:
            for task in asked:
                task.cancel()
            if asked:
                self._runner.run(asyncio.wait(asked))
        if broken is not None:
            raise broken

    def report(self) -> str:
        """One sentence on what happened; empty where every request was answered at once."""
        again = {name: count for name, count in self.counts.items() if name not in ("answered", "refused", "unsent")}
        if not again and not self.counts["refused"] and not self.counts["unsent"]:
            return ""
        reasons = ", ".join(f"{count} x {name}" for name, count in sorted(again.items()))
        asked = f"{self.counts['answered']} answered, {self.counts['refused']} refused"
        asked += f", {self.counts['unsent']} not sent, since the budget is spent" if self.counts["unsent"] else ""
        return f"{self.endpoint.model or 'the server'}: {asked}" + (f"; asked again after {reasons}" if again else "")

    async def _ask(self, key: Key, request: Mapping[str, Any], read: Callable[[Any], T], tokens: int) -> T | Refusal:
        unusable = 0
        retrying = AsyncRetrying(
            retry=retry_if_exception(_passes),
            wait=partial(_wait, most=60 * self.endpoint.patience_minutes),
            stop=_OutOfPatience(60 * self.endpoint.patience_minutes),
            before_sleep=self._failed,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    if not await self._meter.allow(request):
                        return Unaffordable(reason="the budget is spent")
                    try:
                        return await self._send(key, request, read, tokens)
                    except UnusableAnswerError as error:
                        unusable += 1
                        if unusable == _UNUSABLE:
                            return Refusal(reason=f"{error}, {unusable} times")
                        raise
        except CallError as error:
            if not error.passes and error.status not in (401, 403, 404):
                return Refusal(reason=error.said or str(error))
            raise self._broken(error) from None
        except UnusableAnswerError as error:
            raise self._broken(error) from None
        raise AssertionError("an attempt returns or raises")

    async def _send(self, key: Key, request: Mapping[str, Any], read: Callable[[Any], T], tokens: int) -> T:
        """One attempt, in its turn. How it ended is told before anybody uses the answer."""
        path = "chat/completions" if self.endpoint.api == "chat" else "completions"
        async with self._limits.turn(tokens):
            number, began, text = self._meter.sent(key, request), time.monotonic(), None
            try:
                text = await self._wire.post(path, {"model": self.endpoint.model, **request})
                answer = read(_json(text))
            except BaseException as error:
                status = error.status if isinstance(error, CallError) else None
                if isinstance(error, OverloadError):
                    self._limits.gate.overloaded(began)
                reason = str(error) if isinstance(error, CallError | UnusableAnswerError) else "given up"
                unsent, seconds = isinstance(error, CallError) and error.unsent, time.monotonic() - began
                self._meter.ended(number, Attempt(answer=text, error=reason, status=status, unsent=unsent, seconds=seconds))
                raise
            self._limits.gate.went_well()
            self._answered, self._told = time.monotonic(), False
            self._meter.ended(number, Attempt(answer=text, seconds=time.monotonic() - began))
            return answer

    def _failed(self, state: RetryCallState) -> None:
        """Count it, and say once since the last answer that there is none."""
        reason = str(state.outcome and state.outcome.exception())
        self.counts[reason] += 1
        if not self._told and time.monotonic() - self._answered > _SILENT_SECONDS:
            self._told = True
            self._say(
                f"{self._wire.base_url} does not answer ({reason}): it is asked again for up to {self.endpoint.patience_minutes:g} minutes."
            )

    def _broken(self, error: Exception) -> UserError:
        """What to tell the user when the server cannot be worked with."""
        status, server = error.status if isinstance(error, CallError) else None, self._wire.base_url
        if status in (401, 403):
            return UserError(f"{server} refuses the key (status {status}): set OPENAI_API_KEY.")
        if isinstance(error, CallError) and status == 404:
            return UserError(f"{server} has no model {self.endpoint.model!r}, or is not the whole address, with its /v1 ({error.said}).")
        return UserError(
            f"{server} has failed for {self.endpoint.patience_minutes:g} minutes ({error}): look at the server, then run again; "
            "what it has answered is kept."
        )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UnusableAnswerError("half an answer") from error


def _passes(error: BaseException) -> bool:
    return isinstance(error, UnusableAnswerError) or (isinstance(error, CallError) and error.passes)


class _OutOfPatience:
    """Whether a request has failed for so long, and more than once or twice: waiting for its turn, before and in between, is no failure."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._since = seconds, 0.0

    def __call__(self, state: RetryCallState) -> bool:
        ended = state.outcome_timestamp or 0.0
        if state.attempt_number == 1:
            self._since = ended
        return ended - self._since >= self._seconds and state.attempt_number >= _LEAST_ATTEMPTS


def _wait(state: RetryCallState, most: float) -> float:
    """As long as the server asks for, up to `most` seconds, else longer each time; by chance, so that many do not come back at once."""
    error = state.outcome.exception() if state.outcome else None
    jitter: float = _JITTER(state)
    return jitter + min(error.retry_after if isinstance(error, CallError) else 0.0, most)
