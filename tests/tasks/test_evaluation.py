"""Win rates: identity, symmetry, ties as half, and no judgement is no win."""

from typing import Any

import pytest

from tasks.evaluation import compared_wins, prompt_wins
from tasks.statistics import bootstrap_mean, wilson


def verdicts(*scores: float | None) -> list[dict[str, Any]]:
    return [{"prompt_id": f"p{n}", "outcome": "invalid" if s is None else "scored", "score": s} for n, s in enumerate(scores)]


def test_a_policy_against_itself_wins_half() -> None:
    same = verdicts(1.0, -2.0, 0.5)
    assert prompt_wins(same, same) == {"p0": 0.5, "p1": 0.5, "p2": 0.5}


def test_swapping_the_sides_mirrors_the_win_rate() -> None:
    a, b = verdicts(1.0, 2.0, 3.0), verdicts(2.0, 1.0, 3.0)
    assert prompt_wins(a, b) == {"p0": 1.0, "p1": 0.0, "p2": 0.5}
    assert {prompt: 1 - win for prompt, win in prompt_wins(a, b).items()} == prompt_wins(b, a)


def test_a_prompt_that_one_side_was_not_judged_on_does_not_count() -> None:
    assert prompt_wins(verdicts(1.0, None, 1.0), verdicts(2.0, 5.0, None)) == {"p0": 1.0}


def test_compared_policies_win_a_tie_by_half_and_what_is_no_judgement_does_not_count() -> None:
    outcomes = ["win", "lose", "tie", "invalid", "over_budget"]
    assert compared_wins([{"prompt_id": one, "outcome": one} for one in outcomes]) == {"win": 1.0, "lose": 0.0, "tie": 0.5}


def test_several_samples_of_a_prompt_are_averaged() -> None:
    before = [{"prompt_id": "p", "outcome": "scored", "score": 1.0}]
    after = [{"prompt_id": "p", "outcome": "scored", "score": s} for s in (0.0, 2.0, 2.0, 2.0)]
    assert prompt_wins(before, after) == {"p": 0.75}


def test_a_bootstrap_interval_holds_its_mean_and_repeats() -> None:
    values = [1.0] * 30 + [0.0] * 20
    mean, low, high = bootstrap_mean(values, seed=1)
    assert mean == 0.6
    assert (low, high) == (pytest.approx(0.46, abs=0.03), pytest.approx(0.74, abs=0.03))  # 0.6 -+ 1.96 sqrt(.24 / 50)
    assert bootstrap_mean(values, seed=1) == (mean, low, high)


def test_the_mean_of_nothing_is_an_error_not_a_number() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        bootstrap_mean([], seed=0)


def test_wilson_intervals() -> None:
    assert wilson(8, 10) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == pytest.approx(1.0)
