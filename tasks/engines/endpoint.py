"""An OpenAI-compatible server: requests under its limits, asked again while it fails for a time, counted.

    for key, answer in Client(endpoint).each([("a", {"messages": ...}), ...], read): ...   # as they come: what `read` made of it, or a Refusal
Test: pytest tests/tasks/engines/test_openai.py
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Generic, Literal, TypeVar

import openai
from pydantic import BaseModel, ConfigDict, Field
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential

from storage import UserError
from tasks.engines.limits import shared_limits
from tasks.engines.meter import Attempt, Meter, Unmetered

Key = TypeVar("Key")
T = TypeVar("T")
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


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What the server will not answer, however often it is asked."""

    reason: str


class Unaffordable(Refusal):
    """What the budget does not allow to be asked."""


class UnusableAnswerError(Exception):
    """An answer that is not what was asked for: half a JSON, no choice in it. It is asked for again."""


class Client(Generic[Key]):
    """Sends requests and yields answers as they come. `counts` says what happened: answers, retries by reason, refusals."""

    def __init__(self, endpoint: Endpoint, meter: Meter[Key] | None = None) -> None:
        self.endpoint = endpoint
        self._meter: Meter[Key] = meter or Unmetered()
        self.counts: Counter[str] = Counter()
        self._runner = asyncio.Runner()
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",  # servers of one's own want none
            timeout=endpoint.timeout_seconds,
            max_retries=0,  # ours are counted
        )
        server = f"{self._client.base_url} {endpoint.model}"
        self._limits = shared_limits(server, endpoint.concurrency, endpoint.requests_per_minute, endpoint.tokens_per_minute)

    def close(self) -> None:
        """Close its connections."""
        self._runner.run(self._client.close())
        self._runner.close()

    def each(
        self, requests: Iterable[tuple[Key, Mapping[str, Any]]], read: Callable[[Any], T], tokens: Callable[[Mapping[str, Any]], int]
    ) -> Iterator[tuple[Key, T | Refusal]]:
        """Ask for each, no more than `concurrency` at once, and yield what `read` makes of the answers, in the order in which they come.

        read: raises UnusableAnswerError for an answer that is to be asked for again. tokens: how many a request may take, for the limit.
        Raises UserError when the server has failed for longer than the patience, or knows neither key nor model; what was
        under way then has been yielded before.
        """
        waiting, loop = iter(requests), self._runner.get_loop()
        asked: dict[asyncio.Task[T | Refusal], Key] = {}
        broken: UserError | None = None
        try:
            while True:
                for key, request in islice(waiting, 0 if broken else self.endpoint.concurrency - len(asked)):
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
                        self.counts["refused" if isinstance(answer, Refusal) else "answered"] += 1
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
        again = {name: count for name, count in self.counts.items() if name not in ("answered", "refused")}
        if not again and not self.counts["refused"]:
            return ""
        reasons = ", ".join(f"{count} x {name}" for name, count in sorted(again.items()))
        asked = f"{self.counts['answered']} answered, {self.counts['refused']} refused"
        return f"{self.endpoint.model or 'the server'}: {asked}" + (f"; asked again after {reasons}" if again else "")

    async def _ask(self, key: Key, request: Mapping[str, Any], read: Callable[[Any], T], tokens: int) -> T | Refusal:
        unusable = 0
        retrying = AsyncRetrying(
            retry=retry_if_exception(_passes),
            wait=_wait,
            stop=stop_after_delay(60 * self.endpoint.patience_minutes),
            before_sleep=lambda state: self.counts.update([_name(state)]),
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
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Refusal(reason=_message(error))
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(f"{self._client.base_url} refuses the key (status {error.status_code}): set OPENAI_API_KEY.") from None
        except openai.NotFoundError as error:
            raise UserError(f"{self._client.base_url} has no model {self.endpoint.model!r} ({_message(error)}).") from error
        except UserError:  # of the meter: a full disk, for example
            raise
        except Exception as error:
            minutes = self.endpoint.patience_minutes
            raise UserError(
                f"{self._client.base_url} has failed for {minutes:g} minutes ({_describe(error)}): look at the server, then run again; "
                "what it has answered is kept."
            ) from error
        raise AssertionError("an attempt returns or raises")

    async def _send(self, key: Key, request: Mapping[str, Any], read: Callable[[Any], T], tokens: int) -> T:
        """One attempt, in its turn. How it ended is told before anybody uses the answer."""
        of = self._client.chat.completions if self.endpoint.api == "chat" else self._client.completions
        async with self._limits.turn(tokens):
            number, began, text = self._meter.sent(key, request), time.monotonic(), None
            try:
                response = await of.with_raw_response.create(model=self.endpoint.model, **request)
                text = response.text
                answer = read(response.parse())
            except BaseException as error:
                status = error.status_code if isinstance(error, openai.APIStatusError) else None
                if status == 429 or isinstance(error, openai.APITimeoutError):
                    self._limits.gate.overloaded(began)
                self._meter.ended(number, Attempt(answer=text, error=_describe(error), status=status, seconds=time.monotonic() - began))
                raise
            self._limits.gate.went_well()
            self._meter.ended(number, Attempt(answer=text, seconds=time.monotonic() - began))
            return answer


def _passes(error: BaseException) -> bool:
    """Whether the same request may be answered later: no connection, a time-out, too many requests, an error of the server."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIError | UnusableAnswerError | ValueError)  # ValueError: half a JSON


def _wait(state: RetryCallState) -> float:
    """As long as the server asks for, else longer each time; by chance, so that many do not come back at once."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.response.headers.get("retry-after", "") if isinstance(error, openai.APIStatusError) else ""
    jitter: float = _JITTER(state)
    return float(asked) + jitter if asked.replace(".", "", 1).isdigit() else jitter


def _name(state: RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome else None
    return _describe(error) if error else "an error"


def _describe(error: BaseException) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "no answer in time"
    if isinstance(error, openai.APIConnectionError):
        return "no connection"
    if isinstance(error, openai.APIStatusError):
        return f"status {error.status_code}"
    if isinstance(error, asyncio.CancelledError):
        return "given up"
    return str(error) if isinstance(error, UnusableAnswerError) else "half an answer"


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    return str(body.get("message", body) if isinstance(body, dict) else error.message)[:300]
