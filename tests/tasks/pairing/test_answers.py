"""Which answers are imitated: the best of a prompt over all samples, or those above a quantile;
never an unfinished one.
"""

from typing import Any

import pytest

from dapflow.tasks.pairing.acceptance import Acceptance
from dapflow.tasks.pairing.answers import accept_rows


def row(digest: str, text: str, reward: float | None, finished: bool = True) -> dict[str, Any]:
    return {
        "digest": digest,
        "text": text,
        "reward": reward,
        "finished": finished,
        "note": None if reward is not None else "invalid",
    }


ROWS = [
    row("p", "a", 1.0),
    row("p", "b", 3.0),
    row("q", "c", 2.0),
    row("p", "d", 9.0, False),
    row("p", "b", 3.0),
    row("q", "e", None),
]


def rows() -> list[dict[str, Any]]:
    return [dict(one) for one in ROWS]


def test_the_best_finished_answer_of_each_prompt_is_taken_wherever_it_was_sampled() -> None:
    assert accept_rows(rows(), Acceptance(rule="best"), seed=0) == {1, 2}


def test_a_threshold_is_a_quantile_of_all_rewards() -> None:
    # rewards that count: 1, 3, 2, 9 (the second "b" is a duplicate); their median is 2.5
    assert accept_rows(rows(), Acceptance(rule="threshold", threshold=0.5), seed=0) == {1}
    assert accept_rows(rows(), Acceptance(rule="threshold", threshold=0.0), seed=0) == {
        1,
        2,
    }  # above the least of them, finished


@pytest.mark.parametrize(
    ("passing", "threshold", "accepted"),
    [(1, 0.5, 1), (2, 0.5, 2), (2, 0.85, 2), (6, 0.5, 6), (6, 0.85, 6), (10, 0.5, 0), (0, 0.5, 0)],
)
def test_of_verdicts_that_are_yes_or_no_the_yes_pass_however_many(
    passing: int, threshold: float, accepted: int
) -> None:
    """Where all are alike, none is better than another."""
    some = [row(f"p{n}", "a", float(n < passing)) for n in range(10)]
    assert accept_rows(some, Acceptance(rule="threshold", threshold=threshold), seed=0) == set(
        range(accepted)
    )


def test_duplicates_and_what_was_not_judged_are_noted() -> None:
    some = rows()
    assert accept_rows(some, Acceptance(rule="all"), seed=0) == {0, 1, 2}
    assert [one["note"] for one in some] == [None, None, None, "truncated", "duplicate", "invalid"]


def test_in_a_list_what_was_cut_off_neither_wins_nor_loses() -> None:
    some = [
        row("p", "a", 1.0),
        row("p", "b", 3.0),
        row("p", "c", 2.0, False),
        row("p", "d", 0.5, False),
        row("q", "e", 1.0, False),
    ]
    assert accept_rows(some, Acceptance(rule="all"), seed=0) == {0, 1}
    assert [one["note"] for one in some] == [None, None, "truncated", "truncated", "truncated"]


def test_of_equal_answers_one_is_drawn_and_nothing_is_no_error() -> None:
    equal = [row("p", text, 1.0) for text in "abcdefgh"]
    drawn = {
        next(iter(accept_rows([dict(one) for one in equal], Acceptance(rule="best"), seed=seed)))
        for seed in range(20)
    }
    assert len(drawn) > 1
    assert accept_rows([row("p", "a", 1.0, False)], Acceptance(rule="best"), seed=0) == set()
    assert accept_rows([], Acceptance(rule="threshold"), seed=0) == set()
