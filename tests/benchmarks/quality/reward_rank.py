"""Does a reward model with a head only rank the outputs of instructions that it has never seen?
python -m tests.benchmarks.quality.reward_rank RATED

RATED: Parquet with instruction, generator, output and p_beats_baseline (how a judge rated the
output). Each instruction gives one pair of outputs that are at least --apart apart; the
instructions are cut into five parts, and each part is ranked by a head that was trained on the
other four. Prints the share of pairs ranked as rated, that of preferring the longer output on the
same pairs, and the paired difference, with 95 % intervals over the instructions: on all pairs, and
on those whose lengths are close. Ten minutes a layer on two cores.
"""

import argparse
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dapflow.tasks.models.names import load, resolve
from dapflow.tasks.models.packed.features import answer_features, text_group
from dapflow.tasks.models.reward_head import Backbone
from dapflow.tasks.statistics import bootstrap_share, paired_difference
from dapflow.tasks.training.reward.pointwise import fit_head

_PARTS = 5
_CLOSE = 1.2  # lengths whose ratio is at most this


class Pair(NamedTuple):
    """Two outputs to an instruction, the one that was rated higher first."""

    instruction: str
    better: str
    worse: str

    @property
    def longer(self) -> float:
        """1 where the better one is longer, one half where they are equally long."""
        return float(np.sign(len(self.better) - len(self.worse)) / 2 + 0.5)

    @property
    def close(self) -> bool:
        """Whether their lengths are."""
        return max(len(self.better), len(self.worse)) <= _CLOSE * min(
            len(self.better), len(self.worse)
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rated", type=Path)
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument(
        "--layers",
        type=int,
        nargs="+",
        default=[0],
        help="which layers the head reads, one after the other; 0: all",
    )
    parser.add_argument("--instructions", type=int, help="at most so many")
    parser.add_argument(
        "--apart", type=float, default=0.3, help="least difference of a pair's ratings"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="ways to cut the instructions into parts"
    )
    arguments = parser.parse_args()
    if not arguments.rated.is_file():
        raise SystemExit(
            f"There is no file {arguments.rated}: this benchmark needs rated outputs of several systems."
        )
    pairs = pairs_of(arguments.rated, arguments.apart)[: arguments.instructions]
    print(
        f"{len(pairs)} instructions with a pair of outputs at least {arguments.apart} apart, {sum(pair.close for pair in pairs)} of like length"
    )
    loaded = load(resolve(arguments.model).path)
    base = Backbone(model=loaded.model, tokenizer=loaded.tokenizer)
    groups = [
        text_group(base.tokenizer, pair.instruction, (pair.better, pair.worse), str(n))
        for n, pair in enumerate(pairs)
    ]
    for layers in arguments.layers:
        started = time.perf_counter()
        features = torch.stack(answer_features(base.model, groups, layers)).double()
        tokens, seconds = sum(group.tokens for group in groups), time.perf_counter() - started
        print(f"layers {layers or 'all'}: {tokens:,} tokens read in {seconds:.0f} s", flush=True)
        for seed in range(arguments.seeds):
            right = ranked(features, seed)
            for what, some in (
                ("all pairs", range(len(pairs))),
                ("like length", [n for n, pair in enumerate(pairs) if pair.close]),
            ):
                print(
                    f"  seed {seed}, {what:<12} {compared([pairs[n] for n in some], [right[n] for n in some])}",
                    flush=True,
                )


def pairs_of(rated: Path, apart: float) -> list[Pair]:
    """One pair of each instruction that has one, drawn by a fixed seed. A system that says the same
    to everything takes no part.
    """
    rows = pq.read_table(rated).to_pylist()
    said = defaultdict[str, set[str]](set)
    for row in rows:
        said[row["generator"]].add(row["output"])
    of = defaultdict[str, list[tuple[float, str]]](list)
    for row in rows:
        if len(said[row["generator"]]) > 1 and row["output"].strip():
            of[row["instruction"]].append((row["p_beats_baseline"], row["output"]))
    rng, found = np.random.default_rng(0), list[Pair]()
    for instruction, outputs in sorted(of.items()):
        wide = [
            both for both in combinations(sorted(outputs), 2) if both[1][0] - both[0][0] >= apart
        ]
        if wide:
            (_, worse), (_, better) = wide[rng.integers(len(wide))]
            found.append(Pair(instruction, better, worse))
    return [found[n] for n in rng.permutation(len(found))]


def ranked(features: Tensor, seed: int) -> list[float]:
    """Whether each pair is ranked as rated by a head that was not trained on its instruction.
    features fp64 [pairs, 2, width].
    """
    part = torch.from_numpy(np.random.default_rng(seed).permutation(len(features)) % _PARTS)
    right = torch.zeros(len(features))
    for number in range(_PARTS):
        train = features[part != number]
        head = fit_head(train, torch.zeros(len(train), dtype=torch.float64)).head
        scores = head.scores(features[part == number])
        right[part == number] = (scores[:, 0] > scores[:, 1]).float()
    return right.tolist()


def compared(pairs: list[Pair], right: list[float]) -> str:
    """The accuracy beside that of the longer output, and how far the one is above the other."""
    longer = [pair.longer for pair in pairs]
    shares = (bootstrap_share(values, seed=0) for values in (right, longer))
    head, length = (f"{mean:.1%} [{low:.1%}, {high:.1%}]" for mean, low, high in shares)
    names = [pair.instruction for pair in pairs]
    mean, low, high = paired_difference(
        dict(zip(names, longer, strict=True)), dict(zip(names, right, strict=True)), seed=0
    )
    return f"head {head}, longer {length}, difference {mean:+.1%} [{low:+.1%}, {high:+.1%}]"


if __name__ == "__main__":
    main()
