"""The programs that come along as judges: plain functions of the text. A new one is a function here
and a line in `programs.py`.

Test: pytest tests/tasks/judging/judges/test_program.py
"""

import json
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

# How a worked solution ends: "The answer is 12.", "Answer: 12", GSM8K's "#### 12", LaTeX's
# \boxed{12}.
_FINAL = re.compile(
    r"(?:\banswer(?:\s+is\b|\s*:)|####)(?P<line>(?:(?!\banswer\b)[^\n])*)|\\boxed\{(?P<boxed>[^{}]*)\}",
    re.IGNORECASE,
)
_SIGNS = "\\*_`$€£\"'“”‘’()[]{}:=.,;!? \t\n"


_POINT = re.compile(r"(?<![\w.,])\.(?=\d+$)")  # of ".5", which is half and not five


def shorter(prompt: str, completion: str) -> float:
    """Minus the number of words: the shorter of two answers wins."""
    return -float(len(completion.split()))


def on_topic(prompt: str, completion: str) -> float:
    """Share of the prompt's longer words that the completion takes up, in [0, 1]."""
    wanted = {word for word in prompt.lower().split() if len(word) > 3}
    return len(wanted & set(completion.lower().split())) / max(len(wanted), 1)


def valid_json(prompt: str, completion: str) -> float:
    """1 for a completion that is JSON from end to end, else 0."""
    try:
        json.loads(completion, parse_constant=_no_json)
    except ValueError:
        return 0.0
    return 1.0


def _no_json(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON, although Python reads it")


def matches(pattern: re.Pattern[str], prompt: str, completion: str) -> float:
    """1 for a completion in which the pattern occurs, else 0."""
    return float(pattern.search(completion) is not None)


def keywords(words: Sequence[str], prompt: str, completion: str) -> float:
    """The share of the words that the completion contains, in [0, 1], whatever their case."""
    said = completion.lower()
    return sum(word.lower() in said for word in words) / len(words)


def exact_answer(prompt: str, completion: str, answer: str) -> float:
    """1 for a completion whose last final answer ("Answer: x", "#### x", \\boxed{x}), or all of it,
    is the reference answer, else 0.

    Numbers are equal by value ("1,000" is "1000.0"); of texts, case, spacing and the signs around
    them do not count.
    """
    found = list(_FINAL.finditer(completion))
    said = completion if not found else found[-1]["line"] or found[-1]["boxed"] or ""
    return float(_plain(said) == _plain(answer))


def _plain(text: str) -> str | Decimal:
    """What is compared: a number where it is one, else the text without what does not count."""
    stripped = " ".join(_POINT.sub("0.", text.casefold().rstrip(_SIGNS)).strip(_SIGNS).split())
    try:
        number = Decimal(re.sub(r"(?<=\d),(?=\d{3}\b)", "", stripped))
    except InvalidOperation:
        return stripped
    return number if number.is_finite() else stripped
