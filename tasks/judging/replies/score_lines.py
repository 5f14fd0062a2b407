"""Lines of a reply that are a score, or the grade of a criterion, and nothing else: `Score: 7/10`,
`brief: 7`, or JSON of the same.

Test: pytest tests/tasks/judging/replies/test_parsing.py
"""

import re
from functools import cache
from typing import Any

from dapflow.tasks.judging.replies.grammar import (
    CLOSE,
    IS,
    LEAD,
    OPEN,
    REASON,
    STOP,
    UNFIT_REASON,
    member,
)
from dapflow.tasks.judging.replies.reply_lines import json_object

SCORE_NAME = r"(?:(?:the|my)\s+)?(?:(?:final|overall|total)\s+)?(?:score|rating|grade)"
_NUMBER = (
    rf"(?!<\s*[0-9.,]+\s*(?:[^0-9.,>\s]|$)){OPEN}(?P<score>[0-9]+(?:[.,][0-9]{{1,2}})?){CLOSE}(?:\s*(?:points?|pts?|stars?))?"
    rf"(?:\s*(?:/|out\s+of|of)\s*(?P<scale>[0-9]+)|\s*\((?:out\s+)?of\s+(?P<scale_>[0-9]+)\))?{CLOSE}(?:\s*(?:points?|pts?|stars?))?"
)
_RANGE = r"(?:\s*\((?P<range>[^()\n]{1,30})\))?"
_BULLET = r"(?:[0-9]{1,2}[.)]\s+)?"
# `Score (style): 4` is of one side only
_SCALE = r"(?:\s*\((?P<range>[^()\n]{0,20}[0-9][^()\n]{0,10})\))?"
_NAMED_SCORE = re.compile(
    rf"{LEAD}{_BULLET}(?:{SCORE_NAME}){_SCALE}(?:\s+is)?\s*[:=]?\s*{_NUMBER}(?:{STOP}|{REASON})",
    re.IGNORECASE,
)
_BEGUN_SCORE = re.compile(
    rf"{LEAD}(?:{SCORE_NAME}){_RANGE}(?:\s*(?:is\s*)?[:=]|\s+(?:is\s+|of\s+)?\W*[0-9])",
    re.IGNORECASE,
)
_GRADE = re.compile(
    rf"[^:=]{{1,40}}[:=]\s*{_NUMBER.replace('<score>', '<a>').replace('<scale', '<b')}{STOP}",
    re.IGNORECASE,
)
_SCORE_KEYS = (
    "score",
    "rating",
    "grade",
    "final_score",
    "overall_score",
    "total_score",
    "overall",
    "total",
)
_SCALE_KEYS = ("out_of", "scale", "max", "max_score", "maximum")


def score_of(line: str, highest: float) -> Any:
    """The number; None for what begins as a score and cannot be read, False for a line that is
    none.
    """
    if (members := json_object(line)) is not None:
        scale = next((members[key] for key in _SCALE_KEYS if key in members), highest)
        return member(
            members,
            _SCORE_KEYS,
            lambda value: _json_number(value, highest) if scale == highest else None,
        )
    found = _NAMED_SCORE.fullmatch(line)
    if found is None:
        return None if _BEGUN_SCORE.match(line) else False
    return _number(found, highest)


def grade_of(line: str, name: str, highest: float) -> Any:
    """The grade of a criterion; None for what begins as one and cannot be read, False for a line
    that is none.
    """
    if (members := json_object(line)) is not None:
        return member(members, (name.lower(),), lambda value: _json_number(value, highest))
    named, begun = _criterion(name)
    pieces = re.split(r"[,;|]\s+", line)
    for piece in pieces if all(map(_GRADE.fullmatch, pieces)) else [line]:
        if found := named.fullmatch(piece):
            return _number(found, highest)
    return None if begun.match(line) else False


def _number(found: re.Match[str], highest: float) -> float | None:
    """The number that a line holds; None on another scale, or where what follows is no reason."""
    scales = [
        float(scale)
        for scale in (found["scale"], found["scale_"], _upper(found["range"]))
        if scale is not None
    ]
    reason = found["reason"]
    if any(scale != highest for scale in scales) or (
        reason is not None and (UNFIT_REASON.match(reason) or re.search(r"[0-9]", reason))
    ):
        return None
    return float(found["score"].replace(",", "."))


def _upper(said: str | None) -> str | None:
    """The upper end of a scale that stands in brackets behind the name: (0-5), (out of 5), (max 5)."""
    numbers = re.findall(r"[0-9]+", said or "")
    return numbers[-1] if numbers else None


def _json_number(value: Any, highest: float) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = (
        re.fullmatch(rf"{_NUMBER}(?P<range>)(?P<reason>)?", value.strip())
        if isinstance(value, str)
        else None
    )
    return None if found is None else _number(found, highest)


@cache
def _criterion(name: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A line that is the grade of a criterion, and what begins as one."""
    begun = rf"{_BULLET}{re.escape(name)}{_RANGE}"
    named = re.compile(rf"{begun}{IS}(?:{_NUMBER}(?:{STOP}|{REASON}))", re.IGNORECASE)
    return named, re.compile(rf"{begun}\s*(?:is\s*)?[:=]", re.IGNORECASE)
