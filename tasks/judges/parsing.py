"""Reading a judge's answer: a score, a choice, or nothing. What cannot be read is never a score of zero, and never a label.

Test: pytest tests/tasks/judges/test_parsing.py
"""

import re
from collections.abc import Iterable

# A number after a name and a colon, bold or not; "5/5" and "3 out of 5" are the same scale, "8/10" is another and does not count. Of
# "Score (0-5): 4" the number after the colon is meant, and "4-5", "3 or 4", "1+1=2" and "80%" are no score.
_NUMBER = (
    r"(?:\s*\([^()\n]{1,30}\)(?=\W{0,4}[:=]))?[^\w-]{0,10}(?P<score>-?\d+(?:[.,]\d+)?)"
    r"(?:\s*(?:/|out of)\s*(?P<scale>\d+)|(?![ \t]*(?:[-–—+]|to\b|or\b|and\b)[ \t]*\d))(?![\d.]*\d|[ \t]*%|e\d)"
)
_SCORE = re.compile("score" + _NUMBER, re.IGNORECASE)
_WHICH = r"(?:the\s+)?(?:(?:response|answer|option|number)\W{0,3})?(?P<choice>[12]|tie|equal|neither|both)"
_BETTER = re.compile(r"better[^\w-]{0,10}" + _WHICH + r"(?![\w./,-]*\w|[ \t]*(?:or|and|,|/|&)[ \t]*[12]\b)", re.IGNORECASE)
_BARE = re.compile(r"[^\w-]*" + _WHICH + r"(?:\s+is\s+better)?[^\w-]*", re.IGNORECASE)
FIRST, TIE, SECOND = 1.0, 0.5, 0.0


def parse_score(text: str, highest: float = 5.0, lowest: float = 0.0) -> float | None:
    """The last "Score: x" of the text if it lies in [lowest, highest], else None (Self-Rewarding, arXiv 2401.10020, appendix)."""
    return _on_scale(list(_SCORE.finditer(text)), highest, lowest)


def parse_criteria(text: str, names: Iterable[str], highest: float, lowest: float) -> dict[str, float] | None:
    """The last "name: x" of each criterion; None when one is missing or off the scale: half a rubric is no score."""
    found: dict[str, float] = {}
    for name in names:
        score = _on_scale(list(re.finditer(r"\b" + re.escape(name) + _NUMBER, text, re.IGNORECASE)), highest, lowest)
        if score is None:
            return None
        found[name] = score
    return found


def parse_choice(text: str) -> float | None:
    """The probability that the first is better: 1, 0, or 0.5 for a tie that the judge names. The last "Better: 1", or an answer that is
    nothing but a choice; else None."""
    said = list(_BETTER.finditer(text))
    last = said[-1] if said else _BARE.fullmatch(text)
    return None if last is None else {"1": FIRST, "2": SECOND}.get(last["choice"], TIE)


def _on_scale(found: list[re.Match[str]], highest: float, lowest: float) -> float | None:
    if not found:
        return None
    last = found[-1]
    if last["scale"] is not None and float(last["scale"]) != highest:
        return None
    score = float(last["score"].replace(",", "."))
    return score if lowest <= score <= highest else None
