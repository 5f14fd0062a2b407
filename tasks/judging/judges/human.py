"""The kind `human`: a person compares two answers at a time, on a page of this machine.

    Human(person="anna", instruction="Which answer would you rather read?", labels=50)
Test: pytest tests/tasks/judging/judges/test_human.py
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

from prefect.runtime import deployment, flow_run
from pydantic import Field

from dapflow.storage import Lake
from dapflow.storage.labels import Labelled, Question, ask, latest_labels
from dapflow.tasks.judging.judges.base import Match, Verdict
from dapflow.tasks.judging.judges.desk.server import Desk, serve
from dapflow.tasks.judging.judges.desk.sitting import Sitting
from dapflow.tasks.judging.judges.desk.suspending import suspend
from dapflow.tasks.judging.spec import JudgeSpec, Opening

_WON = {"first": 1.0, "tie": 0.5, "second": 0.0}


class Human(JudgeSpec):
    """A person who compares two answers at a time, on a page of this machine."""

    answers_at_once: ClassVar[bool] = False
    asked_as_a_whole: ClassVar[bool] = True
    MACHINE: ClassVar[set[str]] = {"host", "port"}
    kind: Literal["human"] = "human"
    person: str = Field(
        default="person", min_length=1, description="who: one person's labels are not another's"
    )
    instruction: str | None = Field(
        default=None,
        description="what they are asked for, above each prompt; else which answer is better",
    )
    labels: int | None = Field(
        default=None,
        ge=1,
        description="labels (a better answer was named) that are enough; all pairs if left out",
    )
    seed: int = Field(
        default=0, ge=0, description="in which order pairs come, and which answer stands left"
    )
    host: str = Field(
        default="127.0.0.1",
        description="address of the page; any other than loopback needs DAPFLOW_LABEL_PASSWORD",
    )
    port: int = Field(
        default=8700, ge=0, le=65535, description="of the page; another where it is taken"
    )

    def __str__(self) -> str:
        return self.person

    @property
    def compares(self) -> bool:
        """People compare."""
        return True

    @property
    def surely_compares(self) -> bool:
        """People compare."""
        return True

    @contextmanager
    def open(self, opening: Opening) -> "Iterator[HumanJudge]":
        """Whoever sits before the page."""
        yield HumanJudge(self, opening.lake, opening.version, opening.say)


class HumanJudge:
    """Compares by asking a person, on a page and wherever else the lake's questions are answered,
    until enough labels are in.

    Each question is asked once, in one order chosen by the seed: `forward` when the match's first
    answer stood first, else `backward`.
    """

    together = True

    def __init__(self, by: Human, lake: Lake, version: str, say: Callable[[str], None]) -> None:
        self.name = str(by)
        self._by = by
        self._lake = lake
        self._version = version
        self._say = say

    def compare(
        self, matches: Sequence[Match], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """A verdict on each match; what was not asked because enough labels were in is over the
        budget.
        """
        by = self._by
        asked = [
            Question.of(by.person, by.instruction, match.prompt, match.first, match.second)
            for match in matches
        ]
        known = latest_labels(self._lake, [question.key for question in asked])
        sitting = Sitting(self._lake, asked, by.labels, by.seed, known)
        if not sitting.enough:
            ask(
                self._lake,
                self._version,
                flow_run.root_flow_run_id,
                list({question.key: question for question in asked}.values()),
            )
            if deployment.id is not None:
                suspend(sitting.missing)
            with serve(Desk(host=by.host, port=by.port)) as desk:
                self._say(
                    f"Label {sitting.missing} pairs of answers at {desk.show(sitting)} (Ctrl-C "
                    "stops; what is labelled stays)"
                )
                sitting.wait(on_rows)
        labels = latest_labels(self._lake, [question.key for question in asked])
        for match, question in zip(matches, asked, strict=True):
            yield verdict_of(match, question, labels.get(question.key))


def verdict_of(match: Match, question: Question, labelled: Labelled | None) -> Verdict:
    """The verdict that a label amounts to. A question left unanswered or skipped has none."""
    if labelled is None:
        return Verdict(outcome="over_budget", note="enough labels without it")
    if labelled.label not in _WON:
        return Verdict(outcome="refused", note="skipped")
    in_order = match.first == question.first
    won = (
        _WON[labelled.label] if in_order else 1 - _WON[labelled.label]
    )  # of the match's first answer
    first_stood_first = (labelled.left_side == "first") == in_order
    forward, backward = (won, None) if first_stood_first else (None, 1 - won)
    return Verdict(
        outcome="tie" if won == 0.5 else "win" if won else "lose",
        score=won,
        forward=forward,
        backward=backward,
    )
