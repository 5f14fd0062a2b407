"""The policy as its own judge, as long as it is one: measured on labelled pairs in each iteration,
and not used when no better than chance.

    proved(here, judge, seats, before)  ->  who judges, and what was measured
Test: pytest tests/flows/judges/test_self_judge.py
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dapflow.flows.judging.labelling import scored, versus
from dapflow.flows.standing import Standing
from dapflow.storage import DatasetRef, UserError
from dapflow.tasks.evaluation.judge_quality import (
    AGREEMENT,
    CHANGE,
    answers_of,
    better_than_chance,
    measure_judge,
    prompts_of,
)
from dapflow.tasks.judging.kinds import spec_of
from dapflow.tasks.judging.spec import Proof, Seated, Seats
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, load_preferences
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.step import rows_if_made
from dapflow.tasks.step.progress import reporter


def proved(
    here: Standing, judge: Seated, seats: Seats, before: DatasetRef | None
) -> tuple[Seated | None, DatasetRef]:
    """The judge where it is better than chance, else its fallback; and what was measured.

    before: how good a judge it was in the iteration before; whether it has improved is said.
    Where nothing is to be labelled, the judge is only measured, and nobody judges in its place.
    Raises UserError to stop.
    """
    proof = judge.spec.proof
    assert proof is not None, "the caller has asked"
    quality = _measured(here, judge, proof, before)
    metrics = rows_if_made(quality)
    for row in metrics or []:
        if row["name"] == CHANGE:
            reporter().said(_change(row))
    if metrics is None or better_than_chance(metrics):
        return judge, quality
    if here.data == "seeds":
        return None, quality
    sentence = _sentence(judge, metrics)
    if proof.fallback is None:
        raise UserError(
            f"{sentence}: train it to judge, take another judge, or name one in judge.fallback."
        )
    reporter().said(f"{sentence}: {proof.fallback} judges instead.")
    fallback = spec_of(proof.fallback).with_reward(here.recipe.reward)
    return fallback.seated(seats), quality


def _measured(here: Standing, judge: Seated, proof: Proof, before: DatasetRef | None) -> DatasetRef:
    """How good a judge the policy is on labelled pairs that nothing is trained on."""
    source = find_source(here.recipe.preferences.source, PREFERENCES_FILE)
    pairs = load_preferences(source.name, source.digest, "test")
    prompts = prompts_of(pairs, proof.labelled)
    chosen, rejected = answers_of(pairs, prompts, "chosen"), answers_of(pairs, prompts, "rejected")
    if judge.compares:
        verdicts, highest = [versus(prompts, rejected, chosen, judge, None)], None
    else:
        verdicts = [scored(prompts, side, judge, None) for side in (chosen, rejected)]
        highest = judge.spec.scale[1] if judge.spec.scale else None
    assert judge.model is not None, "a judge that has to prove itself is a model"
    return measure_judge(judge.model, prompts, chosen, rejected, verdicts, highest, before)


def _change(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return f"Whether the policy has become a better judge cannot be told: {row['note']}."
    value, low, high = (100 * row[one] for one in ("value", "low", "high"))
    verdict = (
        "it has become a better judge"
        if low > 0
        else "it has become a worse judge"
        if high < 0
        else "it has not improved beyond doubt"
    )
    return (
        f"As a judge the policy agrees with people {value:+.0f} points [{low:+.0f}, {high:+.0f}] "
        f"more than an iteration before: {verdict}."
    )


def _sentence(judge: Seated, metrics: Sequence[Mapping[str, Any]]) -> str:
    named = {row["name"]: row for row in metrics}
    share = named[AGREEMENT]
    unread = named["unread"]["value"]
    decides = f"it decides {named['decided']['value']:.0%} of the labelled pairs" + (
        f" ({unread:.0%} cannot be read)" if unread else ""
    )
    if share["value"] is None:
        return f"The policy {judge.model} is not used as its own judge, since {decides}"
    interval = f"{share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"
    return (
        f"The policy {judge.model} is not used as its own judge, since {decides} and is right on "
        f"{interval}, no better than chance"
    )
