"""The policy learns from the pairs.

    train(policy, reference, pairs, loss, training)  ->  a model version, and its curves as metrics
Killed at any moment it goes on from its last checkpoint, and ends with the same weights to the bit.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dapflow.storage import DatasetRef, ModelRef
from dapflow.storage.logps import KeptLogps
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.directory import files_digest, read_config
from dapflow.tasks.models.names import Loaded, release
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.groups import SIDES, pair_groups, sampled_of
from dapflow.tasks.models.packed.lengths import fitting, say_left_out
from dapflow.tasks.models.packed.logps import reference_logps
from dapflow.tasks.models.policy import load_policy, policy_path
from dapflow.tasks.step import Out, step
from dapflow.tasks.step.tracking import track
from dapflow.tasks.training.errors import NothingToLearnError
from dapflow.tasks.training.logs import StepLog, memory_figures
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.processes.job import Job
from dapflow.tasks.training.processes.launch import LOGS, launch, with_processes
from dapflow.tasks.training.rounds.freshness import (
    age_figures,
    largest_lag,
    require_fresh,
    sample_ages,
)
from dapflow.tasks.training.settings import Training
from dapflow.tasks.training.work import learning

_FIGURES = "figures.json"
_KEEP_SECONDS = 10  # reference log-probs that a kill may cost
_CURVES = (
    "loss",
    "logp_chosen",
    "logp_rejected",
    "reward_chosen",
    "reward_rejected",
    "margin",
    "accuracy",
    "kl",
    "entropy",
)
_CURVES += ("reward", "value_loss", "explained_variance", "clip_fraction", "approx_kl")
_CURVES += ("gradient_norm", "learning_rate", "tokens_per_second", "peak_memory_gib")


@step(
    "models",
    title="train with {loss.name}",
    expects=lambda **_: 1,
    activity="training",
    work=lambda pairs, training, **_: learning(pairs, training.epochs),
)
def train(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    pairs: list[DatasetRef],
    loss: Loss,
    training: Training,
    system: str | None,
    chat_template: str | None,
    seed: int,
) -> None:
    """Train a copy of `policy` on the pairs that were not dropped; the reference's log-probs are
    computed once, before. A row without `rejected` is for losses of one answer, and no other learns
    from it."""
    if not out.pending(1):  # killed between its last two commits
        return
    made = [row for ref in pairs for row in out.lake.rows_of(ref)]
    rows = [
        row
        for row in made
        if row["dropped"] is None and (row["rejected"] is not None or loss.registered.answers == 1)
    ]
    if not rows:
        reasons = Counter(row["dropped"] for row in made)
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise NothingToLearnError(
            f"No pair is left to train on: {told or 'none was made'} (`dapflow show pairs` shows them)."
        )
    sampled = sampled_of(out.lake, rows)
    learn(
        out,
        policy,
        reference,
        lambda loaded: pair_groups(loaded, rows, sampled, system, chat_template),
        {
            row["id"]: [
                sampled[row[f"{side}_id"]]["policy"] if row[f"{side}_id"] else None
                for side in SIDES
                if row[side] is not None
            ]
            for row in rows
        },
        loss,
        training,
        seed,
    )


def learn(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    make_groups: Callable[[Loaded], list[Group]],
    samplers: Mapping[str, Sequence[str | None]],
    loss: Loss,
    training: Training,
    seed: int,
) -> None:
    """Train a copy of `policy` on the groups that fit its context, and write its row and its
    curves.

    samplers: who sampled each answer of a row, None for nobody's.
    """
    if out.pending(0):
        loaded = load_policy(out.lake, policy)
        groups, too_long = _fitting(out, loaded, reference, make_groups(loaded), loss)
        steps = training.steps(len(groups))
        ages = sample_ages(
            out.lake,
            policy,
            [sampler for group in groups for row in group.row_ids for sampler in samplers[row]],
        )
        require_fresh(largest_lag(ages, steps), training.max_lag)
        if loss.registered.needs_reference:
            groups = _with_reference(
                out, reference, groups, training.torch_dtype(loaded.model.device)
            )
        job = Job(
            policy=policy_path(out.lake, policy),
            groups=groups,
            loss=loss,
            training=with_processes(training),
            seed=seed,
        )
        del loaded
        release()  # the reference above all: from here on only the policy's own copy is in memory
        logs = (job.run if job.training.processes == 1 else partial(launch, job))(
            out.scratch, on_step=_Progress(out, len(groups), training)
        )
        directory = out.scratch / "partial-policy"
        (out.scratch / LOGS).write_text(json.dumps([asdict(log) for log in logs]))
        (out.scratch / _FIGURES).write_text(json.dumps([*age_figures(ages, steps), *too_long]))
        recipe = {
            "loss": loss.model_dump(),
            "training": training.model_dump(),
            "pairs": len(groups),
            "steps": len(logs),
        }
        out.write(0, [policy_row(out, policy, reference, loss, directory, recipe)])
    logs, figures = (json.loads((out.scratch / name).read_text()) for name in (LOGS, _FIGURES))
    out.write(1, curve_rows(out, logs, figures), table="metrics")


def _fitting(
    out: Out, policy: Loaded, reference: ModelRef, groups: Sequence[Group], loss: Loss
) -> tuple[list[Group], list[dict[str, Any]]]:
    """The groups that fit the policy and, where the loss asks it, the reference; figures about the
    rows that do not.
    """
    contexts = [context_length(policy.model)]
    if loss.registered.needs_reference:
        contexts.append(context_length(read_config(policy_path(out.lake, reference))))
    kept, too_long = fitting(groups, min(contexts), loss.registered.answers)
    say_left_out(too_long, min(contexts), out.say)
    if not kept:
        raise NothingToLearnError(
            f"No row is left to train on: all {len(too_long):,} are longer than the model's context of {min(contexts):,} tokens."
        )
    return kept, too_long


def policy_row(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    loss: Loss,
    directory: Path,
    recipe: dict[str, Any],
) -> dict[str, Any]:
    """The row of a trained policy, whose directory comes into the lake."""
    digest = files_digest(directory)
    row = {
        "id": out.row_id(0),
        "name": f"policy trained with {loss.name}",
        "role": "policy",
        "parent": policy.version,
    }
    row |= {"reference": reference.version if loss.registered.needs_reference else None}
    return row | {"path": out.publish(directory), "digest": digest, "recipe": json.dumps(recipe)}


def _with_reference(
    out: Out, reference: ModelRef, groups: Sequence[Group], dtype: torch.dtype
) -> list[Group]:
    """The groups with the reference's log-probs. What the lake has is not computed again; when it
    has all, the model is not loaded.
    """
    kept = KeptLogps(
        out.lake, out.lake.model(reference)["digest"], str(dtype).removeprefix("torch.")
    )
    found = kept.find(group.key for group in groups)
    missing = list({group.key: group for group in groups if group.key not in found}.values())
    if missing:
        model = load_policy(out.lake, reference, dtype).model
        fresh: dict[str, tuple[float, ...]] = {}
        since = time.monotonic()
        for done, (group, values) in enumerate(
            zip(missing, reference_logps(model, missing), strict=True), start=1
        ):
            fresh[group.key] = values
            if done == len(missing) or time.monotonic() - since > _KEEP_SECONDS:
                kept.keep(fresh)
                found, fresh, since = found | fresh, {}, time.monotonic()
            out.progress(done, len(missing), "reference pairs")
    return [replace(group, reference=found[group.key]) for group in groups]


class _Progress:
    """Optimiser steps as pairs done."""

    def __init__(self, out: Out, groups: int, training: Training) -> None:
        self.out, self.total, self.batch = out, groups * training.epochs, training.batch_size

    def __call__(self, log: StepLog) -> None:
        for warning in log.warnings:
            self.out.say(f"step {log.step}: {warning}")
        track(
            self.out.lake,
            self.out.version,
            log.step,
            {name: getattr(log, name) for name in _CURVES},
        )
        figures = {"loss": log.loss, "margin": log.margin, "accuracy": log.accuracy}
        note = ", ".join(
            f"{name} {value:.3f}" for name, value in figures.items() if value is not None
        )
        self.out.progress(min((log.step + 1) * self.batch, self.total), self.total, "pairs", note)


def curve_rows(
    out: Out, logs: Sequence[dict[str, Any]], figures: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The curves of a training run as metrics, then its other figures, and the models that were in
    memory. A figure may name its subject.
    """
    units = {
        "accuracy": "share of pairs",
        "entropy": "nats per token",
        "reward": "judge's score",
        "loss": "",  # each has its own
        "gradient_norm": "",
        "value_loss": "squared whitened reward",
        "explained_variance": "share of variance",
        "clip_fraction": "share of tokens",
        "approx_kl": "nats per token",
        "learning_rate": "",
        "tokens_per_second": "tokens/s",
        "peak_memory_gib": "GiB",
    }
    rows: list[dict[str, Any]] = []
    for log in logs:
        for name in _CURVES:
            if log[name] is not None:
                row = {
                    "id": out.row_id(len(rows)),
                    "subject": out.version,
                    "name": name,
                    "step": log["step"],
                }
                rows.append(row | {"value": log[name], "unit": units.get(name, "nats")})
    whole = [*figures, *memory_figures(logs)]
    return rows + [
        {"id": out.row_id(len(rows) + n), "subject": out.version, **row}
        for n, row in enumerate(whole)
    ]
