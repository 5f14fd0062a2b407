"""How much of two texts is the same: ROUGE-L, one text against another, or against a pool that
grows.

    rouge_l("Name three fruits.", "Name three red fruits.")  ->  0.857   (2 x 3 / (3 + 4))
    pool = Pool(seeds); pool.closest("Name three red fruits.")  ->  Overlap(place=12, score=0.857)
As of the package rouge-score without stemming (Lin 2004, https://aclanthology.org/W04-1013), the
same floating-point number, some thousand times faster: python -m
tests.benchmarks.speed.self_instruct. Test: pytest tests/tasks/prompts/test_overlap.py
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import LCSseq

from dapflow.tasks.words import ascii_words

_SKIPPED = (
    0.25  # of a text's words, the commonest: they tell little, and their postings are the longest
)


def rouge_l(one: str, other: str) -> float:
    """ROUGE-L F1 of two texts, 0 to 1: of their longest common subsequence of words. 0 where one
    has no words.
    """
    return rouge_l_of(ascii_words(one), ascii_words(other))


def rouge_l_of(one: Sequence[str], other: Sequence[str]) -> float:
    """The same of two texts in words."""
    return _f1(LCSseq.similarity(one, other), len(one), len(other))


class Overlap(NamedTuple):
    """Which text of a pool, by its place, and its ROUGE-L F1 with the one asked about."""

    place: int
    score: float


class Pool:
    """Texts by their places, from 0, and an index of their words.

    A longest common subsequence takes no more of a word than both texts have. So a text is compared
    word by word only with those that share enough words; whether they do is found out for the whole
    pool at once. What that takes grows with the pool: 0.3 ms a text at 15,000 short ones.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        threshold: float = 0.7,
        split: Callable[[str], list[str]] = ascii_words,
    ) -> None:
        """threshold: overlaps up to it, and at it, are none. split: a text into words."""
        self.threshold = threshold
        self._split = split
        self._texts: list[list[str]] = []
        self._lengths = array("i")
        self._postings: defaultdict[tuple[str, int], array[int]] = defaultdict(lambda: array("i"))
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Put a text at the next place."""
        said = self._split(text)
        for key in _counted(said):
            self._postings[key].append(len(self._texts))
        self._texts.append(said)
        self._lengths.append(len(said))

    def closest(self, text: str) -> Overlap | None:
        """The text that overlaps most, the first of equals, if it does by more than the threshold."""
        said, best = self._split(text), None
        for place in self._near(said):
            score = rouge_l_of(said, self._texts[place])
            if score > (best.score if best else self.threshold):
                best = Overlap(place, score)
        return best

    def _near(self, said: list[str]) -> list[int]:
        """Places of the texts that share enough words: 2 x shared / (length + other length) may
        exceed the threshold.
        """
        found = sorted(
            (self._postings[key] for key in _counted(said) if key in self._postings), key=len
        )
        if not found:
            return []
        skipped = min(int(_SKIPPED * len(said)), len(found) - 1)
        rare = [np.frombuffer(places, dtype=np.intc) for places in found[: len(found) - skipped]]
        shared = np.bincount(np.concatenate(rare), minlength=len(self)) + skipped
        needed = (
            self.threshold / 2 * (np.frombuffer(self._lengths, dtype=np.intc) + len(said)) - 1e-6
        )
        return np.flatnonzero(shared >= needed).tolist()


def _counted(said: list[str]) -> list[tuple[str, int]]:
    """Each word with how often it has been there before: "a b a" -> (a, 0), (b, 0), (a, 1)."""
    before: defaultdict[str, int] = defaultdict(int)
    keys = []
    for word in said:
        keys.append((word, before[word]))
        before[word] += 1
    return keys


def _f1(common: int, length: int, other: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / length, common / other
    return 2 * precision * recall / (precision + recall)
