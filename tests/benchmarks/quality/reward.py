"""A reward model with a linear head only, on preferences of your own: python -m
tests.benchmarks.quality.reward FILE [--layers 0]

FILE: whatever `dapflow import` takes, for example the harmless-base part of hh-rlhf. A fifth of the
prompts, by content, is held out. Prints the accuracy on it with its 95 % interval, that of
preferring the longer answer, the calibration error and slope, and the time.
"""

import argparse
import time
from pathlib import Path

import torch

from dapflow.tasks.calibration import slope_interval, slope_of
from dapflow.tasks.models.names import load, resolve
from dapflow.tasks.models.packed.features import answer_features, text_group
from dapflow.tasks.models.reward_head import Backbone
from dapflow.tasks.prompts.formats import preference
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE
from dapflow.tasks.prompts.row import text_digest
from dapflow.tasks.prompts.sources import stream_source
from dapflow.tasks.statistics import calibration_error, wilson
from dapflow.tasks.training.reward.pointwise import calibrated, fit_head


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--pairs", type=int, help="at most so many")
    arguments = parser.parse_args()
    if not arguments.file.is_file():
        raise SystemExit(
            f"There is no file {arguments.file}: this benchmark needs preference data of yours."
        )
    rows = [preference(record) for record in stream_source(str(arguments.file), PREFERENCES_FILE)]
    rows = [row for row in rows if row["dropped"] is None][: arguments.pairs]
    loaded = load(resolve(arguments.model).path)
    base = Backbone(model=loaded.model, tokenizer=loaded.tokenizer)
    groups = [
        text_group(base.tokenizer, row["prompt"], (row["chosen"], row["rejected"]), row["source"])
        for row in rows
    ]
    held_out = torch.tensor([int(text_digest(row["prompt"]), 16) % 5 == 0 for row in rows])
    started = time.perf_counter()
    features = torch.stack(answer_features(base.model, groups, arguments.layers)).double()
    read = time.perf_counter()
    margins = torch.zeros(int((~held_out).sum()), dtype=torch.float64)
    fit = fit_head(features[~held_out], margins)
    head = calibrated(fit.head, fit.unseen)
    fitted = time.perf_counter()
    scores = head.scores(features[held_out])
    right = int((scores[:, 0] > scores[:, 1]).sum())
    longer = sum(
        len(row["chosen"]) > len(row["rejected"])
        for row, out in zip(rows, held_out.tolist(), strict=True)
        if out
    )
    for name, count in (("held-out accuracy", right), ("longer is better", longer)):
        low, high = wilson(count, len(scores))
        print(
            f"{name:<18} {count / len(scores):.1%} [{low:.1%}, {high:.1%}] of {len(scores)} pairs"
        )
    differences = scores[:, 0] - scores[:, 1]
    low, high = slope_interval(differences.numpy(), seed=0)
    print(f"calibration error  {calibration_error(differences.sigmoid().tolist()):.3f}")
    print(f"calibration slope  {slope_of(differences.numpy()):.2f} [{low:.2f}, {high:.2f}]")
    tokens = sum(group.tokens for group in groups)
    print(
        f"{tokens:,} tokens read in {read - started:.0f} s ({tokens / (read - started):.0f} a second), head fitted in {fitted - read:.1f} s"
    )


if __name__ == "__main__":
    main()
