"""Recipes side by side on the embedded model, with rated outputs of real systems as the
preferences.

    python -m tests.benchmarks.quality.recipes RATED [--recipes rso,dpo,...] [--longest 1000] [--lake DIRECTORY] [--set key=value ...]
RATED: Parquet with instruction, generator, output and p_beats_baseline (how a judge rated the
output). Each instruction gives one pair of outputs; the reward model that labels, the one that
measures, and the offline recipes learn from them. Then `dapflow compare`, whose closing table is
printed. Killed and started again with the same lake it goes on; several at once on one lake share
what they have in common. The five that it runs if not told otherwise take an hour on two cores.

What came out (November 2026; 107 pairs, two iterations of at most 24,576 sampled tokens, 64
held-out prompts): that is too little to tell any of the five from the initial policy.
                         win rate               reward          KL     length
    initial policy                              -0.61                  39.1
    rso                  50.8 [38.9, 63.2] %    -0.10           1.7    39.9
    iterative-dpo        62.5 [49.2, 74.0] %    +0.29           5.6    45.2
    oaif                 43.8 [31.7, 57.0] %    -0.46           4.0    33.5
    dpo                  51.6 [38.7, 64.3] %    -0.04           2.6    45.7
    rejection-sampling   46.9 [34.6, 59.6] %    -0.62           1.2    35.2
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.quality.reward_rank import pairs_of

RECIPES = ("rso", "iterative-dpo", "oaif", "dpo", "rejection-sampling")
SETTINGS = (
    "prompts.held_out=64",
    "prompts.per_iteration=32",
    "sampling.max_tokens=48",
    "evaluation.sampling.max_tokens=48",
)


def main(
    rated: Path,
    recipes: list[str],
    longest: int,
    lake: str,
    iterations: int,
    budget: int,
    settings: list[str],
) -> int:
    """Write the preferences, run the comparison; its exit code."""
    pairs = [
        pair
        for pair in pairs_of(rated, apart=0.3)
        if max(len(pair.better), len(pair.worse)) <= longest
    ]
    file = Path(f"{lake}-rated.jsonl")
    rows = (
        {"prompt": pair.instruction, "chosen": pair.better, "rejected": pair.worse}
        for pair in pairs
    )
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    print(
        f"{len(pairs)} pairs of outputs of at most {longest:,} characters, one for each instruction: {file}",
        flush=True,
    )
    given = [f"--set={one}" for one in (f"preferences.source={file}", *SETTINGS, *settings)]
    words = [
        "compare",
        *recipes,
        "--iterations",
        str(iterations),
        "--budget-tokens",
        str(budget),
        "--lake",
        lake,
        *given,
    ]
    return subprocess.run(
        [sys.executable, "-m", "dapflow.flows.cli.main", *words], check=False
    ).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rated", type=Path)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument(
        "--longest",
        type=int,
        default=1_000,
        help="characters of an output that takes part: longer ones cost a small model more than they tell it",
    )
    parser.add_argument("--lake", default="lake")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument(
        "--budget-tokens", type=int, default=24_576, help="that each recipe may sample for training"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    if not arguments.rated.is_file():
        raise SystemExit(
            f"There is no file {arguments.rated}: this benchmark needs rated outputs of several systems."
        )
    given = (
        arguments.rated,
        arguments.recipes.split(","),
        arguments.longest,
        arguments.lake,
        arguments.iterations,
    )
    raise SystemExit(main(*given, arguments.budget_tokens, arguments.set))
