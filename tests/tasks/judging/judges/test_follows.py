"""The judge that verifies constraints: shares as scores, and no score without constraints."""

from contextlib import nullcontext
from typing import Any

import pytest

from dapflow.storage import UserError
from dapflow.tasks.judging.judges.base import Question, scores_of
from dapflow.tasks.judging.judges.follows import Follows, FollowsJudge
from dapflow.tasks.judging.kinds import spec_of

TWO = '[{"rule": "sentences", "exactly": 2}, {"rule": "lowercase"}]'


def question(completion: str, constraints: str | None = TWO) -> Question:
    return Question(
        completion_id="c", prompt="Why?", completion=completion, constraints=constraints
    )


def test_the_word_stands_for_it_and_it_scores_from_0_to_1() -> None:
    judge = spec_of("follows")
    assert judge == Follows() == spec_of({"kind": "follows"})
    assert str(judge) == "follows"
    assert not judge.compares
    assert judge.scale == (0.0, 1.0)


@pytest.mark.parametrize(
    ("completion", "score"),
    [("it rains. it pours.", 1.0), ("it rains.", 0.5), ("It rains.", 0.0), ("It. Is", 0.5)],
)
def test_a_score_is_the_share_of_the_constraints_that_are_followed(
    completion: str, score: float
) -> None:
    rows: list[int] = []
    [verdict] = scores_of(FollowsJudge(), [question(completion)], rows.append)
    assert (verdict.outcome, verdict.score) == ("scored", score)
    assert sum(rows) == 1


def test_without_constraints_or_without_an_answer_there_is_no_score() -> None:
    verdicts = scores_of(FollowsJudge(), [question("it", None), question(" ")])
    assert [(one.outcome, one.score, one.note) for one in verdicts] == [
        ("invalid", None, "the prompt has no constraints"),
        ("invalid", None, "empty completion"),
    ]


@pytest.mark.parametrize("constraints", [[None, None], [None, TWO], []])
def test_prompts_of_which_none_has_constraints_are_refused_with_what_to_do(
    constraints: list[Any],
) -> None:
    wrong = not any(constraints)
    message = r"no prompt has any: set prompts\.source=shipped-instructions, or give each line"
    with pytest.raises(UserError, match=message) if wrong else nullcontext():
        Follows().check_prompts([{"constraints": one} for one in constraints])
