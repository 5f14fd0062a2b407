"""The policy learns from the pairs.

    train(policy, reference, pairs, loss, training)  ->  a model version, and its curves as metrics
Killed at any moment it goes on from its last checkpoint, and ends with the same weights to the bit.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from storage import DatasetRef, Lake, ModelRef, UserError
from tasks.chat import render
from tasks.models import Loaded, files_digest, save
from tasks.policy import load_policy
from tasks.step import Out, step
from tasks.training.batches import Group
from tasks.training.fit import StepLog, fit
from tasks.training.logps import reference_logps
from tasks.training.losses import Loss
from tasks.training.settings import Training

_REFERENCE_FILE = "reference.json"
_CURVES = ("loss", "logp_chosen", "logp_rejected", "reward_chosen", "reward_rejected", "margin", "accuracy")
_CURVES += ("gradient_norm", "learning_rate", "tokens_per_second")


@step("models", title="train with {loss.name}", expects=lambda **_: 1)
def train(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    pairs: list[DatasetRef],
    loss: Loss,
    training: Training,
    system: str | None,
    seed: int,
) -> None:
    """Train a copy of `policy` on the pairs that were not dropped; the reference's log-probs are computed once, before."""
    if not out.pending(1):  # killed between its last two commits
        return
    rows = [row for ref in pairs for row in out.lake.rows_of(ref) if row["dropped"] is None]
    if not rows:
        raise UserError("No pair is left to train on: every one was a tie, identical, truncated or not judged (`dapflow run` lists why).")
    if out.pending(0):
        loaded = load_policy(out.lake, policy)
        groups = pair_groups(out.lake, loaded, rows, system)
        if loss.registered.needs_reference:
            groups = _with_reference(out, load_policy(out.lake, reference), groups)
        model = copy.deepcopy(loaded.model)  # the policy itself stays as it is, in memory for the steps that follow
        logs = fit(model, groups, loss, training, seed=seed, checkpoint_dir=out.scratch, on_step=_Progress(out, len(groups), training))
        directory = out.scratch / "partial-policy"
        save(Loaded(model=model, tokenizer=loaded.tokenizer), directory)
        (out.scratch / "logs.json").write_text(json.dumps([asdict(log) for log in logs]))
        digest = files_digest(directory)
        row = {"id": out.row_id(0), "name": f"policy trained with {loss.name}", "role": "policy", "parent": policy.version}
        row |= {"reference": reference.version if loss.registered.needs_reference else None}
        row |= {"path": out.publish(directory), "digest": digest}
        recipe = {"loss": loss.model_dump(), "training": training.model_dump(), "pairs": len(rows)}
        out.write(0, [row | {"recipe": json.dumps(recipe)}])
    out.write(1, _curves(out, json.loads((out.scratch / "logs.json").read_text())), table="metrics")


def pair_groups(lake: Lake, policy: Loaded, pairs: Sequence[dict[str, Any]], system: str | None) -> list[Group]:
    """Pairs as token ids: those that were sampled, not the text tokenised again, where the policy's family sampled them."""
    versions = sorted({row[side].rsplit("-", 1)[0] for row in pairs for side in ("chosen_id", "rejected_id") if row[side]})
    sampled: dict[str, list[int]] = {}
    for version in versions:
        for row in lake.rows("SELECT id, token_ids FROM completions WHERE version = ?", [version]):
            sampled[row["id"]] = row["token_ids"]

    def ids(row: dict[str, Any], side: str) -> tuple[int, ...]:
        if row[f"{side}_id"]:
            return tuple(sampled[row[f"{side}_id"]])
        return (*policy.tokenizer(row[side], add_special_tokens=False)["input_ids"], policy.tokenizer.eos_token_id)

    return [
        Group(
            prompt=tuple(render(policy.tokenizer, row["prompt"], system)),
            answers=(ids(row, "chosen"), ids(row, "rejected")),
            row_ids=(row["id"],),
        )
        for row in pairs
    ]


def _with_reference(out: Out, reference: Loaded, groups: Sequence[Group]) -> list[Group]:
    """The groups with the reference's log-probs, kept on disk so that a resumed run does not compute them again."""
    kept: Path = out.scratch / _REFERENCE_FILE
    if not kept.exists():
        done = 0

        def advance(indices: list[int], _: list[tuple[float, ...]]) -> None:
            nonlocal done
            done += len(indices)
            out.progress(done, len(groups), "reference pairs")

        values = reference_logps(reference.model, groups, on_rows=advance)
        partial = kept.with_suffix(".partial")
        partial.write_text(json.dumps(values))
        partial.rename(kept)
    values = json.loads(kept.read_text())
    return [
        Group(prompt=group.prompt, answers=group.answers, row_ids=group.row_ids, reference=tuple(value))
        for group, value in zip(groups, values, strict=True)
    ]


class _Progress:
    """Optimiser steps as pairs done."""

    def __init__(self, out: Out, groups: int, training: Training) -> None:
        self.out, self.total, self.batch = out, groups * training.epochs, training.batch_size

    def __call__(self, log: StepLog) -> None:
        for warning in log.warnings:
            self.out.say(f"step {log.step}: {warning}")
        self.out.progress(min((log.step + 1) * self.batch, self.total), self.total, "pairs")


def _curves(out: Out, logs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    units = {"accuracy": "share of pairs", "learning_rate": "", "tokens_per_second": "tokens/s"}
    rows: list[dict[str, Any]] = []
    for log in logs:
        for name in _CURVES:
            if log[name] is not None:
                row = {"id": out.row_id(len(rows)), "subject": out.version, "name": name, "step": log["step"]}
                rows.append(row | {"value": log[name], "unit": units.get(name, "nats")})
    return rows
