"""Reading a judge's answer: a score or nothing. What cannot be read is never a score of zero, and never a label.

Test: pytest tests/tasks/judges/test_parsing.py
"""

import re

# A number after "Score:", bold or not; "5/5" and "3 out of 5" are the same scale, "8/10" is another and does not count.
_SCORE = re.compile(r"score[^\w-]{0,10}(?P<score>-?\d+(?:[.,]\d+)?)(?:\s*(?:/|out of)\s*(?P<scale>\d+))?(?![\d.]*\d)", re.IGNORECASE)
_MARKERS = re.compile(r"</?\s*(question|response)\s*>", re.IGNORECASE)


def parse_score(text: str, highest: float = 5.0) -> float | None:
    """The last "Score: x" of the text if it lies in [0, highest], else None (Self-Rewarding, arXiv 2401.10020, appendix)."""
    found = list(_SCORE.finditer(text))
    if not found:
        return None
    last = found[-1]
    if last["scale"] is not None and float(last["scale"]) != highest:
        return None
    score = float(last["score"].replace(",", "."))
    return score if 0 <= score <= highest else None


def fill(template: str, prompt: str, completion: str) -> str:
    """The judge's prompt. Markers inside the material are taken out, so that it cannot leave its place."""
    material = {"prompt": prompt, "completion": completion}
    return template.format(**{name: _without_markers(text) for name, text in material.items()})


def _without_markers(text: str) -> str:
    while _MARKERS.search(text):  # taking one out may join the halves of another
        text = _MARKERS.sub("", text)
    return text
