"""An LLM judge at work: every question through the ledger and within the budget, many under way at once, odd cases as values.

    with llm_judge(lake, version, by, say) as judge: verdicts = list(judge.compare(matches))
Test: pytest tests/tasks/judges/test_llm.py
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from storage import Lake, UserError
from storage.ledger import Ledger
from tasks.engines.endpoint import Client, Refusal, Unaffordable
from tasks.events import BUDGET_REACHED, tell
from tasks.judges.base import Match, Question, Verdict, weigh
from tasks.judges.budget import LedgerMeter
from tasks.judges.llm import LLM
from tasks.judges.parsing import parse_criteria, parse_score
from tasks.judges.prompted import Prompted
from tasks.judges.replies import Reply, first_is_better, reply_of
from tasks.judges.templates import fill

if TYPE_CHECKING:
    from tasks.judges.batches import BatchClient

Item = TypeVar("Item", Match, Question)
Body = dict[str, Any]
Reading = float | None | Refusal
"""What an answer says: a score or a probability, None for one that cannot be read, or why there is no answer."""
_LIKELIEST = 20  # tokens whose log-probabilities are asked for: as many as OpenAI and vLLM give
_PAGE = 20_000  # verdicts that are looked up in the ledger at once


class LLMJudge:
    """Compares or scores; verdicts come in the order of the questions. What the ledger holds is not asked again, in whatever run it was paid."""

    together = True

    def __init__(self, version: str, by: LLM, ledger: Ledger, meter: LedgerMeter, client: "Client[str] | BatchClient") -> None:
        self._version = version
        self.name = f"{by} {by.template_name}"
        self._by = by
        self._ledger = ledger
        self._meter = meter
        self._client = client
        self._template = by.prompt_template()

    def compare(self, matches: Sequence[Match], on_rows: Callable[[int], None] | None = None) -> Iterator[Verdict]:
        """A verdict on each match, from both orders."""
        return self._verdicts(matches, lambda match: comparison_bodies(self._by, self._template, match), compared_verdict, on_rows)

    def judge(self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None) -> Iterator[Verdict]:
        """A score for each completion."""
        return self._verdicts(questions, lambda question: score_bodies(self._by, self._template, question), scored_verdict, on_rows)

    def _verdicts(
        self,
        items: Sequence[Item],
        bodies: Callable[[Item], list[Body]],
        weighed: Callable[[Sequence[Reading]], Verdict],
        on_rows: Callable[[int], None] | None,
    ) -> Iterator[Verdict]:
        keys = [[self._key(body) for body in bodies(item)] for item in items]
        readings = self._known(keys)
        left = [sum(key not in readings for key in of_item) for of_item in keys]
        wanting: dict[str, list[tuple[int, int]]] = defaultdict(list)  # question by question, and which of its requests
        for number, of_item in enumerate(keys):
            for place, key in enumerate(of_item):
                if key not in readings:
                    wanting[key].append((number, place))
        if on_rows:
            on_rows(left.count(0))
        asked = ((key, bodies(items[wants[0][0]])[wants[0][1]]) for key, wants in wanting.items())
        for key, reading in self._client.each(asked, lambda answer: self._read(reply_of(answer)), _tokens):
            readings[key] = reading
            for number, _ in wanting[key]:
                left[number] -= 1
                if on_rows and not left[number]:
                    on_rows(1)
        self._ledger.synchronise()
        verdicts = [weighed([readings[key] for key in of_item]) for of_item in keys]
        self._check(verdicts)
        yield from verdicts

    def _known(self, keys: Sequence[Sequence[str]]) -> dict[str, Reading]:
        known: dict[str, Reading] = {}
        for first in range(0, len(keys), _PAGE):
            page = {key for of_item in keys[first : first + _PAGE] for key in of_item} - known.keys()
            known |= {key: self._read(reply_of(json.loads(answer))) for key, answer in self._ledger.find(page).items()}
        return known

    def _key(self, body: Body) -> str:
        return request_key(self._by, body)

    def _read(self, reply: Reply) -> float | None:
        return read_reply(self._by, reply)

    def _check(self, verdicts: Sequence[Verdict]) -> None:
        """Raise UserError when too many verdicts cannot be used, or when the budget is spent and the recipe says to stop then."""
        outcomes, by = Counter(verdict.outcome for verdict in verdicts), self._by
        short = outcomes["over_budget"]
        if short:
            tell(BUDGET_REACHED, self._version, f"{by}: {short} of {len(verdicts)} verdicts are missing ({self._spent()} spent).")
        if short and by.budget.on_budget == "stop":
            raise UserError(
                f"The budget of {by} is spent ({self._spent()}) and {short} of {len(verdicts)} verdicts are missing: allow more, or set "
                "budget.on_budget=go_on; what was answered is kept and is not paid again."
            )
        useless, asked = outcomes["invalid"] + outcomes["refused"], len(verdicts) - short
        if useless > by.max_invalid_rate * asked:
            raise UserError(
                f"{useless} of {asked} verdicts of {by} cannot be used ({outcomes['invalid']} invalid, {outcomes['refused']} refused), "
                f'more than max_invalid_rate={by.max_invalid_rate:g} allows: read its answers with `dapflow sql "select answer, error from '
                'calls"`, then change the template, the model or the rate.'
            )

    def _spent(self) -> str:
        spent = self._meter.spent
        return f"{spent.calls:,} calls, {spent.tokens:,} tokens, ${spent.usd:.4f}"


def _client(
    lake: Lake, version: str, by: LLM, meter: LedgerMeter, ledger: Ledger, say: Callable[[str], None]
) -> "Client[str] | BatchClient":
    if not by.batch:
        return Client(by.endpoint, meter, say)
    from tasks.judges.batches import BatchClient  # with the openai package, which takes a second

    return BatchClient(by.endpoint, lake, version, meter, ledger, say)


@contextmanager
def llm_judge(lake: Lake, version: str, by: LLM, say: Callable[[str], None] = lambda sentence: None) -> Iterator[LLMJudge]:
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


def comparison_bodies(by: LLM, template: str, match: Match) -> list[Body]:
    """The requests of a comparison: all samples in the order given, then all in the other."""
    return [body for text in comparison_texts(by, template, match) for body in _bodies(by, text)]


def score_bodies(by: LLM, template: str, question: Question) -> list[Body]:
    """The requests of a score."""
    return list(_bodies(by, score_text(by, template, question)))


def comparison_texts(by: Prompted, template: str, match: Match) -> tuple[str, str]:
    """What a judge is asked about a match, in the order given and in the other."""
    first, second = match.first, match.second
    return (
        _filled(by, template, prompt=match.prompt, first=first, second=second),
        _filled(by, template, prompt=match.prompt, first=second, second=first),
    )


def score_text(by: Prompted, template: str, question: Question) -> str:
    """What a judge is asked about a completion."""
    criteria = {"criteria": "\n".join(f"- {name}" for name in by.criteria)} if by.criteria else {}
    return _filled(by, template, prompt=question.prompt, completion=question.completion, **criteria)


def read_reply(by: Prompted, reply: Reply) -> float | None:
    """The probability that the first is better, or the score; None for what cannot be read."""
    lowest, highest = by.scale
    if by.compares:
        return first_is_better(reply)
    if by.mode != "rubric":
        return parse_score(reply.text, highest, lowest)
    grades = parse_criteria(reply.text, by.criteria, highest, lowest)
    return None if grades is None else sum(by.criteria[name] * grades[name] for name in grades) / sum(by.criteria.values())


def request_key(by: LLM, body: Body) -> str:
    """Recognises a request wherever it comes from: all of it, and the model, and nothing else."""
    return hashlib.sha256(json.dumps([by.endpoint.model, body], sort_keys=True).encode()).hexdigest()


def _filled(by: Prompted, template: str, **material: str) -> str:
    return fill(template, **material, **({"instruction": by.instruction} if by.instruction else {}))


def _bodies(by: LLM, text: str) -> Iterator[Body]:
    labels = {"logprobs": True, "top_logprobs": _LIKELIEST} if by.compares and by.logprobs else {}
    for sample in range(by.samples):
        turns = [{"role": "user", "content": text}]
        yield {"messages": turns, "temperature": by.temperature, "max_tokens": by.answer_tokens, "seed": sample, **labels}


def _tokens(body: Any) -> int:
    return sum(len(turn["content"]) for turn in body["messages"]) // 4 + body["max_tokens"]


def compared_verdict(readings: Sequence[Reading]) -> Verdict:
    """What the answers to a match amount to: those in the order given, then as many in the other."""
    half = len(readings) // 2
    return _why_not(readings) or weigh(_mean(readings[:half]), _mean(readings[half:]))


def scored_verdict(readings: Sequence[Reading]) -> Verdict:
    """What the answers about a completion amount to: the mean of those that could be read."""
    if (verdict := _why_not(readings)) is not None:
        return verdict
    score = _mean(readings)
    readable = sum(isinstance(reading, float) for reading in readings)
    if score is None:
        return Verdict(outcome="invalid", note=f"none of {len(readings)} answers holds a score")
    return Verdict(outcome="scored", score=score, note=f"{readable} of {len(readings)} answers hold a score")


def _why_not(readings: Sequence[Reading]) -> Verdict | None:
    """Over budget when any call was not made, refused when the server answered to one that it will not."""
    for reading in sorted(readings, key=lambda one: not isinstance(one, Unaffordable)):
        if isinstance(reading, Refusal):
            return Verdict(outcome="over_budget" if isinstance(reading, Unaffordable) else "refused", note=reading.reason)
    return None


def _mean(readings: Sequence[Reading]) -> float | None:
    """Over those that could be read."""
    valid = [reading for reading in readings if isinstance(reading, float)]
    return sum(valid) / len(valid) if valid else None
