"""A provider's batch interface in place of one call after the other: half the price, answers within
a day, in whatever order.

    for key, answer in BatchClient(endpoint, lake, version, meter, ledger, say).each(requests, read, tokens): ...
Jobs are written down (`dapflow.storage.batches`) before the server is told: whoever asks the same
goes on waiting for them, a killed run, one of a newer version of the code, or another that is
alive. Test: pytest tests/tasks/judging/asking/test_batches.py
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from dapflow.storage import Lake, UserError
from dapflow.storage.batches import Job, alone, begin_job, end_job, name_job, new_tag, open_jobs
from dapflow.storage.ledger import Ledger
from dapflow.tasks.judging.asking.batch_server import BatchServer, Line
from dapflow.tasks.judging.asking.budget import LedgerMeter
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.servers.dialect import Dialect
from dapflow.tasks.servers.meter import Attempt
from dapflow.tasks.servers.refusal import (
    Refusal,
    Unaffordable,
    advice,
    is_of_the_question,
    same_reason,
)
from dapflow.tasks.servers.tally import HOPELESS
from dapflow.tasks.servers.wire import UnusableAnswerError

T = TypeVar("T")
Body = Mapping[str, Any]
_MOST_REQUESTS, _MOST_BYTES = (
    50_000,
    150_000_000,
)  # in one batch: OpenAI's limits, the second with some room


class BatchClient:
    """Answers like `dapflow.tasks.servers.client.Client`, by batches, one after the other until
    every request is answered or refused.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        lake: Lake,
        version: str,
        meter: LedgerMeter,
        ledger: Ledger,
        say: Callable[[str], None],
    ) -> None:
        self._endpoint = endpoint
        self._lake = lake
        self._version = version
        self._meter = meter
        self._ledger = ledger
        self._say = say
        self._server = BatchServer(endpoint)
        self._failed: Counter[str] = (
            Counter()
        )  # how often a request has come back without an answer
        self._reasons: Counter[str] = Counter()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def report(self) -> str:
        """One sentence on what was put into another batch; empty where nothing was."""
        again = ", ".join(f"{count} x {reason}" for reason, count in sorted(self._reasons.items()))
        return (
            f"{self._server.base_url}: not every request of a batch was answered at once ({again})."
            if again
            else ""
        )

    def each(
        self,
        requests: Iterable[tuple[str, Body]],
        read: Callable[[Any], T],
        tokens: Callable[[Body], int],
    ) -> Iterator[tuple[str, T | Refusal]]:
        """What `read` makes of each answer, in the order in which they come. Raises UserError for a
        server that has no such interface, or fails a whole batch."""
        waiting = dict(requests)
        for job in open_jobs(self._lake, self._server.base_url, self._endpoint.model):
            if not waiting.keys().isdisjoint(job.keys):
                yield from self._picked_up(job, waiting, read)
        while waiting:
            chosen = self._affordable(waiting)
            if not chosen:
                yield from ((key, Unaffordable(reason="the budget is spent")) for key in waiting)
                return
            yield from self._submitted(chosen, waiting, read)

    def _submitted(
        self, chosen: Mapping[str, Body], waiting: dict[str, Body], read: Callable[[Any], T]
    ) -> list[tuple[str, T | Refusal]]:
        """What a new batch brings."""
        with alone(self._lake, tag := new_tag()):
            job = begin_job(
                self._lake,
                tag,
                self._version,
                self._server.base_url,
                self._endpoint.model,
                list(chosen),
            )
            job = name_job(self._lake, job, self._server.submit(tag, chosen))
            self._say(
                f"Batch {job.batch}: {len(chosen)} requests. It may take up to a day; stopped, "
                "the same command goes on waiting for it."
            )
            return self._collect(job, waiting, read)

    def _picked_up(
        self, job: Job, waiting: dict[str, Body], read: Callable[[Any], T]
    ) -> list[tuple[str, T | Refusal]]:
        """What a batch brings that is open already. Where another run waits for it, its answers are
        in the ledger by then.
        """
        with alone(
            self._lake,
            job.tag,
            lambda: self._say(
                f"Another run waits for batch {job.batch or job.tag}: its answers serve both."
            ),
        ):
            known = self._ledger.find(waiting.keys() & set(job.keys))
            found = list[tuple[str, T | Refusal]]()
            for key, answer in known.items():
                with suppress(UnusableAnswerError):  # which the code that paid it could use
                    found.append((key, read(json.loads(answer))))
                    del waiting[key]
            still = [
                one
                for one in open_jobs(self._lake, self._server.base_url, self._endpoint.model)
                if one.tag == job.tag
            ]
            if not still or waiting.keys().isdisjoint(still[0].keys):
                return found
            [job] = still
            batch = (
                job.batch
                if job.batch and self._server.has(job.batch)
                else self._server.find(job.tag)
            )
            if batch is None:
                self._say(
                    f"{self._server.base_url} has no batch {job.batch or job.tag}: what is "
                    "missing is asked again."
                )
                end_job(self._lake, job, "lost")
                return found
            for key in waiting.keys() & set(job.keys):
                self._meter.set_aside(waiting[key])
            self._say(f"Batch {batch} of an earlier run is picked up again.")
            return found + self._collect(name_job(self._lake, job, batch), waiting, read)

    def _affordable(self, waiting: Mapping[str, Body]) -> dict[str, Body]:
        """As many requests as the budget allows and a batch holds; the most that they can take is
        set aside.
        """
        chosen, size = dict[str, Body](), 0
        for key, request in waiting.items():
            size += len(json.dumps(request))
            if len(chosen) == _MOST_REQUESTS or size > _MOST_BYTES or not self._meter.fits(request):
                break
            self._meter.set_aside(request)
            chosen[key] = request
        return chosen

    def _collect(
        self, job: Job, waiting: dict[str, Body], read: Callable[[Any], T]
    ) -> list[tuple[str, T | Refusal]]:
        """The answers of a batch, once it has ended; in the ledger before anybody uses them. What
        it did not answer stays waiting.
        """
        assert job.batch is not None, "the server has told its id"
        ended = self._server.wait(job.batch)
        mine = [key for key in job.keys if key in waiting]
        if ended.status == "failed":
            for key in mine:
                self._meter.give_back(waiting[key])
            end_job(self._lake, job, "lost")
            raise UserError(
                f"{self._server.base_url} has failed batch {job.batch} ({ended.reason}): put that "
                "right, then run again."
            )
        lines = {line.key: line for line in self._server.lines(ended)}
        found, asked = list[tuple[str, T | Refusal]](), dict[str, Body]()
        for key in mine:
            line = lines.get(key) or Line(key=key, error=ended.status)
            for outcome in self._entered(key, waiting[key], line, read):
                found.append((key, outcome))
                asked[key] = waiting.pop(key)
        self._ledger.synchronise()
        others = set(job.keys) - set(mine)
        end_job(self._lake, job, "done", left=sorted(others - self._ledger.find(others).keys()))
        answered = any(not isinstance(outcome, Refusal) for _, outcome in found)
        self._check([lines[key] for key in asked if key in lines], asked, answered)
        return found

    def _check(self, lines: Sequence[Line], asked: Mapping[str, Body], answered: bool) -> None:
        """Raise UserError where a few lines are refused for the same reason, which lies in no
        question: the next batch would be, too.
        """
        row = Counter[str]()
        for line in lines:
            if (
                not line.is_refused
                or is_of_the_question(line.said.words)
                or (answered and not line.is_of_the_account)
            ):
                continue
            row[same_reason(line.said.words)] += 1
            if row[same_reason(line.said.words)] == HOPELESS:
                learnt = Dialect().learn(line.said, asked[line.key])
                remedy = (
                    f"set judge.batch=false, to ask it {learnt}"
                    if learnt
                    else advice(line.said, asked[line.key], "judge")
                )
                raise UserError(
                    f"{self._endpoint.model} refuses the requests of a batch ({line.error}): "
                    f"{remedy}, and run again."
                )

    def _entered(
        self, key: str, request: Body, line: Line, read: Callable[[Any], T]
    ) -> list[T | Refusal]:
        """What a line amounts to, written into the ledger; nothing for what is to be asked again
        (`read` may make None of an answer).
        """
        number, error, answer = self._meter.sent(key, request), line.error, list[T]()
        if line.status == 200:
            try:
                answer.append(read(line.body))
            except UnusableAnswerError as unusable:
                error = str(unusable)
        text = None if line.body is None else json.dumps(line.body)
        unanswered = line.status or 400  # what no model has read costs nothing
        self._meter.ended(
            number,
            Attempt(answer=text, error=error, status=None if line.status == 200 else unanswered),
        )
        if error is None:
            return [*answer]
        self._reasons[error] += 1
        if line.is_refused:
            return [Refusal(reason=error, status=line.status)]
        self._failed[key] += 1
        times = self._endpoint.attempts
        return [Refusal(reason=f"{error}, {times} times")] if self._failed[key] == times else []
