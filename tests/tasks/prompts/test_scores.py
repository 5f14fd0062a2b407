"""Scores of a file: what is no number is none, what contradicts the choice leaves the row out,
ratings by aspect decide.
"""

from typing import Any

import pytest

from dapflow.tasks.prompts.formats import preference
from dapflow.tasks.prompts.scores import best_and_worst, margin_of, number
from dapflow.tasks.prompts.sources import Record


@pytest.mark.parametrize(
    ("value", "read"), [(7, 7.0), (7.5, 7.5), ("7", 7.0), (" -2.5 ", -2.5), ("1e1", 10.0)]
)
def test_a_number_may_be_a_text(value: Any, read: float) -> None:
    assert number(value) == read


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        float("nan"),
        float("inf"),
        "-inf",
        "NaN",
        "N/A",
        "7/10",
        "",
        [7],
        {"Rating": 7},
        10**400,
    ],
)
def test_what_is_no_number_is_none(value: Any) -> None:
    assert number(value) is None


@pytest.mark.parametrize(
    ("fields", "margin", "reason"),
    [
        ({}, None, None),
        ({"score_chosen": 8, "score_rejected": "5.5"}, 2.5, None),
        ({"chosen_score": 2, "rejected_score": 9}, -7.0, "contradicted"),
        ({"chosen-rating": 2, "rejected-rating": 9}, -7.0, "contradicted"),
        ({"rating_chosen": "2", "rating_rejected": "9"}, -7.0, "contradicted"),
        ({"chosenReward": -3.5, "rejectedReward": -1.0}, -2.5, "contradicted"),
        ({"chosen_avg_rating": 4.0, "rejected_avg_rating": 4.0}, 0.0, "tie"),
        ({"margin": -0.5}, -0.5, "contradicted"),
        ({"margin": 0}, 0.0, "tie"),
        ({"margin": "1.5"}, 1.5, None),
        ({"margin": True}, None, None),
        ({"margin": float("nan")}, None, None),
        ({"score_chosen": float("nan"), "score_rejected": 1}, None, None),
        ({"score_chosen": float("inf"), "score_rejected": 1}, None, "infinite_scores"),
        ({"margin": "-Infinity"}, None, "infinite_scores"),
        ({"score_chosen": "N/A", "score_rejected": 1}, None, None),
        ({"score_chosen": True, "score_rejected": False}, None, None),
        (
            {"score_chosen": 3, "score_rejected": 1, "chosen_rating": 1, "rejected_rating": 4},
            -3.0,
            "contradicted",
        ),
    ],
)
def test_how_far_the_file_puts_chosen_above_rejected(
    fields: dict[str, Any], margin: float | None, reason: str | None
) -> None:
    assert margin_of(fields) == (margin, reason)
    found = preference(
        Record(place="a:1", fields={"prompt": "p", "chosen": "c", "rejected": "r", **fields})
    )
    assert (found["margin"], found["dropped"]) == (margin, reason)


def answer(text: str, overall: Any = None, *ratings: Any) -> dict[str, Any]:
    aspects = {
        f"aspect {place}": {"Rating": rating, "Rationale": "because"}
        for place, rating in enumerate(ratings)
    }
    return {"response": text, "overall_score": overall, "annotations": aspects}


@pytest.mark.parametrize(
    ("completions", "found"),
    [
        ([answer("a", 7), answer("b", "9"), answer("c", 2)], ("b", "c", 7.0, None)),
        ([answer("x", float("nan")), answer("a", 9), answer("b", 2)], ("a", "b", 7.0, None)),
        ([answer("a", 2), answer("b", 9), answer("x", "N/A")], ("b", "a", 7.0, None)),
        ([answer("x", True), answer("a", 9), answer("b", 2)], ("a", "b", 7.0, None)),
        (
            [answer("a", 10, "1", "2"), answer("b", 7, "4", "5")],
            ("b", "a", 3.0, None),
        ),  # (4 + 5) / 2 - (1 + 2) / 2
        ([answer("a", 10, "1", "N/A"), answer("b", 7, "4", "4")], ("b", "a", 3.0, None)),
        (
            [answer("a", 10, "1"), answer("b", 7, "4"), answer("c", 5)],
            ("a", "c", 5.0, "doubtful_scores"),
        ),
        ([answer("a", 9, "5"), answer("b", 7, "4"), answer("c", 5)], ("a", "c", 4.0, None)),
        (
            [
                answer("a", 10) | {"fine-grained_score": 1.25},
                answer("b", 7) | {"fine-grained_score": 4.25},
            ],
            ("b", "a", 3.0, None),
        ),
        ([answer("a", 7), answer("b", 7)], ("a", "b", 0.0, "tie")),
        ([answer("a", 7), answer("b")], ("", "", None, "unscored")),
        ([answer(" ", 9), answer("a", 7), answer("b", 2)], ("a", "b", 5.0, None)),
        ([], ("", "", None, "unscored")),
    ],
)
def test_the_best_answer_and_the_worst(
    completions: list[dict[str, Any]], found: tuple[Any, ...]
) -> None:
    assert best_and_worst(completions) == found
