"""Win rates: identity, symmetry, order, ties as half, planted effects, intervals that cover, and no
judgement is no win.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dapflow.tasks.evaluation.contests import (
    Decision,
    between_judges,
    by_comparison,
    by_scores,
    prompt_wins,
    why_undecided,
    win_rates_of,
)
from dapflow.tasks.figures import Figure, mean, paired

Scores = list[list[float | None]]


def verdicts(side: str, scores: Scores) -> list[dict[str, Any]]:
    """scores: of each prompt those of its samples; None for no verdict."""
    return [
        {
            "prompt_id": f"p{n:03}",
            "completion_id": f"{side}{n:03}-{k}",
            "outcome": "invalid" if s is None else "scored",
            "score": s,
            "note": None,
        }
        for n, of_prompt in enumerate(scores)
        for k, s in enumerate(of_prompt)
    ]


def rates(old: Scores, new: Scores) -> dict[str, Figure]:
    judged = verdicts("old", old), verdicts("new", new)
    decisions = by_scores(*judged)
    texts = {
        one: "x" * (len(one) % 7)
        for decision in decisions
        for one in (decision.new_id, decision.old_id)
    }
    why = why_undecided([], [*judged[0], *judged[1]])
    return {figure.name: figure for figure in win_rates_of(decisions, texts, seed=0, why_none=why)}


def wins(old: Scores, new: Scores) -> dict[str, float]:
    return prompt_wins(by_scores(verdicts("old", old), verdicts("new", new)))


some_scores = st.lists(
    st.lists(st.one_of(st.none(), st.integers(-3, 3).map(float)), min_size=1, max_size=3),
    min_size=1,
    max_size=12,
)


def test_a_tie_is_half_a_win_and_what_was_not_judged_on_both_sides_does_not_count() -> None:
    assert wins([[1.0], [2.0], [3.0], [1.0], [None]], [[2.0], [1.0], [3.0], [None], [5.0]]) == {
        "p000": 1.0,
        "p001": 0.0,
        "p002": 0.5,
    }


def test_several_samples_of_a_prompt_are_averaged() -> None:
    assert wins([[1.0]], [[0.0, 2.0, 2.0, 2.0]]) == {"p000": 0.75}


def test_comparisons_win_a_tie_by_half_and_what_is_no_judgement_does_not_count() -> None:
    rows = [
        {"prompt_id": one, "completion_id": "a", "other_id": "b", "outcome": one}
        for one in ("win", "lose", "tie", "invalid", "over_budget")
    ]
    assert prompt_wins(by_comparison(rows)) == {"win": 1.0, "lose": 0.0, "tie": 0.5}


@given(some_scores)
@settings(max_examples=40, deadline=None)
def test_a_policy_against_itself_wins_half(scores: Scores) -> None:
    same = wins(scores, scores)
    assert all(value == pytest.approx(0.5) for value in same.values())
    assert same.keys() == {
        f"p{n:03}"
        for n, of_prompt in enumerate(scores)
        if any(score is not None for score in of_prompt)
    }


@given(some_scores, some_scores)
@settings(max_examples=40, deadline=None)
def test_swapping_the_sides_mirrors_the_win_rate_and_its_interval(a: Scores, b: Scores) -> None:
    there, back = rates(a, b)["win_rate"], rates(b, a)["win_rate"]
    if there.value is None:
        assert back.value is None and "no held-out prompt was judged on both sides" in str(
            there.note
        )
        return
    assert (there.low is None) == (back.low is None)
    assert there.value == pytest.approx(1 - back.value)
    assert (there.low, there.high) == (
        pytest.approx(1 - back.high, abs=1e-6),
        pytest.approx(1 - back.low, abs=1e-6),
    )


@given(some_scores, st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_verdicts_does_not_matter(scores: Scores, random: Any) -> None:
    old, new = verdicts("old", scores), verdicts("new", [[0.0, 1.0] for _ in scores])
    decisions = by_scores(old, new)
    texts = {one: one for decision in decisions for one in (decision.new_id, decision.old_id)}
    told = list(win_rates_of(decisions, texts, seed=0, why_none="none"))
    random.shuffle(old)
    random.shuffle(new)
    assert list(win_rates_of(by_scores(old, new), texts, seed=0, why_none="none")) == told


def test_a_larger_planted_effect_gives_a_higher_rate() -> None:
    rng = np.random.default_rng(0)
    old = rng.standard_normal((300, 1)).tolist()
    noise = rng.standard_normal((300, 1))
    found = [rates(old, (noise + effect).tolist())["win_rate"] for effect in (-1.0, 0.0, 1.0, 2.0)]
    assert all(a.value < b.value and a.low < b.low and a.high < b.high for a, b in pairwise(found))  # type: ignore[operator]


@pytest.mark.parametrize("samples", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_interval_covers_in_93_to_97_of_100_cases_whatever_the_number_of_samples(
    samples: int,
) -> None:
    rng = np.random.default_rng(1)
    covered = []
    for trial in range(800):
        chance = rng.beta(3, 2, 80)  # how often each prompt's answer wins: 0.6 on average
        won = rng.random((80, samples)) < chance[:, None]
        decisions = [
            Decision(prompt_id=f"p{n}", new_id=f"{n}-{k}", old_id=f"{n}", won=float(won[n, k]))
            for n in range(80)
            for k in range(samples)
        ]
        figure = mean("win_rate", prompt_wins(decisions), trial, "none", bounded=True)
        assert figure.low is not None and figure.high is not None
        covered.append(figure.low <= 0.6 <= figure.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_a_single_prompt_and_all_ties_are_said_in_a_sentence() -> None:
    one = rates([[0.0]], [[0.5]])
    assert (one["win_rate"].low, one["win_rate"].note) == (
        0.0,
        "one prompt says nothing about others",
    )
    assert "too few to tell length from quality" in str(one["length_controlled_win_rate"].note)
    ties = rates([[0.0]] * 40, [[0.0]] * 40)
    assert (ties["win_rate"].value, ties["win_rate"].note) == (0.5, "the same on all 40 prompts")
    all_won = rates([[0.0]] * 40, [[1.0]] * 40)
    assert all_won["win_rate"].low == pytest.approx(0.912, abs=1e-3)  # 0.025^(1/40)
    assert all_won["length_controlled_win_rate"].value is None
    assert "length makes no difference that could be seen" in str(
        all_won["length_controlled_win_rate"].note
    )


def test_few_tasks_of_which_hardly_any_changed_do_not_make_for_certainty() -> None:
    rng = np.random.default_rng(2)
    held = []
    for trial in range(300):
        lost = rng.random(40) < 0.03
        before, after = (
            {f"t{n}": float(not (side and gone)) for n, gone in enumerate(lost)}
            for side in (False, True)
        )
        change = paired("exact_answers_change", before, after, trial, "none", bounded=True)
        assert change.low is not None and change.high is not None
        held.append(change.low <= -0.03 <= change.high)
    assert (
        np.mean(held) >= 0.93
    )  # plain percentiles: 0.71, for nothing changes in three of ten sets of tasks
    assert (
        paired("exact_answers_change", {"t": 0.0}, {"t": 1.0}, 0, "none", bounded=True).low == -1.0
    )


def test_why_nothing_was_decided_names_the_answers_first_and_then_the_commonest_failure() -> None:
    answers = [{"finish_reason": "stop", "text": text} for text in ("", " ", "yes")] + [
        {"finish_reason": "refused", "text": ""}
    ]
    failed = [
        {"outcome": "invalid", "note": note}
        for note in ("empty completion", "empty completion", "no reply", "no reply", "a colon")
    ]
    failed += [{"outcome": "over_budget", "note": None}, {"outcome": "refused", "note": "too long"}]
    none = "no held-out prompt was judged on both sides"
    told = "2 of 4 answers were empty; 1 of 4 answers were refused before sampling; 2 of 7 verdicts: no reply"
    assert why_undecided(answers, failed) == f"{none} ({told})"
    assert why_undecided([], []) == none


def test_the_advice_is_in_the_note() -> None:
    rng = np.random.default_rng(0)
    rate = rates([[0.0]] * 805, [[float(one)] for one in rng.standard_normal(805)])["win_rate"]
    assert str(rate.note).startswith("805 prompts give ±3.") and "would take about" in str(
        rate.note
    )


def test_a_judge_that_loves_length_raises_the_raw_rate_only() -> None:
    rng = np.random.default_rng(0)
    longer = rng.integers(-20, 60, 400)
    texts = {f"new{n}": "x" * (100 + int(more)) for n, more in enumerate(longer)} | {
        "old": "x" * 100
    }
    won = rng.random(400) < 1 / (1 + np.exp(-longer / 10))
    decisions = [
        Decision(prompt_id=f"p{n:03}", new_id=f"new{n}", old_id="old", won=float(won[n]))
        for n in range(400)
    ]
    found = {
        figure.name: figure
        for figure in win_rates_of(decisions, texts, seed=0, why_none="none", baseline="initial")
    }
    raw, controlled = found["win_rate_vs_initial"], found["length_controlled_win_rate_vs_initial"]
    assert raw.low is not None and raw.low > 0.6
    assert (
        controlled.low is not None
        and controlled.high is not None
        and controlled.low < 0.5 < controlled.high
    )


def test_the_gap_between_two_judges_is_what_only_the_training_judge_sees() -> None:
    old, up, level = [[0.0]] * 50, [[1.0]] * 50, [[float((-1) ** n)] for n in range(50)]
    training, independent = (
        by_scores(verdicts("old", old), verdicts("new", up)),
        by_scores(verdicts("old", old), verdicts("new", level)),
    )
    texts = {f"{side}{n:03}-0": "x" for side in ("old", "new") for n in range(50)}
    found = {figure.name: figure for figure in between_judges(training, independent, texts, seed=0)}
    assert (
        found["training_win_rate"].value,
        found["win_rate_gap"].value,
        found["judge_agreement"].value,
    ) == (1.0, 0.5, 0.5)
    gap = found["win_rate_gap"]
    assert gap.low is not None and gap.low > 0.3
    assert found["judge_kappa"].value is None and found["judge_kappa"].note
    same = {figure.name: figure for figure in between_judges(training, training, texts, seed=0)}[
        "win_rate_gap"
    ]
    # 50 prompts would have shown a kind of prompt that is more than 1 - 0.025^(1/50) = 7.1 % of
    # all; on that share one judge may win all
    assert (same.value, same.low, same.high) == pytest.approx((0.0, -0.071, 0.071), abs=1e-3)
    none = {figure.name: figure for figure in between_judges([], independent, texts, seed=0)}
    assert {figure.value for figure in none.values()} == {None}
    assert all("the training judge gave no scores" in str(figure.note) for figure in none.values())
