"""The policy as its own judge, as long as it is one: measured on labelled pairs in each iteration,
and not used when no better than chance.

    checked(recipe, who, policy, initial)  ->  who judges, and what was measured
Test: pytest tests/flows/judges/test_self_judge.py
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dapflow.flows.judges import Asked, Who, judge_named
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.tasks.evaluation.judge_quality import (
    AGREEMENT,
    CHANGE,
    answers_of,
    better_than_chance,
    measure_judge,
    prompts_of,
)
from dapflow.tasks.judging.by_policy import compare_itself, judge_itself
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, load_preferences
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.step import rows_if_made
from dapflow.tasks.step.progress import reporter

STOP = "stop"


def checked(
    recipe: Recipe,
    who: Who | None,
    policy: ModelRef,
    initial: ModelRef,
    before: DatasetRef | None = None,
    labels: bool = True,
) -> tuple[Who | None, dict[str, DatasetRef]]:
    """A judge that is not the policy as it is; the policy where it is better than chance, else its
    fallback. Raises UserError to stop.

    before: how good a judge it was in the iteration before; whether it has improved is said.
    labels: whether it labels what this iteration learns from. Where not, the policy is only
    measured, and nobody judges in its place.
    """
    if not isinstance(who, Asked):
        return who, {}
    measured = _measured(recipe, who, before)
    metrics = rows_if_made(measured)
    for row in metrics or []:
        if row["name"] == CHANGE:
            reporter().said(_change(row))
    if metrics is None or better_than_chance(metrics):
        return who, {"judge_quality": measured}
    if not labels:
        return None, {"judge_quality": measured}
    sentence, fallback = _sentence(who, metrics), who.asks.fallback
    if fallback == STOP:
        raise UserError(
            f"{sentence}: train it to judge, take another judge, or name one in judge.fallback."
        )
    reporter().said(f"{sentence}: {fallback} judges instead.")
    return judge_named(recipe, fallback, policy, initial, "reward"), {"judge_quality": measured}


def _measured(recipe: Recipe, who: Asked, before: DatasetRef | None) -> DatasetRef:
    """How good a judge the policy is on labelled pairs that nothing is trained on."""
    source = find_source(recipe.preferences.source, PREFERENCES_FILE)
    pairs = load_preferences(source.name, source.digest, "test")
    prompts = prompts_of(pairs, who.asks.labelled)
    chosen, rejected = answers_of(pairs, prompts, "chosen"), answers_of(pairs, prompts, "rejected")
    asked: dict[str, Any] = {
        "policy": who.policy,
        "asks": who.asks,
        "sampler": who.sampler,
        "chat_template": who.chat_template,
    }
    if who.compares:
        verdicts = [compare_itself(prompts, chosen, rejected, **asked, seed=0)]
    else:
        verdicts = [judge_itself(prompts, side, **asked) for side in (chosen, rejected)]
    return measure_judge(
        who.policy,
        prompts,
        chosen,
        rejected,
        verdicts,
        None if who.compares else who.asks.scale[1],
        before,
    )


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
    return f"As a judge the policy agrees with people {value:+.0f} points [{low:+.0f}, {high:+.0f}] more than an iteration before: {verdict}."


def _sentence(who: Asked, metrics: Sequence[Mapping[str, Any]]) -> str:
    named = {row["name"]: row for row in metrics}
    share = named[AGREEMENT]
    unread = named["unread"]["value"]
    decides = f"it decides {named['decided']['value']:.0%} of the labelled pairs" + (
        f" ({unread:.0%} cannot be read)" if unread else ""
    )
    if share["value"] is None:
        return f"The policy {who.policy} is not used as its own judge, since {decides}"
    interval = f"{share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"
    return f"The policy {who.policy} is not used as its own judge, since {decides} and is right on {interval}, no better than chance"
