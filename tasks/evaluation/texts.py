"""What the answers of one side are like, without a judge: how long, how different from each other,
how often cut off or declined.

Values in, figures out. Test: pytest tests/tasks/evaluation/test_texts.py
"""

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from dapflow.storage.rows import CompletionRow
from dapflow.tasks.figures import Figure, growth, share
from dapflow.tasks.words import ngrams, words_and_marks

Rows = Sequence[CompletionRow]
_NONE = "no answer was sampled"
_NO_TOKENS = "the server does not tell the tokens of its answers"
# How an English answer begins that declines; other languages are not recognised.
_DECLINES = re.compile(
    r"^\W*(?:(?:i['’]?m|i am) (?:very |so |really )?(?:sorry|afraid|unable|not able)|i apologi[sz]e|sorry,? (?:but )?i|"
    r"(?:unfortunately,? )?i (?:can ?not|can['’]t|could not|won['’]t|will not|must decline|do not feel able)|as an ai\b)",
    re.IGNORECASE,
)


def described(before: Rows, after: Rows, seed: int) -> Iterator[Figure]:
    """The figures of both sides' completions, and by how much the answers have grown."""
    for side, rows in (("before", before), ("after", after)):
        yield from _side(side, rows)
    yield growth(
        "length_growth",
        lengths(before),
        lengths(after),
        seed,
        _NO_TOKENS if _answered(after) else _NONE,
    )


def _side(side: str, rows: Rows) -> Iterator[Figure]:
    answered = _answered(rows)
    tokens = [len(row["token_ids"]) for row in answered if row["token_ids"]]
    if tokens:
        yield Figure(name=f"length_{side}", value=fmean(tokens))
        for percent in (10, 50, 90):
            yield Figure(
                name=f"length_p{percent}_{side}", value=float(np.percentile(tokens, percent))
            )
    else:
        yield Figure(name=f"length_{side}", value=None, note=_NO_TOKENS if answered else _NONE)
    yield share(
        f"truncated_{side}",
        sum(row["finish_reason"] == "length" for row in answered),
        len(answered),
        _NONE,
    )
    yield share(
        f"refusals_{side}", sum(declines(row["text"]) for row in answered), len(answered), _NONE
    )
    silent = sum(row["finish_reason"] == "refused" or not row["text"].strip() for row in rows)
    yield share(f"not_answered_{side}", silent, len(rows), _NONE)
    texts = [row["text"] for row in answered]
    for n in (1, 2, 3):
        found = distinct(texts, n)
        yield Figure(
            name=f"distinct_{n}_{side}",
            value=found,
            note=f"no answer has {n} words" if found is None else None,
        )
    bleu = self_bleu(texts)
    yield Figure(
        name=f"self_bleu_{side}",
        value=bleu,
        note="it takes two answers with words" if bleu is None else None,
    )


def _answered(rows: Rows) -> Rows:
    return [row for row in rows if row["finish_reason"] != "refused"]


def lengths(rows: Rows) -> dict[str, float]:
    """The mean length of each prompt's answers in tokens, where the tokens are known."""
    found = defaultdict[str, list[int]](list)
    for row in _answered(rows):
        if row["token_ids"]:
            found[row["prompt_id"]].append(len(row["token_ids"]))
    return {prompt: fmean(tokens) for prompt, tokens in found.items()}


def declines(answer: str) -> bool:
    """Whether an English answer begins by declining."""
    return _DECLINES.match(answer) is not None


def distinct(texts: Sequence[str], n: int) -> float | None:
    """The share of all n-grams of words that are different from each other (distinct-n: arXiv
    1510.03055); None where there are none.

    It falls with the number of words, so compare only answers to the same prompts.
    """
    counts = Counter(gram for text in texts for gram in ngrams(words_and_marks(text), n))
    return len(counts) / counts.total() if counts else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """The mean BLEU-4 of each answer with all others as references (self-BLEU: arXiv 1802.01886): 1
    where all are the same.

    Precisions of two words and more count one match more than there is (Lin and Och, COLING 2004),
    so that none is 0. None where fewer than two answers have words. Takes time linear in the number
    of answers.
    """
    answers = sorted(found for text in texts if (found := words_and_marks(text)))
    if len(answers) < 2:
        return None
    logs = sum(np.log(_precisions(answers, n)) for n in (1, 2, 3, 4)) / 4
    by_length = sorted(map(len, answers))
    brevity = np.array([min(0.0, 1 - _closest(by_length, len(one)) / len(one)) for one in answers])
    return float(np.exp(logs + brevity).mean())


def _precisions(answers: Sequence[Sequence[str]], n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of each answer the share of its n-grams that the others have, each counted at most as often
    as in one of them.
    """
    counts = [Counter(ngrams(one, n)) for one in answers]
    most = defaultdict[tuple[str, ...], tuple[int, int]](
        lambda: (0, 0)
    )  # the two highest counts in any answer
    for one in counts:
        for gram, count in one.items():
            high, second = most[gram]
            most[gram] = (count, high) if count > high else (high, max(second, count))
    extra = 0 if n == 1 else 1
    return np.array([_matched(one, most, extra) for one in counts])


def _matched(
    own: Counter[tuple[str, ...]], most: Mapping[tuple[str, ...], tuple[int, int]], extra: int
) -> float:
    found = sum(
        min(count, most[gram][1] if count == most[gram][0] else most[gram][0])
        for gram, count in own.items()
    )
    total = own.total() + extra
    return max((found + extra) / total, math.exp(-20)) if total else 1.0


def _closest(ordered: Sequence[int], length: int) -> int:
    """The length nearest to an answer's own among the others'; the shorter one of two equally near."""
    place = bisect_left(ordered, length)
    others = [ordered[one] for one in (place - 1, place + 1) if 0 <= one < len(ordered)]
    return min(others, key=lambda other: (abs(other - length), other))
