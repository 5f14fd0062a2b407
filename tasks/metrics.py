"""The figures that say what came of an iteration: their names, units and what they mean; how one
becomes a row of `metrics`.

A name ends in `_before` or `_after` where it is about one side's answers, and in `_vs_BASELINE`
where the other side is not the policy that the iteration began with. Imports neither torch nor
prefect. Test: pytest tests/tasks/evaluation/test_contests.py tests/tasks/evaluation/test_texts.py
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dapflow.storage.rows import MetricRow
from dapflow.tasks.statistics import (
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_share,
    percentile_interval,
    resamples,
    wilson,
)

SIDES = ("before", "after")
_VERSUS = "_vs_"
_SAMPLES = 2000
ONE_PROMPT = "one prompt says nothing about others"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a figure is. better: the direction that is good news; None where neither is. unit:
    `share of ...` of a share, 0 to 1, and of a difference of two."""

    label: str
    unit: str
    better: Literal["higher", "lower"] | None = None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One value with its 95 % interval, where it has one. note: why there is none, or what to know
    before believing it.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        assert self.value is None or not math.isnan(self.value), f"{self.name} is not a number"
        assert self.value is not None or self.note, f"{self.name} has no value and no reason"


METRICS: dict[str, Metric] = {
    "win_rate": Metric(label="win rate", unit="share of prompts", better="higher"),
    "judged_prompts": Metric(label="prompts judged on both sides", unit="prompts"),
    "length_controlled_win_rate": Metric(
        label="length-controlled win rate", unit="share of prompts", better="higher"
    ),
    "training_win_rate": Metric(label="win rate by the training judge", unit="share of prompts"),
    "win_rate_gap": Metric(
        label="training judge's win rate less this one's", unit="share of prompts", better="lower"
    ),
    "reward": Metric(label="reward (training judge)", unit="judge's score", better="higher"),
    "reward_gain": Metric(
        label="reward gained (training judge)", unit="judge's score", better="higher"
    ),
    "judge_reward": Metric(
        label="reward (evaluation judge)", unit="judge's score", better="higher"
    ),
    "judge_reward_gain": Metric(
        label="reward gained (evaluation judge)", unit="judge's score", better="higher"
    ),
    "kl_to_initial": Metric(label="KL to the initial policy", unit="nats per answer"),
    "kl_to_initial_error": Metric(label="standard error of that KL", unit="nats per answer"),
    "kl_to_initial_per_token": Metric(
        label="KL to the initial policy per token", unit="nats per token"
    ),
    "chosen_logp_change": Metric(
        label="log-probability gained by chosen answers", unit="nats per answer", better="higher"
    ),
    "rejected_logp_change": Metric(
        label="log-probability gained by rejected answers", unit="nats per answer"
    ),
    "displaced_pairs": Metric(
        label="pairs whose chosen answer lost probability", unit="share of pairs", better="lower"
    ),
    "length": Metric(label="length", unit="tokens"),
    "length_p10": Metric(label="length, 10 % are shorter", unit="tokens"),
    "length_p50": Metric(label="length, half are shorter", unit="tokens"),
    "length_p90": Metric(label="length, 90 % are shorter", unit="tokens"),
    "length_growth": Metric(label="growth of the mean length", unit="share of the length before"),
    "truncated": Metric(
        label="cut off at token limit", unit="share of completions", better="lower"
    ),
    "refusals": Metric(label="answers that decline", unit="share of completions", better="lower"),
    "not_answered": Metric(
        label="empty or refused before sampling", unit="share of completions", better="lower"
    ),
    "distinct_1": Metric(label="distinct words", unit="share of words"),
    "distinct_2": Metric(label="distinct pairs of words", unit="share of bigrams"),
    "distinct_3": Metric(label="distinct triples of words", unit="share of trigrams"),
    "self_bleu": Metric(label="self-BLEU", unit="BLEU-4, 0 to 1", better="lower"),
    "invalid_rate": Metric(
        label="answers that the judge gave no verdict on",
        unit="share of completions",
        better="lower",
    ),
    "judge_agreement": Metric(
        label="training and evaluation judge agree", unit="share of pairs", better="higher"
    ),
    "judge_kappa": Metric(
        label="the same beyond chance (Cohen's kappa)", unit="kappa, -1 to 1", better="higher"
    ),
    "position_consistency": Metric(
        label="both orders name the same answer", unit="share of comparisons", better="higher"
    ),
    "first_place_wins": Metric(label="the first place wins", unit="share of answers"),
    "training_calibration_error": Metric(
        label="calibration error of the training judge", unit="probability", better="lower"
    ),
    "judge_calibration_error": Metric(
        label="calibration error of the evaluation judge", unit="probability", better="lower"
    ),
    "same_judge": Metric(
        label="evaluated by the judge that labelled", unit="1: yes, 0: no", better="lower"
    ),
    "contaminated_prompts": Metric(
        label="held-out prompts left out as known from training", unit="prompts", better="lower"
    ),
    "similar_prompts": Metric(
        label="held-out prompts that resemble a training prompt", unit="prompts", better="lower"
    ),
    "people_prompts": Metric(label="prompts that people labelled or answered", unit="prompts"),
    "people_share": Metric(label="trained on by people's labels", unit="share of rows"),
    "own_share": Metric(
        label="trained on and sampled by the policy itself", unit="share of answers"
    ),
    "mean_lag": Metric(label="mean age of its own samples", unit="optimiser steps", better="lower"),
    "trained_rows": Metric(label="rows trained on", unit="rows"),
    "renewed_share": Metric(
        label="trained on by labels of this iteration's judge", unit="share of rows"
    ),
    "tokens_sampled": Metric(label="tokens sampled for training", unit="tokens"),
    "verdicts": Metric(label="verdicts asked for in training", unit="verdicts"),
    "api_answers": Metric(label="answers and verdicts needed of an API", unit="answers"),
    "api_calls": Metric(label="calls of that API", unit="calls"),
    "api_usd": Metric(label="paid for them", unit="usd"),
    "models_in_memory": Metric(label="models in memory while training", unit="models"),
    "model_bytes": Metric(label="their weights", unit="bytes"),
    "exact_answers": Metric(
        label="exact-answer tasks solved", unit="share of tasks", better="higher"
    ),
    "exact_answers_change": Metric(
        label="exact-answer tasks gained", unit="share of tasks", better="higher"
    ),
    "turn_1_win_rate": Metric(
        label="win rate, first turn of two", unit="share of tasks", better="higher"
    ),
    "turn_1_reward": Metric(
        label="reward, first turn of two (evaluation judge)", unit="judge's score", better="higher"
    ),
    "turn_1_reward_gain": Metric(
        label="reward gained, first turn of two", unit="judge's score", better="higher"
    ),
    "turn_2_win_rate": Metric(
        label="win rate, second turn of two", unit="share of tasks", better="higher"
    ),
    "turn_2_reward": Metric(
        label="reward, second turn of two (evaluation judge)", unit="judge's score", better="higher"
    ),
    "turn_2_reward_gain": Metric(
        label="reward gained, second turn of two", unit="judge's score", better="higher"
    ),
}

AS_A_JUDGE = {
    "pairwise_agreement": Metric(
        label="as a judge: agrees with people", unit="share of decided pairs", better="higher"
    ),
    "agreement_change": Metric(
        label="as a judge: agrees more than an iteration before",
        unit="share of decided pairs",
        better="higher",
    ),
    "decided": Metric(label="as a judge: orders the two", unit="share of pairs"),
    "unread": Metric(
        label="as a judge: says what cannot be read", unit="share of pairs", better="lower"
    ),
    "exact_match": Metric(
        label="as a judge: whole orders that are people's", unit="share of prompts", better="higher"
    ),
    "spearman": Metric(
        label="as a judge: Spearman's correlation with people", unit="correlation", better="higher"
    ),
    "kendall": Metric(
        label="as a judge: Kendall's correlation with people", unit="correlation", better="higher"
    ),
    "five_best": Metric(
        label="as a judge: highest scores that went to the best",
        unit="share of answers with the highest score",
        better="higher",
    ),
}
"""Of a policy that judges (tasks/evaluation/judge_quality.py)."""
_KNOWN = METRICS | AS_A_JUDGE


def metric_of(name: str) -> Metric:
    """What the figure of that name is, whichever side or baseline it is about. One that is not
    listed is shown under its own name.
    """
    base = base_name(name)
    return _KNOWN.get(base) or Metric(label=base.replace("_", " "), unit="")


def label_of(name: str) -> str:
    """A figure's name as words, with the baseline it is against."""
    own, _, baseline = name.partition(_VERSUS)
    known = _KNOWN.get(base_name(name))
    label = known.label if known else own.replace("_", " ").replace("/", ": ")
    return f"{label}, against {baseline}" if baseline else label


def base_name(name: str) -> str:
    """The name without its side and without its baseline."""
    return name.partition(_VERSUS)[0].removesuffix("_before").removesuffix("_after")


def versus(name: str, baseline: str) -> str:
    """The name of a figure against that baseline."""
    return f"{name}{_VERSUS}{baseline}"


def figure_of_row(row: MetricRow, name: str | None = None) -> Figure:
    """The figure that a row of the lake holds, or the same under another name."""
    return Figure(
        name=name or row["name"],
        value=row["value"],
        low=row["low"],
        high=row["high"],
        note=row["note"],
    )


def rows_of(
    figures: Iterable[Figure], subject: str, row_id: Callable[[int], str], first: int = 0
) -> Iterator[dict[str, Any]]:
    """The figures as rows of `metrics` about `subject`."""
    for number, one in enumerate(figures, start=first):
        row = {
            "id": row_id(number),
            "subject": subject,
            "name": one.name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
        }
        yield row | {"unit": metric_of(one.name).unit, "note": one.note}


def share(name: str, count: int, trials: int, why_none: str) -> Figure:
    """A count as a share with Wilson's interval; without trials no value, and `why_none`."""
    if not trials:
        return Figure(name=name, value=None, note=why_none)
    low, high = wilson(count, trials)
    return Figure(name=name, value=count / trials, low=low, high=high)


def mean(
    name: str, values: Mapping[str, float], seed: int, why_none: str, bounded: bool = False
) -> Figure:
    """The mean of a value for each prompt, with its bootstrap interval; without values no value,
    and `why_none`.

    Of one value there is no interval. The order of the values does not matter. bounded: they are
    between 0 and 1.
    """
    return _estimated(bootstrap_share if bounded else bootstrap_mean, name, values, seed, why_none)


def _estimated(
    interval: Callable[[list[float], int], tuple[float, float, float]],
    name: str,
    values: Mapping[str, float],
    seed: int,
    why_none: str,
) -> Figure:
    if not values:
        return Figure(name=name, value=None, note=why_none)
    value, low, high = interval(_in_order(values), seed)
    if math.isinf(low):
        return Figure(name=name, value=value, note=ONE_PROMPT)
    note = (
        ONE_PROMPT
        if len(values) == 1
        else f"the same on all {len(values):,} prompts"
        if len(set(values.values())) == 1
        else None
    )
    return Figure(
        name=name,
        value=value,
        low=low,
        high=high,
        note=f"{note}, so the interval sees no spread" if low == high else note,
    )


def growth(
    name: str, before: Mapping[str, float], after: Mapping[str, float], seed: int, why_none: str
) -> Figure:
    """By what share the mean over the prompts that both have has grown, with its bootstrap interval
    over these prompts.
    """
    both = sorted(before.keys() & after.keys())
    old, new = (np.array([side[prompt] for prompt in both]) for side in (before, after))
    if not both or not old.sum():
        return Figure(name=name, value=None, note=why_none)
    ratio = float(new.sum() / old.sum())
    if len(both) == 1:
        return Figure(name=name, value=ratio - 1, note=ONE_PROMPT)
    counts = np.concatenate(list(resamples(len(both), _SAMPLES, seed)))
    lengths = counts @ old
    drawn = (counts @ new)[lengths > 0] / lengths[lengths > 0]
    low, high = percentile_interval(drawn, len(both), new - ratio * old)
    return Figure(name=name, value=ratio - 1, low=low - 1, high=high - 1)


def paired(
    name: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    seed: int,
    why_none: str,
    bounded: bool = False,
) -> Figure:
    """By how much `after` is above `before`, mean over the prompts that both have: what prompts
    have in common drops out.

    bounded: both are between 0 and 1, and no difference on so few prompts is not taken for
    certainty.
    """
    gained = {prompt: after[prompt] - before[prompt] for prompt in before.keys() & after.keys()}
    return _estimated(
        bootstrap_difference if bounded else bootstrap_mean, name, gained, seed, why_none
    )


def _in_order(values: Mapping[str, float]) -> list[float]:
    return [values[prompt] for prompt in sorted(values)]
