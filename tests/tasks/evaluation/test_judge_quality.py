"""How good a judge is: the arithmetic of each measure, on pairs that people have ordered."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from dapflow.tasks.evaluation.judge_quality import (
    AGREEMENT,
    Judged,
    agreement_change,
    better_than_chance,
    quality,
)
from dapflow.tasks.figures import rows_of
from dapflow.tasks.statistics import wilson

# Of the first prompt people say a > b, a > c, b > c; of the second x > y; of the third, whose
# answer has no verdict, p > q; and m > n.
SCORES = {"a": 5.0, "b": 3.0, "c": 4.0, "x": 5.0, "y": 5.0, "p": None, "q": 2.0, "m": 4.0, "n": 1.0}
PAIRS = [
    ("1", "a", "b"),
    ("1", "a", "c"),
    ("1", "b", "c"),
    ("2", "x", "y"),
    ("3", "p", "q"),
    ("4", "m", "n"),
]
JUDGED = [
    Judged(prompt=prompt, chosen=one, rejected=other, better=SCORES[one], worse=SCORES[other])
    for prompt, one, other in PAIRS
]


def measured(judged: Sequence[Judged], top: float | None) -> Iterator[dict[str, Any]]:
    return rows_of(quality(judged, top), "policy", str)


def test_a_change_of_agreement_has_newcombe_s_interval() -> None:
    """56 of 70 against 48 of 80: the example of Newcombe 1998, table II (a)."""
    shares = [(48, 80), (56, 70)]
    before, now = (
        [{"name": AGREEMENT, "value": k / n, "low": wilson(k, n)[0], "high": wilson(k, n)[1]}]
        for k, n in shares
    )
    change = agreement_change(before, now)
    assert [change.value, change.low, change.high] == pytest.approx([0.2, 0.0524, 0.3339], abs=5e-4)
    assert agreement_change([], now).note == "it decides no labelled pair an iteration before"
    assert agreement_change(before, []).value is None


def test_every_measure_is_what_it_says() -> None:
    found = {row["name"]: row for row in measured(JUDGED, top=5.0)}
    values = {name: row["value"] for name, row in found.items()}
    assert values == {
        "pairwise_agreement": 3
        / 4,  # a > b, a > c and m > n, against b > c; x and y are a tie, and p has no verdict
        "decided": 4 / 6,
        "unread": 1 / 6,
        "exact_match": 1 / 3,  # of prompts 1, 2 and 4, only the last is in people's order
        "spearman": pytest.approx(
            (0.5 + 1) / 2
        ),  # of 1: 1 - 6 (0 + 1 + 1) / (3 (9 - 1)) = 0.5; 2 is a tie throughout
        "kendall": pytest.approx((1 / 3 + 1) / 2),  # of 1: (2 - 1) / 3
        "five_best": 2 / 3,  # a, x and y have five points, and y is not people's best
    }
    assert found["pairwise_agreement"]["low"] == pytest.approx(0.3006, abs=1e-4)  # Wilson, 3 of 4


def test_a_judge_that_compares_is_measured_by_its_probabilities() -> None:
    judged = [
        Judged(prompt=prompt, chosen=one, rejected=other, better=p, worse=1 - p)
        for (prompt, one, other), p in zip(PAIRS[:3], (0.9, 0.6, 0.2), strict=True)
    ]
    values = {row["name"]: row["value"] for row in measured(judged, top=None)}
    assert values["pairwise_agreement"] == 2 / 3
    assert (
        values["exact_match"] == 0.0
    )  # a 0.75, c (0.4 + 0.8) / 2 = 0.6, b (0.1 + 0.2) / 2 = 0.15, where people have b before c
    assert "five_best" not in values


@pytest.mark.parametrize(
    ("right", "wrong", "ties", "better"),
    [(9, 1, 0, True), (6, 4, 0, False), (0, 0, 50, False), (2, 0, 48, False)],
)
def test_only_an_interval_above_one_half_is_better_than_chance(
    right: int, wrong: int, ties: int, better: bool
) -> None:
    outcomes = [(1.0, 0.0)] * right + [(0.0, 1.0)] * wrong + [(0.5, 0.5)] * ties
    judged = [
        Judged(prompt=str(n), chosen="a", rejected="b", better=one, worse=other)
        for n, (one, other) in enumerate(outcomes)
    ]
    assert better_than_chance(measured(judged, top=None)) == better


def test_no_verdict_at_all_is_no_share_and_not_better_than_chance() -> None:
    rows = list(
        measured([Judged(prompt="1", chosen="a", rejected="b", better=None, worse=None)], top=5.0)
    )
    assert {row["name"]: row["value"] for row in rows} == {
        "pairwise_agreement": None, "decided": 0.0, "unread": 1.0, "exact_match": None, "spearman": None, "kendall": None, "five_best": None,
    }  # fmt: skip
    assert all(row["note"] for row in rows if row["value"] is None)
    assert not better_than_chance(rows)
