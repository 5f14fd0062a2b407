"""How honest a reward model's probabilities are: of each pair that tests it, how sure it was of the
answer that people prefer.

    rows_about(pairs, probabilities)   ->  rows of `metrics`, a pair each, that the training of a
                                           reward model leaves behind
    reliability_of(lake, version)      ->  how often it is right, by how sure it is
    slope_of(differences)              ->  what differences of scores have to be multiplied with to
                                           be log-odds
Imports neither torch nor prefect. Test: pytest tests/tasks/test_calibration.py
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from dapflow.storage import Lake
from dapflow.tasks.statistics import (
    Confidence,
    Floats,
    percentile_interval,
    reliability,
    resamples,
)

_NAME = "probability_of_chosen"
_STEPS, _EXACT = 100, 1e-10


def rows_about(
    pairs: Sequence[Mapping[str, Any]], probabilities: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """pairs: of the lake; probabilities: of each one's chosen answer. The rows' subject is the
    pair.
    """
    for pair, probability in zip(pairs, probabilities, strict=True):
        yield {"subject": pair["id"], "name": _NAME, "value": probability, "unit": "probability"}


def reliability_of(lake: Lake, version: str) -> list[Confidence]:
    """Of a model of the lake; empty where nothing of the kind was written down."""
    rows = lake.rows("SELECT value FROM metrics WHERE version = ? AND name = ?", [version, _NAME])
    return reliability([row["value"] for row in rows])


def slope_of(differences: ArrayLike, certain: ArrayLike = 1.0) -> float:
    """s of P(the first is better) = sigma(s d): 1 where differences of scores are log-odds, less
    where they promise too much, 0 where they all are 0.

    differences: d, of the first answer's score and the second's, [pairs]; certain: the probability
    that the first is better, [pairs] or the same for all. Without an intercept, so that swapping
    the answers of a pair changes nothing; by Firth's likelihood (Biometrika 80, 1993), which is
    finite also where every pair is right and takes out the bias of few.
    """
    values = np.asarray(differences, dtype=np.float64)
    return float(_slopes(values, np.asarray(certain), np.ones((1, len(values))))[0])


def slope_interval(differences: ArrayLike, seed: int, count: int = 2000) -> tuple[float, float]:
    """The 95 % interval of the slope on two pairs or more whose first answer is the better one,
    from bootstrap samples of the pairs.
    """
    values = np.asarray(differences, dtype=np.float64)
    certain = np.ones(1)
    slopes = np.concatenate(
        [_slopes(values, certain, block) for block in resamples(len(values), count, seed)]
    )
    influence = values * (1 - expit(slope_of(values) * values))
    return percentile_interval(slopes, len(values), influence)


def _slopes(differences: Floats, certain: Floats, times: Floats) -> Floats:
    """The slope of each sample of the pairs. times: how often it has each, [samples, pairs]."""
    unit = float(np.sqrt((differences**2).mean()))
    if unit == 0:
        return np.zeros(len(times))
    d = differences / unit
    slopes = np.zeros(len(times))
    for _ in range(_STEPS):
        p = expit(slopes[:, None] * d)
        weight = times * d**2 * p * (1 - p)
        information = np.maximum(weight.sum(axis=1), 1e-12)
        gradient = (times * d * (certain - p)).sum(axis=1)
        firth = (weight * d * (0.5 - p)).sum(axis=1) / information
        change = np.clip((gradient + firth) / information, -1.0, 1.0)
        slopes = slopes + change
        if np.abs(change).max() < _EXACT:
            break
    return slopes / unit
