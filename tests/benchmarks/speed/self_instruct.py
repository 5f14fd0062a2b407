"""ROUGE-L novelty of 20,000 candidates against a growing pool, beside the package rouge-score on
the same machine, and the same decisions.

Run: python -m tests.benchmarks.speed.self_instruct [--candidates 20000] [--sample 24] [--rounds 3]   (needs: pip install rouge-score)
Both run in one process. The package's rate is measured on a sample of the candidates, each against
the pool as it was when its turn came.
"""

import argparse
import importlib
import random
import re
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from dapflow.tasks.prompts.load import PROMPTS_FILE, SEEDS_FILE
from dapflow.tasks.prompts.overlap import Pool, rouge_l
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE
from dapflow.tasks.prompts.sources import read_source
from dapflow.tasks.words import ascii_words

_THRESHOLD = 0.7
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_PAIRS = 2000


def main(candidates: int, sample: int, rounds: int) -> None:
    """Print one line for each figure. Ends with an error where a decision differs."""
    try:
        package: Any = importlib.import_module("rouge_score.rouge_scorer")
    except ImportError:
        sys.exit("This compares with the package rouge-score: pip install rouge-score.")
    seeds = [record.text("instruction") for record in read_source("shipped", SEEDS_FILE)]
    texts = made_up(candidates)
    seconds, sizes, pool, closest = zip(*(grow(seeds, texts) for _ in range(rounds)), strict=True)
    ours, before, pool, closest = (
        statistics.median(map(sum, seconds)),
        sizes[0],
        pool[0],
        closest[0],
    )
    accepted = len(pool) - len(seeds)
    length = statistics.mean(len(ascii_words(text)) for text in texts)
    print(
        f"{candidates:,} candidates of {length:.0f} words on average, {accepted:,} accepted: the pool grows to {len(pool):,}"
    )
    last = statistics.median(sum(one[-candidates // 10 :]) for one in seconds) / (candidates // 10)
    print(
        f"here: {ours:.1f} s, {candidates / ours:,.0f} a second, the last tenth {1 / last:,.0f} a second (median of {rounds})",
        flush=True,
    )

    scorer = package.RougeScorer(["rougeL"], use_stemmer=False)
    chosen = sorted(random.Random(1).sample(range(candidates), sample))
    spent, pairs = 0.0, 0
    for done, place in enumerate(chosen, start=1):
        began = time.perf_counter()
        scores = [
            scorer.score(texts[place], other)["rougeL"].fmeasure for other in pool[: before[place]]
        ]
        spent, pairs = spent + time.perf_counter() - began, pairs + len(scores)
        best = max(scores)
        if (best > _THRESHOLD) != (closest[place] is not None) or (
            closest[place] and closest[place] != (scores.index(best), best)
        ):
            sys.exit(
                f"decided otherwise on candidate {place}: {best} there, {closest[place]} here: {texts[place]}"
            )
        print(f"\r{done} of {sample} by rouge-score", end="", file=sys.stderr)
    print(file=sys.stderr)
    theirs = spent / pairs * sum(before)
    print(
        f"rouge-score: {spent / pairs * 1e6:.0f} us a pair on {pairs:,} pairs, so {theirs:,.0f} s, {candidates / theirs:.2f} a second"
    )
    rejected = sum(closest[place] is not None for place in chosen)
    print(
        f"the same decisions, closest texts and scores on {sample} of them, {rejected} of which are not new"
    )
    rng = random.Random(2)
    for one, other in ((rng.choice(texts), rng.choice(texts)) for _ in range(_PAIRS)):
        assert rouge_l(one, other) == scorer.score(one, other)["rougeL"].fmeasure, (one, other)
    print(f"the same number, to the bit, on {_PAIRS:,} pairs")
    print(f"ratio: {theirs / ours:,.0f}")


def grow(
    seeds: Sequence[str], texts: Sequence[str]
) -> tuple[list[float], list[int], list[str], list[Any]]:
    """Seconds for each candidate, the pool's size before it, the pool in the end, and what was
    closest to each candidate, if too close.
    """
    pool, held = Pool(seeds, _THRESHOLD), list(seeds)
    seconds, sizes, closest = list[float](), list[int](), list[Any]()
    for text in texts:
        sizes.append(len(held))
        began = time.perf_counter()
        closest.append(pool.closest(text))
        if closest[-1] is None:
            pool.add(text)
        seconds.append(time.perf_counter() - began)
        if closest[-1] is None:
            held.append(text)
    return seconds, sizes, held, closest


def made_up(count: int) -> list[str]:
    """Sentences of the shipped prompts, tasks and answers with words exchanged, put in and taken
    out: from copies to something else.
    """
    records = [
        record for name in (PROMPTS_FILE, SEEDS_FILE) for record in read_source("shipped", name)
    ]
    texts = [record.text("prompt", "instruction") for record in records]
    for record in read_source("shipped", PREFERENCES_FILE):
        texts += [
            sentence
            for name in ("prompt", "chosen", "rejected")
            for sentence in _SENTENCE.split(record.text(name))
        ]
    said, rng, made = [text.split() for text in texts], random.Random(0), list[str]()
    every = [word for text in said for word in text]
    while len(made) < count:
        text = list(rng.choice(said))
        for _ in range(rng.randint(0, len(text))):
            place, kind = rng.randrange(len(text)), rng.random()
            if kind < 0.5:
                text[place] = rng.choice(every)
            elif kind < 0.75:
                text.insert(place, rng.choice(every))
            elif len(text) > 4:
                del text[place]
        made.append(" ".join(text))
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=20_000)
    parser.add_argument("--sample", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.candidates, arguments.sample, arguments.rounds)
