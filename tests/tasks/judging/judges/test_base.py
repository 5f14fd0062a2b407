"""Verdicts are typed values, and a pairwise judge's love of a place cancels out (pitfall P13)."""

import pytest

from dapflow.tasks.judging.judges.base import Question, Verdict, both_orders, scores_of
from dapflow.tasks.judging.judges.program import Program, ProgramJudge


def longer(prompt: str, a: str, b: str) -> float:
    return float(len(a) > len(b)) if len(a) != len(b) else 0.5


def test_a_judge_that_always_says_first_gives_a_tie() -> None:
    found = both_orders(lambda prompt, a, b: 1.0, "p", "x", "y")
    assert found == Verdict(outcome="tie", score=0.5, forward=1.0, backward=1.0)  # (1 + 1 - 1) / 2


def test_a_bias_for_the_first_place_is_averaged_out() -> None:
    assert both_orders(
        lambda prompt, a, b: 0.9 if a == "good" else 0.5, "p", "good", "bad"
    ).score == pytest.approx(0.7)  # (0.9 + 0.5) / 2


def test_swapping_the_answers_swaps_the_verdict() -> None:
    there, back = (
        both_orders(longer, "p", "long answer", "short"),
        both_orders(longer, "p", "short", "long answer"),
    )
    assert (there.outcome, back.outcome) == ("win", "lose")
    assert there.score is not None and back.score is not None
    assert there.score == 1 - back.score


def test_half_an_answer_is_invalid() -> None:
    assert (
        both_orders(lambda prompt, a, b: None if a == "x" else 0.9, "p", "x", "y").outcome
        == "invalid"
    )


def test_a_verdict_without_a_judgement_cannot_carry_a_score() -> None:
    for outcome in ("invalid", "refused", "over_budget"):
        with pytest.raises(AssertionError):
            Verdict(outcome=outcome, score=0.0)  # type: ignore[arg-type]


def test_an_empty_completion_is_invalid_not_the_shortest() -> None:
    questions = [
        Question(completion_id=str(n), prompt="p", completion=text)
        for n, text in enumerate(["two words", "", "one"])
    ]
    counted: list[int] = []
    verdicts = scores_of(ProgramJudge(Program(name="shorter")), questions, counted.append)
    assert sum(counted) == 3
    assert [(v.outcome, v.score) for v in verdicts] == [
        ("scored", -2.0),
        ("invalid", None),
        ("scored", -1.0),
    ]
