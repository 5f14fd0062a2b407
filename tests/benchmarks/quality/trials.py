"""A recipe on the real model, with several seeds and settings, as one table: does it get better, and
by which settings.

    python -m tests.benchmarks.quality.trials rso --seeds 10
    python -m tests.benchmarks.quality.trials rso --seeds 3 --aside --vary training.learning_rate=5e-6,1e-5,2e-5 --vary training.warmup_steps=0,4
All go into one lake (--lake), so a command that was stopped goes on where it was, and what settings
have in common is done once. --aside measures on prompts of the training split, for a choice that
the held-out prompts must not know of. Minutes a run; no part of the tests.
"""

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from dapflow.flows.recipes.methods import recipe_named
from dapflow.tasks.prompts.load import PROMPTS_FILE, split_prompts
from dapflow.tasks.prompts.sources import read_source

_FIGURES = (
    "win_rate",
    "training_win_rate",
    "length_controlled_win_rate",
    "kl_to_initial",
    "length_growth",
    "tilt_reached",
    "displaced_pairs",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ...")
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--lake", type=Path, default=Path("lake-of-trials"))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument(
        "--vary", action="append", default=[], help="key=value,value: every combination is run"
    )
    parser.add_argument("--aside", action="store_true", help="measure on training prompts")
    given = parser.parse_args()
    fixed = [*given.settings, *(aside(given.recipe, given.lake) if given.aside else [])]
    rows = list[dict[str, Any]]()
    for settings in combinations(given.vary):
        for seed in range(given.seeds):
            rows.append(trial(given, [*fixed, *settings, f"seed={seed}"]))
            print(line(" ".join(settings) or given.recipe, seed, rows[-1]), flush=True)
        better = [row["win_rate"]["low"] > 0.5 for row in rows[-given.seeds :]]
        print(f"  better in {sum(better)} of {len(better)}", flush=True)
    (given.lake / "trials.json").write_text(json.dumps(rows, indent=1))


def trial(given: argparse.Namespace, settings: list[str]) -> dict[str, Any]:
    """The figures of the last iteration of a run, by name: value, low and high."""
    words = [word for setting in settings for word in ("--set", setting)]
    command = ["run", given.recipe, "--json", "--iterations", str(given.iterations)]
    done = subprocess.run(
        [sys.executable, "-m", "dapflow.flows.cli.main", *command, "--lake", given.lake, *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    last = json.loads(done.stdout.splitlines()[-1])["iterations"][-1]
    figures = {row["name"]: row for row in last["metrics"]}
    kept = {name: figures[name] for name in _FIGURES if name in figures}
    return {"settings": settings, "pairs": last["pairs"], **kept}


def combinations(varied: list[str]) -> list[list[str]]:
    """Settings `key=value`, one of each key."""
    keys = [(text.partition("=")[0], text.partition("=")[2].split(",")) for text in varied]
    return [
        [f"{key}={value}" for (key, _), value in zip(keys, values, strict=True)]
        for values in product(*(values for _, values in keys))
    ]


def aside(recipe: str, lake: Path) -> list[str]:
    """The settings that leave the recipe's held-out prompts out: a file of the others."""
    records = read_source("shipped", PROMPTS_FILE)
    others = split_prompts(records, recipe_named(recipe).prompts.held_out)["train"]
    lake.mkdir(parents=True, exist_ok=True)
    file = lake / "training-prompts.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": record.text("prompt")}) + "\n" for record in others)
    )
    return [f"prompts.source={file}"]


def line(name: str, seed: int, row: dict[str, Any]) -> str:
    """A trial's figures in one line."""
    figures = (f"{figure} {value(row[figure])}" for figure in _FIGURES if figure in row)
    return f"{name}, seed {seed}: {row['pairs']} pairs; {'; '.join(figures)}"


def value(figure: dict[str, Any]) -> str:
    """A figure with its interval, or that there is none."""
    if figure["value"] is None:
        return "not measured"
    interval = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['value']:.3f}{interval}"


if __name__ == "__main__":
    main()
