"""The numbered list that a policy is shown and goes on with, and what can be used of how it does.

Filters as in the code of Self-Instruct (arXiv 2212.10560, section 2.2 and
bootstrap_instructions.py), but for the letters' case, which stays. Test: pytest
tests/tasks/self_instruct/test_listing.py
"""

import re
import string
from collections.abc import Sequence

_ASK = (
    "Here is the beginning of a long list of tasks that people have given to an assistant. Go on "
    "with it: every task is a new one."
)
_NUMBER = re.compile(r"(?:^|\n)[ \t*#]*\d{1,3}[ \t]*[.):][ \t*]*")
_UNFIT = re.compile(
    r"\b(?:images?|graphs?|pictures?|files?|maps?|draw|plot|go to)\b", re.IGNORECASE
)  # not for a model of text
_FEWEST_WORDS, _MOST_WORDS = 4, 150


def listing(shown: Sequence[str]) -> str:
    """The list with these tasks, up to the number of the first that is missing."""
    lines = [
        f"{number}. {one_line(text).rstrip(':')}" for number, text in enumerate(shown, start=1)
    ]
    return "\n".join([_ASK, "", *lines, f"{len(shown) + 1}."])


def listed(reply: str) -> list[str]:
    """The tasks of a reply, each in one line and with a capital first. What comes before the first
    number is one too, unless it ends with a colon ("Here are some more:")."""
    first, *rest = _NUMBER.split(reply)
    found = [] if first.rstrip(" \n*").endswith(":") and rest else [first]
    return [text[:1].upper() + text[1:] for text in map(one_line, [*found, *rest]) if text]


def fault(task: str) -> str | None:
    """Why a task cannot be used, in a word, or None."""
    said = task.split()
    if not _FEWEST_WORDS <= len(said) <= _MOST_WORDS:
        return "too_short" if len(said) < _FEWEST_WORDS else "too_long"
    if _UNFIT.search(task):
        return "not_about_text"
    if task.startswith("Write a program"):
        return "program"
    if task[0] in string.punctuation:
        return "punctuation"
    return None if task[0].isascii() else "not_english"


def one_line(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())
