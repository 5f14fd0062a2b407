"""What all lines that are verdicts have in common: what may stand before and behind a verdict, and which of several decides.

Test: pytest tests/tasks/judges/test_parsing.py
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
    r"(?:no|not|nor|never|but|or|and|to|than|minus|plus)\b|.*(?:\b(?:or|if|unless|wait|actually|correction|instead|rather|depend\w*|would|could|might|"
    r"may|should|sorry|tie|equal|both|neither)\b|[→=≈~]|->)",
    re.IGNORECASE | re.DOTALL,
)
REVISED = re.compile(
    r"\b(?:wait|actually|reflection|second\s+thoughts?|again|correct\w*|revis\w+|reconsider\w*|final\w*|overall|total|sum|all\s+in\s+all|conclu\w+|"
    r"verdict|sorry|make\s+that|rather|instead|no)\b",
    re.IGNORECASE,
)
_MANY_WORDS = 4  # between two verdicts: less than that is a heading


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line that is a verdict, or, with value None, one that begins as a verdict and cannot be read."""

    place: int
    value: Any


def deciding(lines: Sequence[str], verdicts: Sequence[Line]) -> Line | None:
    """The last verdict; None where it cannot be read, or where another one stands before it with nothing said between the two."""
    if not verdicts or verdicts[-1].value is None:
        return None
    last = verdicts[-1]
    for earlier in verdicts[:-1]:
        between = [line for line in lines[earlier.place + 1 : last.place] if line]
        heading = bool(between) and len(" ".join(between).split()) < _MANY_WORDS  # of one part, and then of another
        if (heading or (not between and earlier.value != last.value)) and not REVISED.search(" ".join([*between, lines[last.place]])):
            return None
    return last


def member(members: dict[str, Any], keys: Sequence[str], read: Callable[[Any], Any]) -> Any:
    """What the one of these keys that is there says; None where it cannot be read or several differ, False where none is there."""
    values = [read(members[key]) for key in keys if key in members]
    if not values:
        return False
    return values[0] if all(value == values[0] for value in values) else None
