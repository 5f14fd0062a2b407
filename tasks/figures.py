"""A figure with its 95 % interval: how it comes of values by prompt, and becomes a row of
`metrics`.

    mean("win_rate", {"prompt 1": 1.0, "prompt 2": 0.5}, seed=0, why_none="nothing was judged")
What a name means stands in `dapflow.tasks.metrics`. Imports neither torch nor prefect. Test: pytest
tests/tasks/evaluation/test_contests.py tests/tasks/evaluation/test_texts.py
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dapflow.storage.rows import MetricRow
from dapflow.tasks.metrics import metric_of
from dapflow.tasks.statistics import (
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_share,
    percentile_interval,
    resamples,
    wilson,
)

_SAMPLES = 2000
ONE_PROMPT = "one prompt says nothing about others"


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
