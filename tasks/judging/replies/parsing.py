"""Reading a judge's reply: a score, a choice, or nothing. What cannot be read is never a score of
zero, and never a label.

The last line that is a verdict and nothing but a verdict decides: `Better: 1`, `Response 2`, `tie`,
`Score: 7/10`, or JSON of the same; a reason may follow it. Lines without a name, `1`, are verdicts
at the end or the beginning of a reply only. Where no line is one, a sentence decides whose subject
cannot be mistaken (claims.py): `Response 1 is better.` A line that begins as a verdict and cannot
be read as one, a text behind a verdict that names another, and two verdicts that differ, unless a
word of revision stands between them, leave nothing. Test: pytest
tests/tasks/judging/replies/test_parsing.py
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dapflow.tasks.judging.replies.choice_lines import (
    CHOICE_NAME,
    bare_choice,
    choice_of,
    names_another,
)
from dapflow.tasks.judging.replies.claims import claimed, takes_back, withdraws
from dapflow.tasks.judging.replies.grammar import LEAD, MANY_WORDS, REVISED, Line, deciding
from dapflow.tasks.judging.replies.reply_lines import own_lines
from dapflow.tasks.judging.replies.score_lines import SCORE_NAME, grade_of, score_of

FIRST, TIE, SECOND = 1.0, 0.5, 0.0
_VALUES = {"1": FIRST, "2": SECOND, "tie": TIE}
_NAME_ALONE = re.compile(rf"{LEAD}(?:{CHOICE_NAME}|{SCORE_NAME})\s*:", re.IGNORECASE)
_SCORE_SAID = re.compile(
    r"\b(?:score|rating|grade)\b\W{0,4}(?:is|of|:|=)?\W{0,4}[0-9]|^\W*(?:out\s+of|of|/)\s*[0-9]|^\W*[0-9]+(?:[.,][0-9]+)?\W*$",
    re.IGNORECASE,
)
_SCALE_SAID = re.compile(
    r"\bscale\s+(?:of|from)\s+(?:[0-9]+\s*(?:to|-|–)\s*)?([0-9]+)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which response is better. first: 1, 0, or 0.5 for a tie that the judge names; line: where the
    reply says so.
    """

    first: float
    line: str


def parse_score(text: str, highest: float = 5.0, lowest: float = 0.0) -> float | None:
    """The score that decides if it lies in [lowest, highest], else None (Self-Rewarding, arXiv
    2401.10020, appendix).
    """
    lines = _joined(own_lines(text))
    last = deciding(lines, _verdicts(lines, partial(score_of, highest=highest)))
    if (
        last is None
        or any(map(_names_a_score, lines[last.place + 1 :]))
        or withdraws("\n".join(lines[last.place + 1 :]))
    ):
        return None
    if any(float(scale) != highest for scale in _SCALE_SAID.findall("\n".join(lines))):
        return None
    return last.value if lowest <= last.value <= highest else None


def parse_criteria(
    text: str, names: Iterable[str], highest: float, lowest: float
) -> dict[str, float] | None:
    """The grade of each criterion, from lines that are nothing but its name and its grade; None
    when one is missing or off the scale:
    half a rubric is no score."""
    lines = own_lines(text)
    grades: dict[str, float] = {}
    for name in names:
        grade = partial(grade_of, name=name, highest=highest)
        last = deciding(lines, _verdicts(lines, grade))
        if last is None or not lowest <= last.value <= highest:
            return None
        behind = lines[last.place + 1 :]
        if withdraws("\n".join(behind)) or any(
            name.lower() in line.lower() and _names_a_score(line) for line in behind
        ):
            return None
        grades[name] = last.value
    return grades


def parse_choice(text: str) -> float | None:
    """The probability that the first is better: 1, 0, or 0.5 for a tie that the judge names; None
    for what cannot be read.
    """
    choice = read_choice(text)
    return None if choice is None else choice.first


def read_choice(text: str) -> Choice | None:
    """The same, with the line that says so."""
    lines = _joined(own_lines(text))
    if verdicts := _verdicts(lines, choice_of):
        last = deciding(lines, verdicts)
        if last is None or takes_back("\n".join(lines[last.place + 1 :]), last.value):
            return None
        if names_another(next(line for line in reversed(lines) if line), last.value):
            return None
        return Choice(first=_VALUES[last.value], line=lines[last.place])
    if bare := bare_choice(lines):
        return Choice(first=_VALUES[bare[0]], line=lines[bare[1]])
    return _claimed_choice(lines)


def _claimed_choice(lines: Sequence[str]) -> Choice | None:
    label = claimed("\n".join(lines))
    if label is None:
        return None
    place = next(
        place for place, line in enumerate(lines) if claimed(line) == label or label in line
    )
    heading = next((line for line in reversed(lines[:place]) if line), "")
    if (
        heading
        and len(heading.split()) < MANY_WORDS
        and heading[-1] not in ".!?"
        and not REVISED.search(heading)
    ):
        return None  # of one part of several: "Style", and then who is better there
    return Choice(first=_VALUES[label], line=lines[place])


def _verdicts(lines: Sequence[str], value_of: Callable[[str], Any]) -> list[Line]:
    return [
        Line(place=place, value=value)
        for place, line in enumerate(lines)
        if (value := value_of(line)) is not False
    ]


def _names_a_score(line: str) -> bool:
    """Whether a line behind a score gives another one, or its scale."""
    return bool(_SCORE_SAID.search(line) or (REVISED.search(line) and re.search(r"[0-9]", line)))


def _joined(lines: Sequence[str]) -> list[str]:
    """A name that stands alone on its line together with what follows it."""
    joined: list[str] = []
    for line in lines:
        if (
            line
            and joined
            and _NAME_ALONE.fullmatch(
                next((earlier for earlier in reversed(joined) if earlier), "")
            )
        ):
            while not joined[-1]:
                joined.pop()
            joined[-1] = f"{joined[-1]} {line}"
        else:
            joined.append(line)
    return joined
