"""The temperature whose best answers are best; what was not judged is not counted."""

import pytest

from dapflow.tasks.sampling.sweep import best_of_n, those_that_ended


def verdict(prompt: str, score: float | None) -> dict[str, object]:
    return {
        "prompt_id": prompt,
        "outcome": "invalid" if score is None else "scored",
        "score": score,
    }


def test_the_best_of_each_prompt_counts_and_failures_do_not() -> None:
    rows = [
        verdict("a", -3.0),
        verdict("a", -1.0),
        verdict("a", None),
        verdict("b", 2.0),
        verdict("b", 5.0),
        verdict("c", None),
    ]
    assert best_of_n(rows) == pytest.approx(
        (-1.0 + 5.0) / 2
    )  # not 0 for what failed, nor a third prompt
    assert best_of_n([verdict("a", None)]) is None


def test_what_was_cut_off_is_not_the_best_where_something_ended() -> None:
    cold, hot = (
        [verdict("a", 1.0) | {"completion_id": "c"}],
        [verdict("a", 9.0) | {"completion_id": "h"}],
    )
    assert those_that_ended([cold, hot], {"c"}) == [cold, []]
    assert those_that_ended([cold, hot], set()) == [cold, hot]
