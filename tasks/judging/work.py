"""What a judging step asks for, at most, by who judges: questions, tokens, and what goes over the
network, with how much of it the ledger of a lake holds already.

    work=lambda prompts, completions, by, **_: scoring(by, Judged(...))       # beside a step
Test: pytest tests/flows/planning/test_paid_calls.py
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.storage.ledger import known_answers
from dapflow.tasks.judging.asking.ask import known_readings
from dapflow.tasks.judging.asking.questions import (
    Body,
    comparison_bodies,
    earlier_bodies,
    request_key,
    score_bodies,
)
from dapflow.tasks.judging.judges.base import Match, Question
from dapflow.tasks.judging.judges.human import Human
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.programs import Program
from dapflow.tasks.judging.judges.prompted import SelfJudge
from dapflow.tasks.step import Requests, Work, contents_of
from dapflow.tasks.step.work import CHARACTERS_PER_TOKEN, PROMPT_TOKENS

By = ModelRef | LLM | Human | Program
Keys = Iterator[tuple[str, str]]
"""The key of each request, and the one under which the same was asked earlier."""
_ASKED_TOKENS = 400  # of a judge's prompt, with the material in it
_ORDERS = 2  # in which two answers are compared


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is judged. read: what a step's questions are about, all of it in the lake; answers: the
    completions whose length they have, one side or both.
    """

    read: tuple[DatasetRef, ...]
    answers: tuple[DatasetRef, ...]

    @property
    def answer_tokens(self) -> float:
        """Of the longest answer."""
        return max(contents_of(ref).answer_tokens for ref in self.answers)

    def is_in(self, lake: Lake) -> bool:
        """Whether the questions can be read, rather than still have to be made."""
        return all(lake.find(ref.version) is not None for ref in self.read)


def scoring(
    by: By,
    material: Material,
    baseline: DatasetRef | None,
    questions: Callable[[Lake], Iterable[Question]],
) -> Work:
    """Of a score for each completion. baseline: for a ranker, which compares with it in both
    orders.
    """
    [completions], prompts = material.answers, contents_of(material.read[0])
    rows, tokens = completions.rows, material.answer_tokens
    if isinstance(by, ModelRef):
        texts = prompts.rows * prompts.prompt_tokens + rows * tokens
        compared = _ORDERS * rows * (prompts.prompt_tokens + 2 * tokens)
        scored = texts if baseline is None else compared
        return Work(calls=rows, scored=round(scored), shards=True)
    if not isinstance(by, LLM):
        return Work(calls=rows, shards=True)
    requests = _requests(by, rows, tokens, partial(_known, by, material, _scores(by, questions)))
    return Work(calls=requests.count, requests=requests)


def comparing(
    by: LLM | Human | Program,
    matches: int,
    material: Material,
    drawn: Callable[[Lake], Iterable[Match]],
) -> Work:
    """Of a verdict on so many matches."""
    if not isinstance(by, LLM):
        return Work(calls=matches)
    known = partial(_known, by, material, _comparisons(by, drawn))
    requests = _requests(by, matches, material.answer_tokens, known)
    return Work(calls=requests.count, requests=requests)


def ranking(matches: int, prompts: DatasetRef, completions: DatasetRef) -> Work:
    """Of a ranker's verdict on so many matches."""
    prompt_tokens = contents_of(prompts).prompt_tokens
    tokens = prompt_tokens + 2 * contents_of(completions).answer_tokens
    return Work(calls=matches, scored=round(_ORDERS * matches * tokens))


def judging_itself(asks: SelfJudge, verdicts: int) -> Work:
    """Of a policy that is asked for so many verdicts, and answers by its own engine."""
    calls = verdicts * asks.calls_per_verdict
    sampled, scored = calls * asks.answer_tokens, calls * _ASKED_TOKENS
    return Work(calls=calls, sampled=sampled, scored=scored, shards=True)


def judging_rounds(by: By, prompts: int, n: int, answer_tokens: int) -> Work:
    """Of rounds, which judge what they have yet to sample: n answers to each of so many prompts,
    one by one or each two of them.
    """
    compared = isinstance(by, LLM | Program) and by.compares
    verdicts = prompts * (n // 2 if compared else n)
    if not isinstance(by, LLM):
        return Work(calls=verdicts)
    requests = _requests(by, verdicts, answer_tokens, lambda _: 0)
    return Work(calls=requests.count, requests=requests)


def _requests(
    by: LLM, verdicts: int, answer_tokens: float, known: Callable[[Lake], int]
) -> Requests:
    priced = by.priced()
    tokens = _question_tokens(by, answer_tokens)
    usd = None if priced.price is None else priced.price.of(tokens, by.answer_tokens)
    return Requests(
        count=verdicts * by.calls_per_verdict,
        model=str(by),
        source=priced.source,
        usd=usd,
        limit=by.budget.max_cost_usd,
        known=known,
    )


def _question_tokens(by: LLM, answer_tokens: float) -> int:
    """The longest prompt of a judge, about: its template, the question, and the answers."""
    text = by.prompt_template() + (by.instruction or "")
    template = round(len(text.encode()) / CHARACTERS_PER_TOKEN)
    return template + PROMPT_TOKENS + round((2 if by.compares else 1) * answer_tokens)


def _known(by: LLM, material: Material, keys_in: Callable[[Lake], Keys], lake: Lake) -> int:
    """How many of a step's answers are in the ledger."""
    if not material.is_in(lake):
        return 0
    keys = dict(keys_in(lake))
    find = partial(known_answers, lake)
    return len(known_readings(find, by, keys, keys.__getitem__))


def _scores(by: LLM, questions: Callable[[Lake], Iterable[Question]]) -> Callable[[Lake], Keys]:
    def keys(lake: Lake) -> Keys:
        template = by.prompt_template()
        for question in questions(lake):
            for body in score_bodies(by, template, question):
                yield (key := request_key(by, body)), key

    return keys


def _comparisons(by: LLM, drawn: Callable[[Lake], Iterable[Match]]) -> Callable[[Lake], Keys]:
    def keys(lake: Lake) -> Keys:
        bodies: Callable[[Match], list[Body]] = partial(comparison_bodies, by, by.prompt_template())
        earlier = earlier_bodies(by) or bodies
        for match in drawn(lake):
            for body, before in zip(bodies(match), earlier(match), strict=True):
                yield request_key(by, body), request_key(by, before)

    return keys
