"""What a judge's replies amount to: a reading of each reply, and a verdict of the readings; what
cannot be read is never a label.

Test: pytest tests/tasks/judging/judges/test_llm.py
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dapflow.tasks.judging.judges.base import Verdict, weigh
from dapflow.tasks.judging.judges.prompted import Prompted
from dapflow.tasks.judging.replies.content import Reply, first_is_better
from dapflow.tasks.judging.replies.parsing import parse_criteria, parse_score
from dapflow.tasks.servers.client import Refusal, Unaffordable


@dataclass(frozen=True, kw_only=True)
class Unread:
    """An answer without a verdict, and why. cut: it was cut off before its end, so that with more
    room it may hold one.
    """

    reason: str
    cut: bool = False


Reading = float | Unread | Refusal
"""What an answer says: a score or a probability, why it cannot be read, or why there is no answer.
"""


def read_reply(by: Prompted, reply: Reply) -> Reading:
    """The probability that the first is better, or the score, of an answer that has come to its
    end; else why there is none.
    """
    if reply.withheld:
        return Refusal(reason="withheld by the server's content filter")
    if reply.cut:
        return Unread(reason=f"cut off at {by.answer_tokens} tokens", cut=True)
    value = _value_of(by, reply)
    return Unread(reason="no verdict in the answer") if value is None else value


def _value_of(by: Prompted, reply: Reply) -> float | None:
    lowest, highest = by.scale
    if by.compares:
        return first_is_better(reply)
    if by.mode != "rubric":
        return parse_score(reply.text, highest, lowest)
    grades = parse_criteria(reply.text, by.criteria, highest, lowest)
    return (
        None
        if grades is None
        else sum(by.criteria[name] * grades[name] for name in grades) / sum(by.criteria.values())
    )


def still_cut(by: Prompted, reading: Reading) -> Reading:
    """What the answer with more room says."""
    if isinstance(reading, Refusal) and not isinstance(reading, Unaffordable):
        return Unread(
            reason=f"cut off at {by.answer_tokens} tokens, and refused with more ({reading.reason})"
        )
    return (
        Unread(reason=f"cut off at {by.more_tokens} tokens")
        if isinstance(reading, Unread) and reading.cut
        else reading
    )


def compared_verdict(readings: Sequence[Reading]) -> Verdict:
    """What the answers to a match amount to: those in the order given, then as many in the other."""
    half = len(readings) // 2
    if (verdict := _why_not(readings)) is not None:
        return verdict
    forward, backward = readings[:half], readings[half:]
    return weigh(
        _mean(forward), _mean(backward), _reason(forward if _mean(forward) is None else backward)
    )


def scored_verdict(readings: Sequence[Reading]) -> Verdict:
    """What the answers about a completion amount to: the mean of those that could be read."""
    if (verdict := _why_not(readings)) is not None:
        return verdict
    score = _mean(readings)
    readable = sum(isinstance(reading, float) for reading in readings)
    if score is None:
        return Verdict(
            outcome="invalid",
            note=f"none of {len(readings)} answers holds a score: {_reason(readings)}",
        )
    return Verdict(
        outcome="scored", score=score, note=f"{readable} of {len(readings)} answers hold a score"
    )


def _why_not(readings: Sequence[Reading]) -> Verdict | None:
    """Over budget when any call was not made, refused when the server answered to one that it will
    not.
    """
    for reading in sorted(readings, key=lambda one: not isinstance(one, Unaffordable)):
        if isinstance(reading, Refusal):
            return Verdict(
                outcome="over_budget" if isinstance(reading, Unaffordable) else "refused",
                note=reading.reason,
            )
    return None


def _reason(readings: Sequence[Reading]) -> str:
    """Why the first of the answers that cannot be read cannot."""
    return next((reading.reason for reading in readings if isinstance(reading, Unread)), "")


def _mean(readings: Sequence[Reading]) -> float | None:
    """Over those that could be read."""
    valid = [reading for reading in readings if isinstance(reading, float)]
    return sum(valid) / len(valid) if valid else None
