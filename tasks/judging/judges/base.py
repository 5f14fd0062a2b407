"""What a judge is: (prompt, completion) in, verdict out. A verdict is a typed value; what went
wrong is never turned into a score.

Test: pytest tests/tasks/judging
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dapflow.storage.rows import Outcome, VerdictRow

EMPTY = "empty completion"  # the note of a verdict on one
IDENTICAL = "identical"  # and on two that are the same: nobody has to be asked
_EQUAL = 1e-9  # rounding is no preference


@dataclass(frozen=True, kw_only=True)
class Question:
    """A completion to be judged. prompt: as a text, with what was said before it; turns: one by
    one, for a judge that reads chats.
    """

    completion_id: str
    prompt: str
    completion: str
    answer: str | None = None  # the reference answer of the prompt, where it has one
    constraints: str | None = None  # likewise, as the lake holds them
    turns: tuple[str, ...] = ()  # empty: the prompt alone


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two completions of a prompt that are to be compared."""

    completion_id: str
    other_id: str
    prompt: str
    first: str
    second: str
    answer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`score`: in the judge's unit for "scored"; the probability that the first answer wins for a
    comparison; else None.

    forward, backward: of a comparison, the probability of whatever stood first, in the order given
    and in the other.
    """

    outcome: Outcome
    score: float | None = None
    note: str | None = None
    forward: float | None = None
    backward: float | None = None

    def __post_init__(self) -> None:
        judged = self.outcome in ("scored", "win", "lose", "tie")
        assert judged == (self.score is not None), f"{self.outcome} with score {self.score}"


def verdict_of_row(row: VerdictRow) -> Verdict:
    """The verdict that a row of the lake holds."""
    return Verdict(
        outcome=row["outcome"],
        score=row["score"],
        note=row["note"],
        forward=row["forward"],
        backward=row["backward"],
    )


class Judge(Protocol):
    """Scores completions one by one; verdicts come in the order of the questions. Ask by
    `scores_of`: none is given an empty completion.

    together: whether it wants all questions at once, since it has many under way and keeps each
    answer itself.
    """

    name: str
    together: bool

    def judge(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]: ...


class Comparer(Protocol):
    """Compares two completions at a time, in both orders; `name` and `together` as a judge's."""

    name: str
    together: bool

    def compare(
        self, matches: Sequence[Match], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]: ...


def scores_of(
    judge: Judge, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
) -> list[Verdict]:
    """The judge's verdict on each completion, in order. An empty one is invalid, whoever judges,
    and nobody is asked or paid.
    """
    found = iter(list(judge.judge([one for one in questions if one.completion.strip()], on_rows)))
    verdicts = [
        next(found) if one.completion.strip() else Verdict(outcome="invalid", note=EMPTY)
        for one in questions
    ]
    if on_rows:
        on_rows(sum(not one.completion.strip() for one in questions))
    return verdicts


def both_orders(
    compare: Callable[[str, str, str], float | None], prompt: str, first: str, second: str
) -> Verdict:
    """Ask a pairwise judge in both orders and average, so that a preference for a place cancels
    out.

    compare(prompt, a, b): the probability that `a` is better, or None for an answer that cannot be
    read.
    """
    return weigh(compare(prompt, first, second), compare(prompt, second, first))


def weigh(
    forward: float | None, backward: float | None, why: str = "no verdict in the answer"
) -> Verdict:
    """The verdict that the two orders amount to: each the probability of whatever stood first, or
    None for an answer that cannot be read.

    One that cannot be read makes the verdict invalid: half an answer still holds the bias of its
    order. why: it cannot be read.
    """
    if forward is None or backward is None:
        note = f"no readable answer in one of the two orders: {why}"
        return Verdict(outcome="invalid", note=note, forward=forward, backward=backward)
    # (forward + 1 - backward) / 2, and exactly 0.5 for a judge that sees places only
    return decided(0.5 + (forward - backward) / 2, forward, backward)


def decided(
    probability: float, forward: float | None = None, backward: float | None = None
) -> Verdict:
    """The verdict that a probability amounts to."""
    if abs(probability - 0.5) < _EQUAL:
        return Verdict(outcome="tie", score=0.5, forward=forward, backward=backward)
    return Verdict(
        outcome="win" if probability > 0.5 else "lose",
        score=probability,
        forward=forward,
        backward=backward,
    )
