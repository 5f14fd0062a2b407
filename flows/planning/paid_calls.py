"""What a plan's LLM judges would be asked, what the ledger holds of it already, and about what the
rest can cost at most.

paid_calls(recipe, calls, lake)  ->  {"calls": ..., "known": ..., "usd": ..., "models": {name: where its price is from}}
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import DatasetRef, Lake
from dapflow.storage.ledger import known_answers
from dapflow.tasks.judging.asking.ask import known_readings
from dapflow.tasks.judging.asking.questions import (
    comparison_bodies,
    earlier_bodies,
    request_key,
    score_bodies,
)
from dapflow.tasks.judging.compare import asked_of
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.program import Program
from dapflow.tasks.judging.matches import Meeting
from dapflow.tasks.judging.score import asked_prompts, question_of
from dapflow.tasks.step import Call

_BYTES_PER_TOKEN = 4.0
_PROMPT_TOKENS = 60
_JUDGING = ("judge", "compare", "compare_policies")  # rounds judge what they have yet to sample


def paid_calls(recipe: Recipe, calls: Sequence[Call], lake: Lake | None) -> dict[str, Any]:
    """Of the steps that will run. usd: None where nobody knows a price; `known` counts what can be
    looked up before anything is sampled.
    """
    asked, known, usd, models = 0, 0, 0.0, dict[str, str]()
    unknown = False
    for call in calls:
        by = call.arguments.get("by")
        if isinstance(by, LLM):
            requests, held, priced = (
                verdicts_of(call) * by.calls_per_verdict,
                _held(call, by, lake),
                by.priced(),
            )
            models[str(by)] = priced.source
            asked, known = asked + requests, known + held
            unknown |= priced.price is None
            if priced.price is not None:
                most = (requests - held) * priced.price.of(_tokens_in(recipe, by), by.answer_tokens)
                usd += most if by.budget.max_cost_usd is None else min(most, by.budget.max_cost_usd)
    return {"calls": asked, "known": known, "usd": None if unknown else usd, "models": models}


def verdicts_of(call: Call) -> int:
    """How many verdicts a step asks its judge for, at most: one a row; of rounds, one on each
    answer or each two answers to a prompt.
    """
    if call.step != "train_online":
        return call.rows
    by, rounds, n = call.arguments["by"], call.arguments["rounds"], call.arguments["sampling"].n
    compared = isinstance(by, LLM | Program) and by.compares
    return (
        rounds.count
        * min(rounds.prompts, call.arguments["prompts"].rows)
        * (n // 2 if compared else n)
    )


def _tokens_in(recipe: Recipe, by: LLM) -> int:
    """The longest prompt of a judge, about: its template, the question, and answers as long as they
    can be.
    """
    text = by.prompt_template() + (by.instruction or "")
    answers = (2 if by.compares else 1) * max(
        recipe.sampling.max_tokens, recipe.evaluation.sampling.max_tokens
    )
    return round(len(text.encode()) / _BYTES_PER_TOKEN) + _PROMPT_TOKENS + answers


def _held(call: Call, by: LLM, lake: Lake | None) -> int:
    """How many of a step's answers are in the ledger: what it judges must be in the lake."""
    refs = {name: value for name, value in call.arguments.items() if isinstance(value, DatasetRef)}
    if (
        lake is None
        or call.step not in _JUDGING
        or any(lake.find(ref.version) is None for ref in refs.values())
    ):
        return 0
    keys = dict(_keys(call, by, lake, refs))
    return len(
        known_readings(lambda wanted: known_answers(lake, wanted), by, keys, keys.__getitem__)
    )


def _keys(
    call: Call, by: LLM, lake: Lake, refs: Mapping[str, DatasetRef]
) -> Iterator[tuple[str, str]]:
    """What a step is going to ask, by key, and the key under which the same was asked earlier, if
    it was asked otherwise.
    """
    template, prompts = by.prompt_template(), asked_prompts(lake, refs["prompts"], by)
    if call.step == "judge":
        for row in lake.rows_of(refs["completions"]):
            for body in score_bodies(by, template, question_of(prompts[row["prompt_id"]], row)):
                yield (key := request_key(by, body)), key
        return
    meeting = (
        Meeting(completions=refs["after"], other=refs["before"])
        if call.step == "compare_policies"
        else Meeting(completions=refs["completions"], seed=call.arguments["seed"])
    )
    drawn = meeting.matches(lake)
    earlier = earlier_bodies(by) or partial(comparison_bodies, by, template)
    for match in asked_of(prompts, drawn):
        for body, before in zip(
            comparison_bodies(by, template, match), earlier(match), strict=True
        ):
            yield request_key(by, body), request_key(by, before)
