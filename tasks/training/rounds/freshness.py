"""How old samples are when a policy learns from them, in optimiser steps since the weights that
sampled them.

Test: pytest tests/tasks/training/rounds/test_freshness.py
"""

import json
from collections.abc import Sequence
from typing import Any

from dapflow.storage import Lake, ModelRef, UserError


def sample_ages(lake: Lake, policy: ModelRef, samplers: Sequence[str | None]) -> list[int | None]:
    """How many optimiser steps lie between `policy` and the weights that sampled each answer; None
    where it is not the policy's own.

    samplers: model version that sampled each answer, None for an answer from outside. A sample is a
    policy's own when the policy, or one that it was trained from, has sampled it; or one that was
    trained from it, where a method begins again from earlier weights.
    """
    ages = _ages(lake, policy.version)
    for sampler in {version for version in samplers if version is not None and version not in ages}:
        if (age := _ages(lake, sampler).get(policy.version)) is not None:
            ages[sampler] = age
    return [None if sampler is None else ages.get(sampler) for sampler in samplers]


def oldest(lake: Lake, policy: ModelRef, samplers: Sequence[str | None], steps: int) -> int | None:
    """The lag of the last of `steps` optimiser steps from `policy` on, for the oldest sample; None
    where some sample is not its own.
    """
    return largest_lag(sample_ages(lake, policy, samplers), steps)


def largest_lag(ages: Sequence[int | None], steps: int) -> int | None:
    """The same of known ages."""
    own = [age for age in ages if age is not None]
    return None if len(own) < len(ages) else max(own, default=0) + steps - 1


def age_figures(ages: Sequence[int | None], steps: int) -> list[dict[str, Any]]:
    """How on-policy a training was, as metrics: the share of answers that the policy being trained
    has sampled; of those, the mean lag over all steps; and the largest lag, where all are its own.
    """
    own = [age for age in ages if age is not None]
    share = len(own) / len(ages) if ages else None
    return _figures(
        share, sum(own) / len(own) + (steps - 1) / 2 if own else None, largest_lag(ages, steps)
    )


def lag_figures(lags: Sequence[int]) -> list[dict[str, Any]]:
    """The same of rounds, whose samples are all the policy's own. lags: of each optimiser step that
    was taken, how many there had been since its samples were drawn."""
    return _figures(1.0, sum(lags) / len(lags), max(lags))


def _figures(share: float | None, mean: float | None, most: int | None) -> list[dict[str, Any]]:
    figures = [
        ("own_share", share, "share of answers"),
        ("mean_lag", mean, "optimiser steps"),
        ("max_lag", most, "optimiser steps"),
    ]
    return [
        {"name": name, "value": value, "unit": unit}
        for name, value, unit in figures
        if value is not None
    ]


def require_fresh(lag: int | None, max_lag: int | None) -> None:
    """Raise UserError when samples would be older than the recipe allows."""
    if max_lag is None or (lag is not None and lag <= max_lag):
        return
    reason = (
        "some answers were not sampled by this policy"
        if lag is None
        else f"the oldest would be {lag} old"
    )
    raise UserError(
        f"training.max_lag={max_lag} allows samples that are {max_lag} optimiser steps old, "
        f"but {reason}: sample fewer prompts an iteration, take larger batches, or allow more."
    )


def _ages(lake: Lake, version: str) -> dict[str, int]:
    """Optimiser steps between each ancestor of a policy and the policy."""
    ages: dict[str, int] = {}
    age, current = 0, version
    while current is not None and current not in ages:
        ages[current] = age
        [row] = lake.rows("SELECT parent, recipe FROM models WHERE version = ?", [current]) or [
            {"parent": None, "recipe": None}
        ]
        age += _steps(row)
        current = row["parent"]
    return ages


def _steps(row: dict[str, Any]) -> int:
    return json.loads(row["recipe"]).get("steps", 0) if row["recipe"] else 0
