"""Several judges as one: the arithmetic of each rule, and that a verdict that is missing is never a
number.
"""

import math

import pytest

from dapflow.tasks.judging.combination import (
    Combination,
    combine_scores,
    combine_votes,
    vote,
    whitened,
)
from dapflow.tasks.judging.judges.base import Outcome, Verdict


def scored(score: float) -> Verdict:
    return Verdict(outcome="scored", score=score)


def compared(score: float, forward: float | None = None, backward: float | None = None) -> Verdict:
    outcome: Outcome = "win" if score > 0.5 else "lose" if score < 0.5 else "tie"
    return Verdict(outcome=outcome, score=score, forward=forward, backward=backward)


SUM = Combination(rule="sum", names=("a", "b"), weights={"a": 0.5})
MINIMUM = Combination(rule="minimum", names=("a", "b"))
MAJORITY = Combination(rule="majority", names=("a", "b", "c"))
SAFETY_FIRST = Combination(
    rule="safety-first", names=("safety", "helpfulness"), threshold=0.15, scales=(None, (1.0, 10.0))
)


def test_scores_are_added_with_their_weights_or_the_lowest_is_taken() -> None:
    verdicts = {"a": scored(4.0), "b": scored(-1.5)}
    assert combine_scores(SUM, verdicts, False) == scored(0.5)  # 0.5 * 4 - 1.5
    assert combine_scores(MINIMUM, verdicts, False) == Verdict(
        outcome="scored", score=-1.5, note="b"
    )


@pytest.mark.parametrize(
    ("safety", "helpfulness", "unsafe", "probability", "note"),
    [
        (2.0, 5.5, False, 0.5, "helpfulness"),  # (5.5 - 1) / 9
        (2.0, 5.5, True, 1 / (1 + math.exp(-2.0)), "safety"),
        (-2.0, 5.5, False, 1 / (1 + math.exp(2.0)), "safety"),  # 0.12 < 0.15
        (-1.7, 5.5, False, 0.5, "helpfulness"),  # 0.154
        (-900.0, 5.5, False, 1e-6, "safety"),
    ],
)
def test_safety_comes_first_where_it_is_low_or_the_prompt_is_tagged(
    safety: float, helpfulness: float, unsafe: bool, probability: float, note: str
) -> None:
    found = combine_scores(
        SAFETY_FIRST, {"safety": scored(safety), "helpfulness": scored(helpfulness)}, unsafe
    )
    assert (found.outcome, found.note) == ("scored", note)
    assert found.score == pytest.approx(math.log(probability / (1 - probability)))


def test_a_score_that_is_no_probability_is_invalid_where_one_is_needed() -> None:
    rule = SAFETY_FIRST.model_copy(update={"scales": ((0.0, 1.0), (0.0, 1.0))})
    found = combine_scores(rule, {"safety": scored(-40.0), "helpfulness": scored(0.5)}, False)
    assert (found.outcome, found.note) == (
        "invalid",
        "safety: its score -40 is not within 0 to 1, as safety-first needs it",
    )


@pytest.mark.parametrize("combination", [SUM, MINIMUM, SAFETY_FIRST])
def test_a_member_without_a_verdict_leaves_none(combination: Combination) -> None:
    one, other = combination.names[:2]
    for missing, outcome, note in (
        (None, "invalid", f"{other}: no verdict"),
        (Verdict(outcome="invalid", note="no score"), "invalid", f"{other}: no score"),
        (Verdict(outcome="refused"), "refused", f"{other}: refused"),
        (Verdict(outcome="over_budget", note="spent"), "over_budget", f"{other}: spent"),
    ):
        found = combine_scores(combination, {one: scored(0.9), other: missing}, False)
        assert (found.outcome, found.score, found.note) == (outcome, None, note)
    both = combine_votes(
        MAJORITY,
        {"a": compared(1.0), "b": compared(1.0), "c": Verdict(outcome="invalid", note="no")},
    )
    assert (both.outcome, both.note) == (
        "invalid",
        "c: no",
    )  # two of three would do, but a vote that failed is not a vote


def test_the_majority_wins_and_a_tie_is_half_a_vote() -> None:
    def outcome(*scores: float) -> tuple[str, float | None]:
        found = combine_votes(MAJORITY, dict(zip("abc", map(compared, scores), strict=True)))
        return found.outcome, found.score

    assert outcome(0.9, 0.8, 0.0) == ("win", pytest.approx(2 / 3))
    assert outcome(0.9, 0.2, 0.0) == ("lose", pytest.approx(1 / 3))
    assert outcome(0.9, 0.5, 0.0) == ("tie", 0.5)
    assert outcome(0.5, 0.5, 0.6) == ("win", pytest.approx(2 / 3))  # (1/2 + 1/2 + 1) / 3


def test_probabilities_are_averaged_with_their_weights_in_both_orders() -> None:
    found = combine_votes(SUM, {"a": compared(0.8, 0.9, 0.3), "b": compared(0.2, 0.3, 0.9)})
    assert (found.outcome, found.score) == ("lose", pytest.approx(0.4))  # (0.5 * 0.8 + 0.2) / 1.5
    assert (found.forward, found.backward) == (pytest.approx(0.5), pytest.approx(0.7))
    assert combine_votes(SUM, {"a": compared(0.8, 0.9, 0.3), "b": compared(0.2)}).forward is None


def test_a_judge_that_scores_votes_for_the_higher_score() -> None:
    for one, other, outcome in ((2.0, 1.0, "win"), (1.0, 2.0, "lose"), (1.0, 1.0, "tie")):
        found = vote(scored(one), scored(other))
        assert found is not None and found.outcome == outcome
    missing = vote(scored(1.0), Verdict(outcome="refused", note="too long"))
    assert missing is not None and (missing.outcome, missing.note) == ("refused", "too long")


def test_whitened_scores_have_mean_0_and_deviation_1_and_failures_stay() -> None:
    failed = Verdict(outcome="invalid")
    found = whitened([scored(1.0), failed, scored(3.0)])
    assert [one.score for one in found] == [-1.0, None, 1.0]
    assert whitened([scored(2.0)]) == [scored(0.0)]
    assert whitened([failed]) == [failed]
