"""Intervals and calibration against worked numbers."""

import pytest

from tasks.statistics import bootstrap_mean, calibration_error, wilson


def test_wilson_by_hand() -> None:
    # share 0.8 of 10, z^2 = 3.8415: centre (0.8 + 0.19207) / 1.38415, half 1.95996 / 1.38415 * sqrt(0.016 + 0.0096036)
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_the_mean_of_nothing_is_not_a_number() -> None:
    assert bootstrap_mean([0.5] * 20, seed=0) == (0.5, 0.5, 0.5)
    for function in (lambda: bootstrap_mean([], seed=0), lambda: calibration_error([])):
        with pytest.raises(ValueError, match="nothing"):
            function()


def test_confidence_that_is_kept_has_no_error() -> None:
    assert calibration_error([0.8] * 80 + [0.2] * 20) == pytest.approx(0.0)  # 0.8 sure, 80 of 100 right
    assert calibration_error([0.99] * 50 + [0.01] * 50) == pytest.approx(0.49)  # 0.99 sure, half right
    assert calibration_error([1.0, 1.0]) == 0.0
