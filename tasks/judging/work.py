"""How much a judging step does, at most, by who judges: questions, tokens, and what goes over the
network, with how much of it the ledger of a lake holds already.

Each kind of judge says what its work is (`JudgeSpec.work`); what several need is here.
Test: pytest tests/flows/planning/test_paid_calls.py
"""

from collections.abc import Callable, Iterator
from functools import partial

from dapflow.storage import Lake
from dapflow.storage.ledger import known_answers
from dapflow.tasks.judging.asking.ask import known_readings
from dapflow.tasks.judging.asking.questions import (
    Body,
    comparison_bodies,
    earlier_bodies,
    request_key,
    score_bodies,
)
from dapflow.tasks.judging.asking.settings import LLMSettings
from dapflow.tasks.judging.judges.base import Match
from dapflow.tasks.judging.material import Material
from dapflow.tasks.step import Requests, Work
from dapflow.tasks.step.work import CHARACTERS_PER_TOKEN, PROMPT_TOKENS

Keys = Iterator[tuple[str, str]]
"""The key of each request, and the one under which the same was asked earlier."""
_ORDERS = 2  # in which two answers are compared


def of_scoring_model(material: Material) -> Work:
    """Of a reward model, which reads a prompt once for all its completions; of a ranker, which
    reads each two answers in both orders.
    """
    tokens, rows = material.answer_tokens, material.verdicts
    if material.baseline or material.matches is not None:
        scored = _ORDERS * rows * (material.prompt_tokens + 2 * tokens)
    else:
        scored = material.prompts * material.prompt_tokens + rows * tokens
    return Work(calls=rows, scored=round(scored), shards=material.matches is None)


def of_llm(by: LLMSettings, material: Material) -> Work:
    """Of a judge behind a server: its requests."""
    priced = by.priced()
    tokens = _question_tokens(by, material.answer_tokens)
    requests = Requests(
        count=material.verdicts * by.calls_per_verdict,
        model=str(by),
        source=priced.source,
        usd=None if priced.price is None else priced.price.of(tokens, by.answer_tokens),
        limit=by.budget.max_cost_usd,
        known=partial(_known, by, material),
    )
    return Work(calls=requests.count, requests=requests)


def _question_tokens(by: LLMSettings, answer_tokens: float) -> int:
    """The longest prompt of a judge, about: its template, the question, and the answers."""
    text = by.prompt_template() + (by.instruction or "")
    template = round(len(text.encode()) / CHARACTERS_PER_TOKEN)
    return template + PROMPT_TOKENS + round((2 if by.compares else 1) * answer_tokens)


def _known(by: LLMSettings, material: Material, lake: Lake) -> int:
    """How many of a step's answers are in the ledger."""
    if not material.is_in(lake):
        return 0
    keys = dict(
        _comparisons(by, material, lake) if material.matches else _scores(by, material, lake)
    )
    find = partial(known_answers, lake)
    return len(known_readings(find, by, keys, keys.__getitem__))


def _scores(by: LLMSettings, material: Material, lake: Lake) -> Keys:
    template = by.prompt_template()
    for question in material.questions(lake):
        for body in score_bodies(by, template, question):
            yield (key := request_key(by, body)), key


def _comparisons(by: LLMSettings, material: Material, lake: Lake) -> Keys:
    assert material.matches is not None, "the caller has asked"
    bodies: Callable[[Match], list[Body]] = partial(comparison_bodies, by, by.prompt_template())
    earlier = earlier_bodies(by) or bodies
    for match in material.matches(lake):
        for body, before in zip(bodies(match), earlier(match), strict=True):
            yield request_key(by, body), request_key(by, before)
