"""Agreement of two judges: worked out by hand, and what must hold whatever they say."""

import random

import pytest

from dapflow.storage import UserError
from dapflow.tasks.evaluation.agreement import Judgement, agreement_of, outcome


def judgements(*said: tuple[float, float, int]) -> list[Judgement]:
    return [Judgement(one=one, other=other, longer=longer) for one, other, longer in said]


def test_a_small_case_by_hand() -> None:
    found = agreement_of(
        judgements((0.9, 0.8, 10), (0.9, 0.2, -5), (0.1, 0.4, -7), (0.5, 0.5, 3), (0.5, 0.7, 2))
    )
    assert (found.n, found.agreement) == (5, 3 / 5)
    assert (found.decided, found.accuracy) == (3, 2 / 3)
    # one: first 2/5, second 1/5, tie 2/5; the other: first 2/5, second 2/5, tie 1/5; by chance 4/25
    # + 2/25 + 2/25 = 8/25
    assert found.kappa == pytest.approx((3 / 5 - 8 / 25) / (1 - 8 / 25))
    assert found.confusion["first"] == {"first": 1, "tie": 0, "second": 1}
    assert found.one_prefers_longer == pytest.approx(
        2 / 3
    )  # it decides three: +10 the first, longer; -5 the first, shorter; -7 the second, longer
    assert sum(one.n for one in found.by_length) == 5


def test_swapping_the_judges_or_the_answers_changes_nothing() -> None:
    draw = random.Random(1)
    some = [
        Judgement(
            one=draw.choice([0, 0.5, 0.7]), other=draw.random(), longer=draw.randrange(-50, 50)
        )
        for _ in range(200)
    ]
    found = agreement_of(some)
    swapped = agreement_of(
        [Judgement(one=one.other, other=one.one, longer=one.longer) for one in some]
    )
    turned = agreement_of(
        [Judgement(one=1 - one.one, other=1 - one.other, longer=-one.longer) for one in some]
    )
    for other in (swapped, turned):
        assert (other.agreement, other.accuracy, other.n) == (
            found.agreement,
            found.accuracy,
            found.n,
        )
        assert other.kappa == pytest.approx(found.kappa)
        assert [one.agreement for one in other.by_length] == pytest.approx(
            [one.agreement for one in found.by_length]
        )


def test_a_judge_agrees_with_itself_and_with_chance_not_beyond_chance() -> None:
    draw = random.Random(2)
    own = [draw.random() for _ in range(4000)]
    assert agreement_of(judgements(*((p, p, 1) for p in own))).kappa == pytest.approx(1)
    unrelated = agreement_of(judgements(*((p, draw.random(), 1) for p in own)))
    assert unrelated.kappa == pytest.approx(0, abs=0.05)


def test_what_cannot_be_had_is_none() -> None:
    ties = agreement_of(judgements((0.5, 0.5, 0), (0.5, 0.5, 0)))
    assert (ties.agreement, ties.accuracy, ties.kappa, ties.one_prefers_longer) == (
        1.0,
        None,
        None,
        None,
    )
    with pytest.raises(UserError, match="nothing that both have judged"):
        agreement_of([])


def test_only_exactly_a_half_is_a_tie() -> None:
    assert [outcome(p) for p in (0.5, 0.5 + 1e-9, 0.5 - 1e-9)] == ["tie", "first", "second"]
