"""Win rates against the figures that AlpacaEval 2 has published.

python -m tests.benchmarks.quality.winrate RATED BASELINE     the judged outputs and the baseline's, as Parquet:
    RATED has instruction, generator, output, p_beats_baseline; BASELINE has instruction, baseline
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from dapflow.tasks.evaluation.winrate.comparisons import Comparison, Comparisons
from dapflow.tasks.evaluation.winrate.rates import Result, win_rates

# Raw and length-controlled win rate:
# docs/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv of tatsu-lab/alpaca_eval.
PUBLISHED = {
    "NullModel": (76.92, 86.46), "FuseChat-Llama-3.1-8B-Instruct": (63.33, 65.39), "FuseChat-Llama-3.2-3B-Instruct": (51.30, 54.00),
    "claude-instant-1.2": (16.13, 25.61), "humpback-llama2-70b": (10.12, 16.25), "openbuddy-llama2-70b-v10.1": (8.10, 12.57),
    "gpt-3.5-turbo-1106_concise": (7.42, 15.77), "jina-chat": (7.79, 15.87), "gemma-7b-it": (6.94, 10.43),
    "vicuna-13b-v1.5": (6.72, 10.48), "openbuddy-llama2-13b-v11.1": (6.17, 9.16), "vicuna-13b": (5.83, 9.22),
    "oasst-rlhf-llama-33b": (6.30, 7.97), "minotaur-13b": (5.74, 11.47), "nous-hermes-13b": (5.41, 9.72), "vicuna-7b-v1.5": (4.80, 7.62),
    "baize-v2-13b": (4.59, 7.01), "phi-2-sft": (3.98, 5.85), "vicuna-7b": (4.16, 6.28), "gpt4_gamed": (3.74, 12.19),
    "alpaca-farm-ppo-sim-gpt4-20k": (3.45, 7.12), "falcon-40b-instruct": (3.34, 5.61), "oasst-sft-pythia-12b": (1.79, 3.27),
}  # fmt: skip


def published(rated: Path, baseline: Path) -> None:
    """Ours beside the published figures: all systems at once, without difficulty, one at a time,
    and on fewer instructions.
    """
    theirs = {row["instruction"]: row["baseline"] for row in pq.read_table(baseline).to_pylist()}
    rows = [
        Comparison(
            system=row["generator"],
            instruction=row["instruction"],
            answer=hash(row["output"]),
            delta=len(row["output"]) - len(theirs[row["instruction"]]),
            preference=row["p_beats_baseline"],
        )
        for row in pq.read_table(rated).to_pylist()
        if row["instruction"] in theirs
    ]
    started = time.perf_counter()
    found = win_rates(Comparisons(rows=rows))
    print(
        f"{found.n:,} rows, {found.prompts} instructions, {len(found.systems)} systems: {time.perf_counter() - started:.1f} s"
    )
    print(f"{'system':<32} {'raw':>6} {'published':>9} {'controlled':>10} {'published':>9}")
    for name, (raw, controlled) in PUBLISHED.items():
        if (one := found.systems.get(name)) is not None:
            mark = "  suspect" if one.suspect else ""
            print(
                f"{name:<32} {one.win_rate:6.1f} {raw:9.1f} {one.length_controlled_win_rate or np.nan:10.1f} {controlled:9.1f}{mark}"
            )
    there = {name: figures for name, figures in PUBLISHED.items() if name in found.systems}
    inside = [
        found.systems[name].win_rate_low <= raw <= found.systems[name].win_rate_high
        for name, (raw, _) in there.items()
    ]
    print(f"published raw rate inside our raw interval: {sum(inside)} of {len(inside)}")
    _agreement("all at once", found)
    _agreement(
        "without difficulty", win_rates(Comparisons(rows=rows), difficulty=False, samples=50)
    )
    alone = [
        win_rates(Comparisons(rows=[row for row in rows if row.system == name]), samples=50)
        for name in there
    ]
    _agreement("one at a time", *alone)
    instructions = sorted({row.instruction for row in rows})
    for seed in range(3):
        drawn = set(np.random.default_rng(seed).choice(instructions, 200, replace=False))
        _agreement(
            "200 instructions",
            win_rates(
                Comparisons(rows=[row for row in rows if row.instruction in drawn]), samples=50
            ),
        )


def _agreement(what: str, *results: Result) -> None:
    ours = {
        name: one for result in results for name, one in result.systems.items() if name in PUBLISHED
    }
    raw = np.array([one.win_rate for one in ours.values()])
    controlled = np.array(
        [one.length_controlled_win_rate for one in ours.values()], dtype=np.float64
    )
    their_raw, their_controlled = np.array([PUBLISHED[name] for name in ours]).T
    errors = abs(controlled - their_controlled)
    print(
        f"{what:<20} length-controlled: rank correlation {spearmanr(controlled, their_controlled).statistic:.3f},"
        f" mean error {errors.mean():.2f} points, largest {errors.max():.1f} ({list(ours)[int(errors.argmax())]});"
        f" raw: {spearmanr(raw, their_raw).statistic:.3f}, {abs(raw - their_raw).mean():.2f}",
        flush=True,
    )


def main() -> None:
    """Compare, where there is what it takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    if len(arguments.files) == 2 and all(file.is_file() for file in arguments.files):
        published(*arguments.files)
    else:
        print(
            "Skipped: give the judged outputs (RATED) and the baseline's answers (BASELINE), two Parquet files that are there."
        )


if __name__ == "__main__":
    main()
