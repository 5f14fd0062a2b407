"""Intervals: how sure a share or a mean is. Test: pytest tests/tasks/test_statistics.py"""

import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054  # two-sided 95 %


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_mean(values: Sequence[float], seed: int, resamples: int = 10_000) -> tuple[float, float, float]:
    """The mean and its 95 % percentile interval, resampling the values (one per prompt) with replacement.

    Raises ValueError without values: a mean of nothing is not a number, and must not become one.
    """
    if not values:
        raise ValueError("there is nothing to average: no prompt was judged")
    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = data[rng.integers(0, len(data), size=(resamples, len(data)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(data.mean()), float(low), float(high)


def calibration_error(probabilities: Sequence[float], bins: int = 10) -> float:
    """How far, on average, a judge's confidence in the answer it prefers lies from how often it is right (ECE, arXiv 1706.04599, eq. 3).

    probabilities: of the answer that is truly better. Raises ValueError without any.
    """
    if not probabilities:
        raise ValueError("there is nothing to calibrate: no pair was judged")
    data = np.asarray(probabilities, dtype=np.float64)
    confidence, right = np.maximum(data, 1 - data), data > 0.5
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    shares = [abs(confidence[place == one].mean() - right[place == one].mean()) * (place == one).mean() for one in set(place.tolist())]
    return float(sum(shares))
