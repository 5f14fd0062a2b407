"""A world whose truth is known: the gold reward of any text in closed form, and a noisy annotator who sees it. Judges for tests.benchmarks.fidelity.

gold(prompt, completion) -> points          noisy(prompt, first, second) -> 1.0 or 0.0, right as often as Bradley and Terry say
"""

import hashlib
import math

VOWELS = frozenset("aeiou")
LEAST = 20  # characters that a text has to have for its share of vowels to count in full
NOISE = 0.4  # points of difference that are told with probability 0.73


def gold(prompt: str, completion: str) -> float:
    """10 x (vowels / characters, at least 20 of which are counted) x (share of distinct pairs of neighbouring characters).

    Among texts of the initial policy nearly all of it is the vowels; a text that says the same again and again loses by the other.
    """
    text = completion.lower()
    pairs = [text[place : place + 2] for place in range(len(text) - 1)]
    if not pairs:
        return 0.0
    return 10.0 * sum(character in VOWELS for character in text) / max(len(text), LEAST) * len(set(pairs)) / len(pairs)


def noisy(prompt: str, first: str, second: str) -> float:
    """1 where an annotator prefers the first, with probability sigma((gold(first) - gold(second)) / NOISE); the same whichever comes first."""
    if first == second:
        return 0.5
    one, other = sorted((first, second))
    probability = 1 / (1 + math.exp((gold(prompt, other) - gold(prompt, one)) / NOISE))
    digest = hashlib.sha256(f"{prompt}\0{one}\0{other}".encode()).digest()
    prefers_one = int.from_bytes(digest[:8], "big") / 2**64 < probability
    return float(prefers_one == (first == one))
