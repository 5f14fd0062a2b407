"""Texts in words, and words in runs.

    words("It's red.")            ->  ["it", "s", "red"]           letters and digits of any script
    ascii_words("It's rot.")      ->  ["it", "s", "rot"]           as ROUGE counts them
    words_and_marks("It's red.")  ->  ["it", "'", "s", "red", "."]
    ngrams(["a", "b", "c"], 2)    ->  [("a", "b"), ("b", "c")]
Test: pytest tests/tasks/test_words.py
"""

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def ascii_words(text: str) -> list[str]:
    """Lower-case runs of ASCII letters and digits; everything else parts them."""
    return _ASCII_WORD.findall(text.lower())


def words_and_marks(text: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    return _WORD_OR_MARK.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of `n` tokens."""
    return [tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]
