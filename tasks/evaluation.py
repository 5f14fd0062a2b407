"""The new policy against the old one, on prompts neither was trained on, by a judge that did not label the training pairs.

    evaluate(policy, before, after, verdicts of both)  ->  metrics
Test: tests/tasks/test_evaluation.py
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from storage import DatasetRef, ModelRef, UserError
from tasks.statistics import bootstrap_share
from tasks.step import Out, step

Rows = Sequence[Mapping[str, Any]]
_WON = {"win": 1.0, "tie": 0.5, "lose": 0.0}


@step("metrics", title="evaluate", expects=lambda **_: 7)
def evaluate(
    out: Out,
    policy: ModelRef,
    before: DatasetRef,
    after: DatasetRef,
    judged_before: DatasetRef | None,
    judged_after: DatasetRef | None,
    reward_before: DatasetRef | None,
    reward_after: DatasetRef | None,
    seed: int,
    compared: DatasetRef | None = None,
) -> None:
    """Win rate with a 95 % interval over the prompts judged on both sides, and reward, length and truncation before and after.

    compared: verdicts of a judge that compares the two sides, in place of the scores of both. Without rewards there is none in the figures.
    """

    def read(ref: DatasetRef | None) -> Rows:
        return [] if ref is None else out.lake.rows_of(ref)

    wins = compared_wins(read(compared)) if compared is not None else prompt_wins(read(judged_before), read(judged_after))
    if not wins:
        raise UserError("No held-out prompt was judged on both sides, so there is no win rate: look at the verdicts' notes.")
    figures = [
        ("win_rate", *bootstrap_share(list(wins.values()), seed), "share of prompts"),
        ("judged_prompts", float(len(wins)), None, None, "prompts"),
    ]
    for name, completions, verdicts in (("before", before, reward_before), ("after", after, reward_after)):
        figures += [(f"{what}_{name}", *numbers) for what, *numbers in _describe(read(completions), read(verdicts))]
    rows = [
        {"id": out.row_id(n), "subject": policy.version, "name": name, "value": value, "low": low, "high": high, "unit": unit}
        for n, (name, value, low, high, unit) in enumerate(figures)
    ]
    out.write(0, rows)


def prompt_wins(before: Rows, after: Rows) -> dict[str, float]:
    """For each prompt that both sides were scored on, the share of (after, before) pairs that `after` wins; a tie counts half."""
    old, new = _scores(before), _scores(after)
    return {prompt: float(np.mean([np.sign(b - a) / 2 + 0.5 for a in old[prompt] for b in new[prompt]])) for prompt in old if prompt in new}


def compared_wins(verdicts: Rows) -> dict[str, float]:
    """For each prompt with a comparison, the share of them that the first side wins; a tie counts half."""
    won: dict[str, list[float]] = {}
    for verdict in verdicts:
        if verdict["outcome"] in _WON:
            won.setdefault(verdict["prompt_id"], []).append(_WON[verdict["outcome"]])
    return {prompt: float(np.mean(shares)) for prompt, shares in won.items()}


def _scores(verdicts: Rows) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for verdict in verdicts:
        if verdict["outcome"] == "scored":
            scores.setdefault(verdict["prompt_id"], []).append(verdict["score"])
    return scores


def _describe(completions: Rows, verdicts: Rows) -> Iterator[tuple[str, float, None, None, str]]:
    answered = [row for row in completions if row["finish_reason"] != "refused"]
    scored = [verdict["score"] for verdict in verdicts if verdict["outcome"] == "scored"]
    if scored:
        yield "reward", float(np.mean(scored)), None, None, "reward model's logits"
    if answered:
        yield "length", float(np.mean([len(row["token_ids"]) for row in answered])), None, None, "tokens"
        truncated = np.mean([row["finish_reason"] == "length" for row in answered])
        yield "truncated", float(truncated), None, None, "share of completions"
