"""What all lines that are verdicts have in common: what may stand before and behind a verdict, and
which of several decides.

Test: pytest tests/tasks/judging/replies/test_parsing.py
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LEAD = (
    r"(?:(?:so|thus|therefore|hence|no|wait|actually|overall|finally|correction|on\s+(?:reflection|second\s+thoughts?|balance)|all\s+in\s+all|"
    r"in\s+(?:sum|summary|conclusion|total|short|the\s+end)|to\s+(?:sum\s+up|conclude)|(?:(?:my|final)\s+)*(?:verdict|answer|decision|conclusion|"
    r"result|judge?ment))\s*[,:]\s*)*"
)
IS = r"(?:\s*(?:is\s*)?[:=]\s*|\s+is\s+)"
OPEN, CLOSE = r"[<\[({\"'“$]*", r"[>\])}\"'”$]*"
REASON = r"(?:\s*(?:[,;:.–—(-]\s*|\b(?:because|since|as)\b\s*)(?P<reason>\D.*))?"
STOP = r"\s*[.!]?"
UNFIT_REASON = re.compile(  # what turns the verdict before it into none
    r"(?:no|not|nor|never|but|or|and|to|than|minus|plus|says?|said|according)\b"
    r"|(?:the\s+)?(?:response|answer|it|text|prompt|user)\s+(?:itself\s+)?(?:demands?|says|asks|instructs|requests|claims|wants)\b|.*(?:\b(?:or|if|unless|wait|actually|correction|instead|rather|depend\w*|would|could|might|"
    r"may|should|sorry|tie|equal|both|neither)\b|[→=≈~]|->)",
    re.IGNORECASE | re.DOTALL,
)
REVISED = re.compile(
    r"\b(?:wait|actually|reflection|second\s+thoughts?|again|correct(?:ion|ed|ing)|i\s+mean|meant|edit|revis\w+|reconsider\w*|final\w*|overall|total|sum|all\s+in\s+all|conclu\w+|"
    r"verdict|sorry|make\s+that|rather|instead|no)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"(?:if(?!\s+i\b)|unless|were|had|should|assuming|suppos\w+|provided)\b.*(?:[:,]|\bthen)$",
    re.IGNORECASE,
)
_PART = re.compile(
    r"(?:for|in|on|as)\s(?!(?:conclusion|summary|the\s+(?:end|whole)|balance|reflection|th(?:is|at|ese|ose)\b)).*:$",
    re.IGNORECASE,
)
MANY_WORDS = 4  # between two verdicts: less than that is a heading


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line that is a verdict, or, with value None, one that begins as a verdict and cannot be
    read.
    """

    place: int
    value: Any


def deciding(lines: Sequence[str], verdicts: Sequence[Line]) -> Line | None:
    """The last verdict; None where it cannot be read, or where one that differs stands before it
    and nothing between the two says that it is revised."""
    if not verdicts or verdicts[-1].value is None:
        return None
    last = verdicts[-1]
    before = next((line for line in reversed(lines[: last.place]) if line), "")
    places = {verdict.place for verdict in verdicts}
    if _CONDITION.match(before) or (
        _PART.match(before) and any(verdict.value != last.value for verdict in verdicts)
    ):
        return None
    for earlier in verdicts[:-1]:
        between = [
            lines[place]
            for place in range(earlier.place + 1, last.place)
            if lines[place] and place not in places
        ]
        heading = (
            bool(between) and len(" ".join(between).split()) < MANY_WORDS
        )  # of one part, and then of another
        alike = not between or _name(lines[earlier.place]) == _name(lines[last.place])
        if (heading or (alike and earlier.value != last.value)) and not REVISED.search(
            " ".join([*between, lines[last.place]])
        ):
            return None
    return last


def _name(line: str) -> str:
    """What stands before the value of a verdict."""
    return re.split(r"[:=]|\sis\s", line)[0].strip().lower()


def member(members: dict[str, Any], keys: Sequence[str], read: Callable[[Any], Any]) -> Any:
    """What the one of these keys that is there says; None where it cannot be read or several
    differ, False where none is there.
    """
    values = [read(members[key]) for key in keys if key in members]
    if not values:
        return False
    return values[0] if all(value == values[0] for value in values) else None
