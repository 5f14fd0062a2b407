"""Which held-out prompts are known from training: by runs of words, by ROUGE-L; and which are not."""

import random

import pytest

from dapflow.tasks.evaluation.contamination import Overlap, left_out, overlaps
from dapflow.tasks.prompts.overlap import rouge_l_of as rouge_l

LONG = "write a letter to the council that asks them to mend the old stone bridge before the winter floods come"
LIMITS = Overlap()


def found(held_out: str, *trained: str) -> list[tuple[str, float, str]]:
    return [
        (one.measure, pytest.approx(one.value, abs=1e-3), one.training_prompt)
        for one in overlaps([held_out], trained, LIMITS)
    ]  # type: ignore[misc]


def test_thirteen_words_in_a_row_are_enough() -> None:
    other = f"For my neighbour, {LONG.title()}? Be polite, and mention the school and the two farms and the ferry as well, please."
    assert found(other, "Name a fruit.", LONG) == [("overlap_13gram", 1.0, LONG)]


def test_most_runs_of_eight_words_are_enough() -> None:
    words = LONG.split()
    twelve = " ".join(words[:12])
    assert found(twelve, LONG) == [("overlap_8gram", 1.0, LONG)]  # all five runs
    half = " ".join(
        [*words[:12], "or", "else", "nobody", "will", "ever", "cross", "that", "river", "again"]
    )
    assert found(half, LONG) == []  # five of fourteen


def test_a_short_prompt_is_found_by_rouge_l_and_another_number_is_another_question() -> None:
    assert found("Tell me about the number 7!", "tell me about the number 7") == [
        ("overlap_rouge_l", 1.0, "tell me about the number 7")
    ]
    assert found("Tell me about the number 7.", "Tell me about the number 8.") == [
        ("similar_rouge_l", 5 / 6, "Tell me about the number 8.")
    ]
    assert found("Tell me about the number 7.", "Why is the sky blue?") == []


def test_nothing_is_known_where_nothing_was_trained_on() -> None:
    assert found(LONG) == []
    assert found("?!", "?!") == []  # no words to compare


def test_rouge_l_is_symmetric_and_by_hand() -> None:
    assert rouge_l(
        ["name", "three", "fruits"], ["name", "three", "red", "fruits"]
    ) == pytest.approx(6 / 7)
    rng = random.Random(0)
    for _ in range(50):
        a, b = (rng.choices("abcd", k=rng.randint(0, 9)) for _ in range(2))
        assert rouge_l(a, b) == rouge_l(b, a) <= 1
        assert rouge_l(a, a) == (1.0 if a else 0.0)


def test_only_those_that_overlap_are_left_out() -> None:
    rows = [
        {"subject": "p1", "name": "overlap_13gram"},
        {"subject": "p2", "name": "similar_rouge_l"},
        {"subject": "v", "name": "similar_prompts"},
    ]
    assert left_out(rows) == {"p1"}
