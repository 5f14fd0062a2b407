"""The kind `follows`: a program that scores a completion by the share of its prompt's constraints
that it follows (constraints.py), 0 to 1.

    dapflow run rso --set judge=follows --set prompts.source=shipped-instructions
Test: pytest tests/tasks/judging/judges/test_follows.py
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from dapflow.storage import UserError
from dapflow.tasks.judging.constraints import follows
from dapflow.tasks.judging.judges.base import Question, Verdict
from dapflow.tasks.judging.spec import JudgeSpec, Opening
from dapflow.tasks.prompts.constraints import of_text


class Follows(JudgeSpec):
    """A program that verifies what prompts ask of the form of an answer."""

    kind: Literal["follows"] = "follows"

    def __str__(self) -> str:
        return self.kind

    @property
    def compares(self) -> bool:
        """It scores."""
        return False

    @property
    def scale(self) -> tuple[float, float]:
        """None of the constraints, and all of them."""
        return (0.0, 1.0)

    def check_prompts(self, prompts: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError when no prompt has constraints."""
        if all(prompt["constraints"] is None for prompt in prompts):
            raise UserError(
                f"The judge {self} needs prompts with constraints, and no prompt has any: set "
                "prompts.source=shipped-instructions, or give each line of prompts.source "
                "`constraints`."
            )

    @contextmanager
    def open(self, opening: Opening) -> "Iterator[FollowsJudge]":
        """The program."""
        del opening
        yield FollowsJudge()


class FollowsJudge:
    """Scores by the constraints; without them a completion has no score."""

    name = "follows"
    together = False

    def judge(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """One verdict per question, in order."""
        for question in questions:
            yield _verdict(question)
            if on_rows:
                on_rows(1)


def _verdict(question: Question) -> Verdict:
    if question.constraints is None:
        return Verdict(outcome="invalid", note="the prompt has no constraints")
    score = follows(of_text(question.constraints), question.completion)
    return Verdict(outcome="scored", score=score)
