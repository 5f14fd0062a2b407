"""How good a reward model is on pairs that it has not learned from, as metrics of its version.

Test: pytest tests/tasks/training/reward/test_calibrated.py
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy.special import expit

from dapflow.tasks.calibration import slope_interval, slope_of
from dapflow.tasks.statistics import calibration_error, wilson

_LEAST = 1e-6  # probabilities are kept this far from 0 and 1, so that their logit is finite


def figures_of_test(
    differences: Sequence[float], pairs: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Accuracy, beside that of preferring the longer answer, and how honest the probabilities are.

    differences: of the scores of chosen and rejected, of each pair of the test.
    """
    right = sum(difference > 0 for difference in differences)
    longer = sum(len(pair["chosen"]) > len(pair["rejected"]) for pair in pairs)
    yield share_of_pairs("held_out_accuracy", right, len(pairs))
    yield share_of_pairs("longer_is_better_accuracy", longer, len(pairs))
    yield {
        "name": "calibration_error",
        "value": calibration_error(expit(differences).tolist()),
        "unit": "probability",
    }
    if len(differences) > 1:
        low, high = slope_interval(differences, seed=0)
        yield {
            "name": "calibration_slope",
            "value": slope_of(differences),
            "low": low,
            "high": high,
            "unit": "log-odds per unit of score",
        }


def share_of_pairs(name: str, count: int, trials: int) -> dict[str, Any]:
    """A share as a metric, with its 95 % interval."""
    low, high = wilson(count, trials)
    return {
        "name": name,
        "value": count / trials,
        "low": low,
        "high": high,
        "unit": "share of pairs",
    }


def log_odds(probability: float) -> float:
    """Finite also of 0 and 1."""
    kept = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(kept / (1 - kept))
