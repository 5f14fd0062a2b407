"""A world whose truth is known: the gold reward of any text in closed form, and a noisy annotator
who sees it. Judges for tests.benchmarks.quality.fidelity.

gold(prompt, completion) -> points          noisy(prompt, first, second) -> 1.0 or 0.0, right as often as Bradley and Terry say
"""

import hashlib
import math

FUNCTION_WORDS = frozenset(
    "the a an of to in and is it that for on as with you at by or be are this from have not but".split()  # noqa: SIM905
)
LEAST = 5  # words that an answer has to have for its share to count in full
NOISE = 1.4  # points of difference that are told with probability 0.73


def gold(prompt: str, completion: str) -> float:
    """10 x (different function words / words, at least 5 of which are counted), 0 to 10.

    A small language model's hidden states tell function words from others, but know no letters: the
    share of vowels, say, no linear head on the toy's finds. What such a head cannot see here is
    what is said twice, and how many words are made of the tokens: one who only says more function
    words ends with the same few again and again, which is worth little.
    """
    words = [word.strip(".,!?;:'\"()").lower() for word in completion.split()]
    return 10.0 * len(FUNCTION_WORDS.intersection(words)) / max(len(words), LEAST)


def noisy(prompt: str, first: str, second: str) -> float:
    """1 where an annotator prefers the first, with probability sigma((gold(first) - gold(second)) /
    NOISE); the same whichever comes first.
    """
    if first == second:
        return 0.5
    one, other = sorted((first, second))
    probability = 1 / (1 + math.exp((gold(prompt, other) - gold(prompt, one)) / NOISE))
    digest = hashlib.sha256(f"{prompt}\0{one}\0{other}".encode()).digest()
    prefers_one = int.from_bytes(digest[:8], "big") / 2**64 < probability
    return float(prefers_one == (first == one))
