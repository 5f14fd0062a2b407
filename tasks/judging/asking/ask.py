"""An LLM judge at work: every question through the ledger and within the budget, many under way at
once, odd cases as values.

    with llm_judge(lake, version, by, say) as judge: verdicts = list(judge.compare(matches))
Test: pytest tests/tasks/judging/judges/test_llm.py
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

from dapflow.storage import Lake, UserError
from dapflow.storage.ledger import Ledger
from dapflow.tasks.events import BUDGET_REACHED, tell
from dapflow.tasks.judging.asking.budget import LedgerMeter
from dapflow.tasks.judging.asking.questions import (
    Body,
    comparison_bodies,
    earlier_bodies,
    request_key,
    score_bodies,
    tokens_of,
    with_more_room,
)
from dapflow.tasks.judging.asking.settings import LLMSettings
from dapflow.tasks.judging.judges.base import Match, Question, Verdict
from dapflow.tasks.judging.replies.content import reply_of
from dapflow.tasks.judging.replies.readings import (
    Reading,
    Unread,
    compared_verdict,
    read_reply,
    scored_verdict,
    still_cut,
)
from dapflow.tasks.servers.client import Client, UnusableAnswerError

if TYPE_CHECKING:
    from dapflow.tasks.judging.asking.batches import BatchClient

Item = TypeVar("Item", Match, Question)
_PAGE = 20_000  # verdicts that are looked up in the ledger at once


class _Asked(Generic[Item]):
    """Which questions the items need, and the readings of their answers as they come; a question
    that several items need is asked once.
    """

    def __init__(
        self,
        items: Sequence[Item],
        bodies: Callable[[Item], list[Body]],
        key_of: Callable[[Body], str],
        on_rows: Callable[[int], None] | None,
    ) -> None:
        self._items = items
        self._bodies = bodies
        self._on_rows = on_rows
        self._keys = [[key_of(body) for body in bodies(item)] for item in items]
        self._left = [len(of_item) for of_item in self._keys]
        self._readings: dict[str, Reading] = {}
        self.wanting: dict[str, list[tuple[int, int]]] = defaultdict(
            list
        )  # item by item, and which of its requests
        for number, of_item in enumerate(self._keys):
            for place, key in enumerate(of_item):
                self.wanting[key].append((number, place))

    def body(self, key: str, bodies: Callable[[Item], list[Body]] | None = None) -> Body:
        """The request of a key; bodies: of the same question in other words."""
        number, place = self.wanting[key][0]
        return (bodies or self._bodies)(self._items[number])[place]

    def settle(self, key: str, reading: Reading) -> None:
        """Take a reading for whatever wants it."""
        self._readings[key] = reading
        for number, _ in self.wanting[key]:
            self._left[number] -= 1
            if self._on_rows and not self._left[number]:
                self._on_rows(1)

    def readings(self) -> Iterator[list[Reading]]:
        """Those of each item, in order."""
        for of_item in self._keys:
            yield [self._readings[key] for key in of_item]


class LLMJudge:
    """Compares or scores; verdicts come in the order of the questions. What the ledger holds is not
    asked again, in whatever run it was paid.
    """

    together = True

    def __init__(
        self,
        version: str,
        by: LLMSettings,
        ledger: Ledger,
        meter: LedgerMeter,
        client: "Client[str] | BatchClient",
    ) -> None:
        self._version = version
        self.name = f"{by} {by.template_name}"
        self._by = by
        self._ledger = ledger
        self._meter = meter
        self._client = client
        self._template = by.prompt_template()

    def compare(
        self, matches: Sequence[Match], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """A verdict on each match, from both orders."""
        asks = partial(comparison_bodies, self._by, self._template)
        return self._verdicts(matches, asks, earlier_bodies(self._by), compared_verdict, on_rows)

    def judge(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """A score for each completion."""
        return self._verdicts(
            questions,
            partial(score_bodies, self._by, self._template),
            None,
            scored_verdict,
            on_rows,
        )

    def _verdicts(
        self,
        items: Sequence[Item],
        bodies: Callable[[Item], list[Body]],
        earlier: Callable[[Item], list[Body]] | None,
        weighed: Callable[[Sequence[Reading]], Verdict],
        on_rows: Callable[[int], None] | None,
    ) -> Iterator[Verdict]:
        asked = _Asked(items, bodies, self._key, on_rows)
        before = None if earlier is None else lambda key: self._key(asked.body(key, earlier))
        longer: dict[
            str, str
        ] = {}  # by the key of the question with more room: that of the question
        for key, reading in self._answers(asked.wanting, asked.body, before):
            if isinstance(reading, Unread) and reading.cut:
                longer[self._key(with_more_room(self._by, asked.body(key)))] = key
            else:
                asked.settle(key, reading)
        for key, reading in self._answers(
            longer, lambda key: with_more_room(self._by, asked.body(longer[key])), None
        ):
            asked.settle(longer[key], still_cut(self._by, reading))
        self._ledger.synchronise()
        verdicts = [weighed(readings) for readings in asked.readings()]
        self._check(verdicts)
        yield from verdicts

    def _answers(
        self,
        keys: Iterable[str],
        body_of: Callable[[str], Body],
        before: Callable[[str], str] | None,
    ) -> Iterator[tuple[str, Reading]]:
        """What the answer to each question says: of the ledger where it is known, else of the
        server, as they come.
        """
        known = known_readings(self._ledger.find, self._by, keys, before)
        yield from known.items()
        asked = ((key, body_of(key)) for key in keys if key not in known)
        yield from self._client.each(
            asked, lambda answer: read_reply(self._by, reply_of(answer)), tokens_of
        )

    def _key(self, body: Body) -> str:
        return request_key(self._by, body)

    def _check(self, verdicts: Sequence[Verdict]) -> None:
        """Raise UserError when too many verdicts cannot be used, or when the budget is spent and
        the recipe says to stop then.
        """
        outcomes, by = Counter(verdict.outcome for verdict in verdicts), self._by
        short = outcomes["over_budget"]
        if short:
            tell(
                BUDGET_REACHED,
                self._version,
                f"{by}: {short} of {len(verdicts)} verdicts are missing ({self._spent()} spent).",
            )
        if short and by.budget.on_budget == "stop":
            raise UserError(
                f"The budget of {by} is spent ({self._spent()}) and {short} of {len(verdicts)} "
                "verdicts are missing: allow more, or set "
                "budget.on_budget=go_on; what was answered is kept and is not paid again."
            )
        useless, asked = outcomes["invalid"] + outcomes["refused"], len(verdicts) - short
        if useless > by.max_invalid_rate * asked:
            raise UserError(
                f"{useless} of {asked} verdicts of {by} cannot be used ({outcomes['invalid']} "
                f"invalid, {outcomes['refused']} refused), "
                f"more than max_invalid_rate={by.max_invalid_rate:g} allows: read its answers "
                'with `dapflow sql "select answer, error from '
                'calls"`, then change the template, the model or the rate.'
            )

    def _spent(self) -> str:
        spent = self._meter.spent
        return f"{spent.calls:,} calls, {spent.tokens:,} tokens, ${spent.usd:.4f}"


def _client(
    lake: Lake,
    version: str,
    by: LLMSettings,
    meter: LedgerMeter,
    ledger: Ledger,
    say: Callable[[str], None],
) -> "Client[str] | BatchClient":
    if not by.batch:
        return Client(by.endpoint, meter, say)
    from dapflow.tasks.judging.asking.batches import (
        BatchClient,
    )  # with the openai package, which takes a second

    return BatchClient(by.endpoint, lake, version, meter, ledger, say)


@contextmanager
def llm_judge(
    lake: Lake, version: str, by: LLMSettings, say: Callable[[str], None] = lambda sentence: None
) -> Iterator[LLMJudge]:
    """The judge for one version of verdicts, whose calls are charged to it."""
    priced = by.priced()
    with Ledger(lake, version) as ledger:
        meter = LedgerMeter(by.endpoint.model, by.budget, priced.price, ledger)
        client = _client(lake, version, by, meter, ledger, say)
        try:
            yield LLMJudge(version, by, ledger, meter, client)
        finally:
            client.close()
            if report := client.report():
                say(report)


def known_readings(
    find: Callable[[Iterable[str]], Mapping[str, str]],
    by: LLMSettings,
    keys: Iterable[str],
    before: Callable[[str], str] | None,
) -> dict[str, Reading]:
    """What the answers say that somebody has paid for. find: of the ledger; before: the key of the
    same question as it was asked earlier, whose answer counts where it holds a verdict."""
    known: dict[str, Reading] = {}
    waiting = iter(keys)
    while page := list(islice(waiting, _PAGE)):
        known |= _read_all(by, find(page))
        earlier = {before(key): key for key in page if key not in known} if before else {}
        readable = _read_all(by, find(earlier)) if earlier else {}
        known |= {
            earlier[key]: reading for key, reading in readable.items() if isinstance(reading, float)
        }
    return known


def _read_all(by: LLMSettings, answers: Mapping[str, str]) -> dict[str, Reading]:
    readings: dict[str, Reading] = {}
    for key, answer in answers.items():
        with suppress(UnusableAnswerError):  # by the rules of today: it is asked for again
            readings[key] = read_reply(by, reply_of(json.loads(answer)))
    return readings
