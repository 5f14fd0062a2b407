"""What a judge need not be asked, and how steady one was that was asked."""

from typing import Any

import pytest

from dapflow.tasks.judging.compare import biases, unasked


def row(text: str, finish_reason: str = "stop", note: str | None = None) -> dict[str, Any]:
    return {"text": text, "finish_reason": finish_reason, "note": note}


def test_what_can_be_told_without_a_judge_is_not_asked() -> None:
    assert unasked(row("x"), row("y")) is None
    identical, empty, refused = (
        unasked(row("x"), row("x")),
        unasked(row("x"), row(" ")),
        unasked(row("", "refused", "too long"), None),
    )
    assert identical is not None and (identical.outcome, identical.score, identical.note) == (
        "tie",
        0.5,
        "identical",
    )
    assert empty is not None and (empty.outcome, empty.note) == ("invalid", "empty completion")
    assert refused is not None and (refused.outcome, refused.note) == ("refused", "too long")


def test_a_judge_of_places_is_never_consistent() -> None:
    always_first = [{"outcome": "tie", "forward": 1.0, "backward": 1.0}] * 4
    steady = [{"outcome": "win", "forward": 0.9, "backward": 0.2}] * 4
    undecided = [
        {"outcome": "tie", "forward": 0.5, "backward": 0.5},
        {"outcome": "invalid", "forward": None, "backward": 0.9},
    ]
    figures = {one["name"]: one["value"] for one in biases(always_first + steady + undecided)}
    assert figures == {
        "position_consistency": pytest.approx(4 / 8),
        "first_place_wins": pytest.approx((8 + 4) / 16),
    }
    assert list(biases([])) == []


def test_of_a_person_who_is_asked_in_one_order_only_the_place_is_told() -> None:
    left = [
        {"outcome": "win", "forward": 1.0, "backward": None},
        {"outcome": "lose", "forward": None, "backward": 1.0},
    ]
    [figure] = biases(
        [
            *left,
            {"outcome": "lose", "forward": 0.0, "backward": None},
            {"outcome": "tie", "forward": 0.5, "backward": None},
        ]
    )
    assert (figure["name"], figure["value"]) == ("first_place_wins", pytest.approx(2 / 3))
