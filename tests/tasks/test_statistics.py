"""Intervals and calibration against worked numbers."""

import numpy as np
import pytest
from scipy.special import stdtrit

from dapflow.tasks.statistics import (
    bootstrap_mean,
    bootstrap_share,
    calibration_error,
    grid_share,
    half_width,
    paired_difference,
    prompts_for,
    prompts_to_tell,
    wilson,
)


def test_wilson_by_hand() -> None:
    # share 0.8 of 10, z^2 = 3.8415: centre (0.8 + 0.19207) / 1.38415, half 1.95996 / 1.38415 *
    # sqrt(0.016 + 0.0096036)
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_the_mean_of_nothing_is_not_a_number() -> None:
    assert bootstrap_mean([0.5] * 20, seed=0) == (0.5, 0.5, 0.5)
    for function in (lambda: bootstrap_mean([], seed=0), lambda: calibration_error([])):
        with pytest.raises(ValueError, match="nothing"):
            function()


def test_confidence_that_is_kept_has_no_error() -> None:
    assert calibration_error([0.8] * 80 + [0.2] * 20) == pytest.approx(
        0.0
    )  # 0.8 sure, 80 of 100 right
    assert calibration_error([0.99] * 50 + [0.01] * 50) == pytest.approx(
        0.49
    )  # 0.99 sure, half right
    assert calibration_error([1.0, 1.0]) == 0.0


def test_how_sure_805_prompts_make_us() -> None:
    # 1.96 * 0.5 / sqrt(805) = 0.0345; to halve it takes four times as many
    assert half_width(805) == pytest.approx(0.03454, abs=1e-5)
    assert prompts_for(0.03454) == pytest.approx(805, abs=1)
    assert prompts_for(0.01727) == pytest.approx(4 * 805, abs=4)
    assert prompts_to_tell(0.05, 0.5) == prompts_for(0.05)
    assert (
        prompts_to_tell(0.5, 0.0) == 6
    )  # all won: five of five happen to a coin once in sixteen times, six of six once in 32


@pytest.mark.parametrize(
    ("prompts", "most"), [(20, 0.99), (100, 0.97)]
)  # of 20 wins and losses there are 21 rates
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("rate", [0.5, 0.65, 0.85])
def test_the_interval_of_a_win_rate_covers_in_93_to_97_of_100_cases(
    whole: bool, rate: float, prompts: int, most: float
) -> None:
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(1000):
        wins = (
            (rng.random(prompts) < rate).astype(float)
            if whole
            else rng.beta(rate, 1 - rate, prompts)
        )
        _, low, high = bootstrap_share(wins.tolist(), seed=trial, count=500)
        covered.append(low <= rate <= high)
    assert 0.93 <= np.mean(covered) <= most  # 1000 trials are within 1.4 points


@pytest.mark.parametrize("prompts", [2, 3, 5, 7])
@pytest.mark.parametrize(("a", "b"), [(2.0, 2.0), (8.0, 2.0), (0.8, 0.2)])
def test_the_interval_of_a_handful_of_probabilities_is_not_too_sure(
    prompts: int, a: float, b: float
) -> None:
    rng = np.random.default_rng(0)
    held = list[bool]()
    for trial in range(300):
        _, low, high = bootstrap_share(rng.beta(a, b, prompts).tolist(), seed=trial, count=300)
        held.append(low <= a / (a + b) <= high)
    assert (
        np.mean(held) >= 0.92
    )  # two prompts held it in 48 of 100 cases when the bootstrap alone was asked


def test_the_interval_of_a_mean_of_two_is_as_wide_as_student_s() -> None:
    # 0 and 1: standard error 0.5, and t of one degree of freedom is 12.706
    assert bootstrap_mean([0.0, 1.0], seed=0)[1:] == pytest.approx(
        (0.5 - 6.353, 0.5 + 6.353), rel=0.1
    )


def test_all_won_is_not_certainty() -> None:
    for prompts in (
        2,
        5,
        40,
    ):  # who wins with probability p wins all with p^n: 0.025 at the lower end
        assert bootstrap_share([1.0] * prompts, seed=0) == pytest.approx(
            (1.0, 0.025 ** (1 / prompts), 1.0)
        )
    assert (
        bootstrap_share([1.0] * 5, seed=0)[1] < 0.5
    )  # one in sixteen times, five tosses of a coin are the same
    assert (
        bootstrap_share([0.7], seed=0) == bootstrap_share([0.7], seed=1) == (0.7, 0.0, 1.0)
    )  # one prompt says nothing about others


@pytest.mark.parametrize("prompts", [3, 5, 10, 30])
@pytest.mark.parametrize("rate", [0.5, 0.65, 0.85, 0.95])
def test_a_judge_that_is_nearly_certain_is_no_surer_than_one_that_is(
    prompts: int, rate: float
) -> None:
    rng = np.random.default_rng(0)
    held = list[bool]()
    for trial in range(400):
        _, low, high = bootstrap_share(
            np.where(rng.random(prompts) < rate, 0.9999, 0.0001).tolist(), seed=trial, count=300
        )
        held.append(low <= rate <= high)
    assert (
        np.mean(held) >= 0.915
    )  # 400 trials are within 2.1 points; by the spread alone, of five prompts 88 in 100


def test_the_interval_over_prompts_and_seeds_by_hand() -> None:
    # mean squares: prompts 2 * 2 * 0.2^2 = 0.16, seeds 2 * 2 * 0.1^2 = 0.04, the rest 0; variance
    # 0.2 / 4, as of 0.25 / 0.05 = 5 wins and losses; 0.2^2 / (0.16^2 + 0.04^2) = 1.47 degrees of
    # freedom; at one half Wilson's is t / sqrt(n + t^2) / 2 to either side
    t = float(stdtrit(0.04 / 0.0272, 0.975))
    half = t / (5 + t**2) ** 0.5 / 2
    assert grid_share([[0.2, 0.4], [0.6, 0.8]]) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_other_seeds_make_an_interval_wider_than_other_prompts_alone() -> None:
    rng = np.random.default_rng(0)
    wins = (rng.random((200, 4)) < 0.5 + np.array([-0.2, -0.1, 0.1, 0.2])).astype(
        float
    )  # the seeds differ
    mean, low, high = grid_share(wins)
    _, alone_low, alone_high = bootstrap_mean(wins.mean(axis=1).tolist(), seed=0)
    assert mean == pytest.approx(wins.mean())
    assert high - low > 1.5 * (alone_high - alone_low)
    wins[0, 0] = np.nan  # not judged
    assert grid_share(wins)[0] == pytest.approx(np.nanmean(wins))
    with pytest.raises(ValueError, match="nothing to average"):
        grid_share([[np.nan]])


@pytest.mark.parametrize("apart", [0.0, 0.05])
@pytest.mark.parametrize("prompts", [30, 100])
def test_the_interval_over_prompts_and_seeds_covers(prompts: int, apart: float) -> None:
    rng, held = np.random.default_rng(0), list[bool]()
    for _ in range(600):
        chances = rng.beta(3, 3, (prompts, 1)) + rng.normal(0, apart, (1, 3))
        _, low, high = grid_share((rng.random((prompts, 3)) < chances).astype(float))
        held.append(low <= 0.5 <= high)
    assert (
        0.92 <= np.mean(held) <= 0.98
    )  # 600 trials are within 1.7 points; drawing both again held it in 90 to 99


def test_what_prompts_have_in_common_drops_out_of_a_paired_difference() -> None:
    rng = np.random.default_rng(0)
    a = {f"p{n}": float(easy) for n, easy in enumerate(rng.random(200))}
    b = {prompt: value + 0.05 + 0.01 * rng.standard_normal() for prompt, value in a.items()} | {
        "only here": 0.0
    }
    mean, low, high = paired_difference(a, b, seed=0)
    # prompts that spread by 0.01, and 1 - 0.025^(1/200) = 1.8 % that may be of another kind: these
    # may be as far off as -1 and 1
    assert (mean, low, high) == (
        pytest.approx(0.05, abs=0.002),
        pytest.approx(0.05, abs=0.021),
        pytest.approx(0.05, abs=0.021),
    )


def test_two_prompts_that_flipped_alike_are_not_a_difference() -> None:
    mean, low, high = paired_difference({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}, seed=0)
    assert (mean, low, high) == pytest.approx((1.0, 2 * 0.025**0.5 - 1, 1.0))  # below 0
