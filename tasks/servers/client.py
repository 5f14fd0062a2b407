"""An OpenAI-compatible server: requests under its limits, asked again while it fails for a time,
counted.

    for key, answer in Client(endpoint).each([("a", {"messages": ...}), ...], read): ...   # as they come: what `read` made of it, or a Refusal
Test: pytest tests/tasks/sampling/engines/test_openai.py
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from dapflow.storage import UserError
from dapflow.tasks.servers.dialect import Dialect
from dapflow.tasks.servers.limits import shared_limits
from dapflow.tasks.servers.meter import Attempt, Meter, Unmetered
from dapflow.tasks.servers.patience import (
    OutOfPatience,
    asked_to_wait,
    duration,
    end_of_patience,
    wait,
)
from dapflow.tasks.servers.refusal import Refusal, Unaffordable, advice, is_of_the_question, shown
from dapflow.tasks.servers.tally import HOPELESS, Tally
from dapflow.tasks.servers.wire import (
    CallError,
    OverloadError,
    UnusableAnswerError,
    Wire,
    answer_of,
    is_address,
)
from dapflow.tasks.step.progress import Say

Key = TypeVar("Key")
T = TypeVar("T")
_SILENT_SECONDS = 5  # without an answer while the server fails, after which that is said
# requests under way until the first answer has come: a server that refuses everything refuses no
# more than a few
_FIRST = 3


class Endpoint(BaseModel):
    """Where a model is served and how much the server bears. The key is in the environment:
    OPENAI_API_KEY.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    MACHINE: ClassVar[set[str]] = {  # where and how fast, which is no part of a version
        "base_url",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "timeout_seconds",
        "patience_minutes",
        "attempts",
    }
    model: str = Field(default="", description="the name that the server knows it by")
    base_url: str | None = Field(
        default=None,
        description="http://127.0.0.1:8000/v1 for example; else OPENAI_BASE_URL, else OpenAI's own",
    )
    api: Literal["chat", "completions"] = "chat"
    token_ids: bool = Field(default=False, description="ask for token ids, which vLLM gives")
    concurrency: int = Field(
        default=32,
        ge=1,
        description="requests under way at once, at most: fewer while the server is overloaded",
    )
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="prompt and completion, about"
    )
    timeout_seconds: float = Field(default=120.0, gt=0, description="for one answer")
    patience_minutes: float = Field(
        default=10.0, gt=0, description="how long one request is asked again while the server fails"
    )
    attempts: int = Field(
        default=3,
        ge=1,
        description="how often one request is asked whose answer cannot be used, before it is refused",
    )

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        if url is not None and not is_address(url := url.strip()):
            raise ValueError("must begin with http:// or https://, and name a server")
        return url


class Client(Generic[Key]):
    """Sends requests and yields answers as they come. `tally` says what happened: answers, retries
    by reason, refusals.

    say: is told when the server fails for longer than a moment, since it is asked again for
    minutes. asker: whose settings the requests follow, for advice.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        meter: Meter[Key] | None = None,
        say: Say = lambda sentence: None,
        asker: Literal["judge", "sampling"] = "judge",
    ) -> None:
        self.endpoint = endpoint
        self._say, self._asker, self._answered, self._told = say, asker, time.monotonic(), False
        self._meter: Meter[Key] = meter or Unmetered()
        self.tally = Tally()
        self._dialect, self._forms = Dialect(), set[str]()
        self._broken: UserError | None = None  # why nothing more is sent
        self._rejected = 0  # requests in a row that were refused for what is no question's fault
        self._under_way: dict[asyncio.Task[Any], Key] = {}
        self._runner = asyncio.Runner()
        self._wire = Wire(endpoint.base_url, endpoint.timeout_seconds)
        server = f"{self._wire.base_url} {endpoint.model}"
        self._limits = shared_limits(
            server, endpoint.concurrency, endpoint.requests_per_minute, endpoint.tokens_per_minute
        )

    def close(self) -> None:
        """Close its connections."""
        self._give_up()
        self._runner.run(self._wire.close())
        self._runner.close()

    def each(
        self,
        requests: Iterable[tuple[Key, Mapping[str, Any]]],
        read: Callable[[Any], T],
        tokens: Callable[[Mapping[str, Any]], int],
    ) -> Iterator[tuple[Key, T | Refusal]]:
        """Ask for each, no more than `concurrency` at once, and yield what `read` makes of the
        answers, in the order in which they come. Until the first answer a few are asked at once,
        and refusals are held back.

        read: of the answer as JSON; raises UnusableAnswerError for one that is to be asked for
        again. tokens: how many a request may take, for the limit.
        Raises UserError when the server has failed for longer than the patience, knows neither key
        nor model, or refuses the first few for the same reason; what was under way then has been
        yielded before.
        """
        waiting, held = iter(requests), list[tuple[Key, T | Refusal]]()
        try:
            while True:
                for key, request in islice(
                    waiting, 0 if self._broken else max(0, self._room() - len(self._under_way))
                ):
                    task = self._runner.get_loop().create_task(
                        self._ask(key, request, read, tokens(request))
                    )
                    self._under_way[task] = key
                if not self._under_way:
                    break
                done, _ = self._runner.run(
                    asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                )
                for task in done:
                    key = self._under_way.pop(task)
                    try:
                        answer = task.result()
                    except UserError as error:
                        self._broken = self._broken or error
                    else:
                        held.append((key, answer))
                        if self.tally.add(answer) and isinstance(answer, Refusal):
                            self._broken = self._broken or self._refuses_all(answer)
                if self.tally.answered:
                    yield from held
                    held.clear()
        finally:
            self._give_up()
        if self._broken:
            raise self._broken
        for _, answer in held:  # too few to be a few in a row
            if (
                isinstance(answer, Refusal)
                and answer.status == 403
                and not is_of_the_question(answer.reason)
            ):
                raise self._refuses_all(answer)
        yield from held

    def report(self) -> str:
        """One sentence on what happened; empty where every request was answered at once."""
        return self.tally.report(self.endpoint.model or "the server")

    def _room(self) -> int:
        """How many may be under way: some more than there are places, so that none is empty; until
        an answer a few, less the refused.
        """
        places = self.endpoint.concurrency
        return (
            places + places // 4
            if self.tally.answered
            else min(max(1, _FIRST - self.tally.counts["refused"]), places)
        )

    def _refuses_all(self, refusal: Refusal) -> UserError:
        model = self.endpoint.model or self._wire.base_url
        return UserError(
            f"{model} {refusal.WHOLLY} ({refusal.reason}): {refusal.remedy}, and run again."
        )

    def _give_up(self) -> None:
        """Take back what is under way."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            self._runner.run(asyncio.wait(self._under_way))
        self._under_way.clear()

    async def _ask(
        self, key: Key, request: Mapping[str, Any], read: Callable[[Any], T], tokens: int
    ) -> T | Refusal:
        tries, patience = 0, self.endpoint.patience_minutes
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((CallError, UnusableAnswerError)),
            wait=wait,
            stop=OutOfPatience(60 * patience),
            before_sleep=self._failed,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    try:
                        return await self._in_its_form(key, request, read, tokens)
                    except UnusableAnswerError as error:
                        tries += 1
                        if tries >= self.endpoint.attempts:
                            remedy = (
                                f"what came begins with {shown(error.came)}; look at the server"
                            )
                            return Refusal(reason=f"{error}, {tries} times", remedy=remedy)
                        raise
                    except CallError as error:
                        tries += error.standing == "account"
                        if error.standing == "question" or tries == HOPELESS:
                            return self._refusal(error, request)
                        raise
        except (CallError, UnusableAnswerError) as error:
            raise end_of_patience(
                error, self._wire.base_url, self.endpoint.model, patience
            ) from None
        raise AssertionError("an attempt returns or raises")

    async def _in_its_form(
        self, key: Key, request: Mapping[str, Any], read: Callable[[Any], T], tokens: int
    ) -> T | Refusal:
        """One attempt, and at once another in another form where the server names what of it it
        does not take.

        Raises UserError where requests are refused one after the other for what is no question's
        fault.
        """
        if self._broken:
            raise self._broken
        while await self._meter.allow(request):
            spoken = self._dialect.spoken(request)
            try:
                return await self._send(key, request, spoken, read, tokens)
            except CallError as error:
                if error.standing == "passes":
                    raise
                form = self._dialect.learn(error.said, spoken)
                if form is None:
                    self._rejected += error.standing == "account"
                    if self._rejected >= HOPELESS:
                        raise end_of_patience(
                            error,
                            self._wire.base_url,
                            self.endpoint.model,
                            self.endpoint.patience_minutes,
                        ) from None
                    raise
                self.tally.counts[str(error)] += 1
                if form not in self._forms:
                    self._forms.add(form)
                    self._say(
                        f"{self._wire.base_url} says: {error.said.words} It is asked {form} from "
                        "now on."
                    )
        return Unaffordable(reason="the budget is spent")

    def _refusal(self, error: CallError, request: Mapping[str, Any]) -> Refusal:
        remedy = (
            "set OPENAI_API_KEY"
            if error.status == 403
            else advice(error.said, self._dialect.spoken(request), self._asker)
        )
        return Refusal(reason=error.said.words or str(error), status=error.status, remedy=remedy)

    async def _send(
        self,
        key: Key,
        request: Mapping[str, Any],
        spoken: Mapping[str, Any],
        read: Callable[[Any], T],
        tokens: int,
    ) -> T:
        """One attempt, in its turn. How it ended is told before anybody uses the answer."""
        path = "chat/completions" if self.endpoint.api == "chat" else "completions"
        async with self._limits.turn(tokens):
            number, began, text = self._meter.sent(key, request), time.monotonic(), None
            try:
                text = await self._wire.post(path, {"model": self.endpoint.model, **spoken})
                answer = read(answer_of(text))
            except BaseException as error:
                status = error.status if isinstance(error, CallError) else None
                if isinstance(error, OverloadError):
                    self._limits.gate.overloaded(began)
                if isinstance(error, UnusableAnswerError):
                    error.came = text or ""
                reason = (
                    str(error) if isinstance(error, CallError | UnusableAnswerError) else "given up"
                )
                unsent, seconds = (
                    isinstance(error, CallError) and error.unsent,
                    time.monotonic() - began,
                )
                self._meter.ended(
                    number,
                    Attempt(
                        answer=text, error=reason, status=status, unsent=unsent, seconds=seconds
                    ),
                )
                raise
            self._limits.gate.went_well()
            self._answered, self._told, self._rejected = time.monotonic(), False, 0
            self._meter.ended(number, Attempt(answer=text, seconds=time.monotonic() - began))
            return answer

    def _failed(self, state: RetryCallState) -> None:
        """Count it, and say once since the last answer that there is none, or that there will be
        none for a while.
        """
        error = state.outcome and state.outcome.exception()
        self.tally.counts[str(error)] += 1
        left_alone = asked_to_wait(state) > _SILENT_SECONDS
        if self._told or not (left_alone or time.monotonic() - self._answered > _SILENT_SECONDS):
            return
        self._told = True
        why = error.told if isinstance(error, CallError) else str(error)
        if left_alone:
            self._say(
                f"{self._wire.base_url} asks to be left alone for "
                f"{duration(asked_to_wait(state))} ({why}): it is asked again then."
            )
        else:
            self._say(
                f"{self._wire.base_url} does not answer ({why}): it is asked again for up to "
                f"{self.endpoint.patience_minutes:g} minutes."
            )
