"""The kind `program`: a plain function, `(prompt, completion) -> score`, or `(prompt, first,
second) -> probability that the first is better`.

    shorter | on-topic | json | exact-answer | regex:PATTERN | keywords:WORD,WORD | FILE.py:FUNCTION | PACKAGE.MODULE:FUNCTION
A function with a parameter `answer` is given the prompt's reference answer by that name. Test:
pytest tests/tasks/judging/judges/test_program.py
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from dapflow.storage import UserError
from dapflow.tasks.judging.functions import ANSWER, function_of, is_ours, parameters, source_of
from dapflow.tasks.judging.judges.base import Match, Question, Verdict, both_orders
from dapflow.tasks.judging.spec import JudgeSpec, Opening

_LONGEST_TITLE = 40


class Program(JudgeSpec):
    """A function as a judge."""

    kind: Literal["program"] = "program"
    name: str = Field(min_length=1, description="`shorter`, ..., or `FILE.py:FUNCTION`")

    @classmethod
    def of_word(cls, word: str) -> Self:
        """The function of that name."""
        return cls(name=word)

    def __str__(self) -> str:
        """Its name in titles: without folders, and not long."""
        short = self.name if self._shipped else Path(self.name).name
        return short if len(short) <= _LONGEST_TITLE else f"{short[: _LONGEST_TITLE - 3]}..."

    @property
    def identity(self) -> str:
        """The whole name."""
        return self.name

    @property
    def compares(self) -> bool:
        """Whether the function takes two completions. Raises UserError where there is none."""
        return len(set(self._takes()) - {ANSWER}) == 3

    @property
    def needs_answer(self) -> bool:
        """Whether the function takes the reference answer of the prompt."""
        return ANSWER in self._takes()

    @property
    def scale(self) -> tuple[float, float]:
        """Probabilities."""
        return (0.0, 1.0)

    def check(self) -> None:
        """Raise UserError, which says what there is, where there is no such function."""
        self._takes()

    def check_prompts(self, prompts: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError when the function needs reference answers and no prompt has one."""
        if self.needs_answer and all(prompt["answer"] is None for prompt in prompts):
            raise UserError(
                f"The judge {self} needs the right answers, and no prompt has one: give each line "
                "of prompts.source an `answer`."
            )

    def executes(self) -> Iterator[tuple[str, str]]:
        """The function, where it is the user's."""
        place, _, function = self.name.partition(":")
        if not self._shipped and function:
            own = Path(place).expanduser().resolve() if place.endswith(".py") else place
            yield "", f"function {own}:{function}"

    @contextmanager
    def open(self, opening: Opening) -> "Iterator[ProgramJudge]":
        """The function."""
        del opening
        yield ProgramJudge(self)

    @property
    def source(self) -> str | None:
        """Digest of the file that the function is imported from; None for those of ours."""
        place = (
            None
            if self._shipped
            else source_of(function_of(self.name), self.name.partition(":")[0])
        )
        return hashlib.sha256(Path(place).read_bytes()).hexdigest()[:16] if place else None

    def content(self) -> dict[str, str]:
        """A changed file makes other versions."""
        return super().content() | ({"source": self.source} if self.source else {})

    @property
    def _shipped(self) -> bool:
        return is_ours(self.name)

    def _takes(self) -> list[str]:
        """What the function must be given."""
        takes = parameters(function_of(self.name))
        if not self._shipped and len(set(takes) - {ANSWER}) not in (2, 3):
            raise UserError(
                f"The judge {self.name} takes {', '.join(takes) or 'nothing'}: it must take "
                "(prompt, completion) and give a score, or (prompt, first, second) and give the "
                "probability that the first is better; and `answer` besides if it needs the "
                "reference answer."
            )
        return takes


class ProgramJudge:
    """Scores or compares with a program, in both orders. An exception, a missing reference answer
    or a result that is no finite number (no probability) is invalid, never a score of zero."""

    together = False

    def __init__(self, program: Program) -> None:
        self.name = program.name + (f"@{program.source}" if program.source else "")
        self._needs_answer = program.needs_answer
        self._function = function_of(program.name)

    def judge(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """One verdict per question, in order."""
        for question in questions:
            yield self._scored(question)
            if on_rows:
                on_rows(1)

    def compare(
        self, matches: Sequence[Match], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """One verdict per match, in order."""
        for match in matches:
            yield self._compared(match)
            if on_rows:
                on_rows(1)

    def _scored(self, question: Question) -> Verdict:
        try:
            return Verdict(
                outcome="scored",
                score=self._ask(question.answer, question.prompt, question.completion),
            )
        except _InvalidError as error:
            return Verdict(outcome="invalid", note=str(error))

    def _compared(self, match: Match) -> Verdict:
        try:
            return both_orders(
                partial(self._probability, match.answer), match.prompt, match.first, match.second
            )
        except _InvalidError as error:
            return Verdict(outcome="invalid", note=str(error))

    def _probability(self, answer: str | None, prompt: str, first: str, second: str) -> float:
        probability = self._ask(answer, prompt, first, second)
        if not 0 <= probability <= 1:
            raise _InvalidError(f"the program's probability is {probability:g}")
        return probability

    def _ask(self, answer: str | None, *texts: str) -> float:
        if self._needs_answer and answer is None:
            raise _InvalidError("the prompt has no reference answer")
        try:
            result = float(
                self._function(*texts, **({ANSWER: answer} if self._needs_answer else {}))
            )
        except (
            Exception,
            SystemExit,
        ) as error:  # a user's own code may raise anything: it is the row's verdict that is missing
            raise _InvalidError(f"{type(error).__name__}: {error}"[:300]) from error
        if not math.isfinite(result):
            raise _InvalidError(f"the program's score is {result}")
        return result


class _InvalidError(Exception):
    """A program has given nothing that counts."""
