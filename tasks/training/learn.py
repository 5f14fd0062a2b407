"""`learn`: a copy of a policy learns from groups of answers, and becomes a row of the lake with its
curves. What the steps of train.py and answers.py have in common.

Killed at any moment it goes on from its last checkpoint, and ends with the same weights to the bit.
Test: pytest tests/tasks/training/test_train.py
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dapflow.storage import ModelRef
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.directory import files_digest, read_config
from dapflow.tasks.models.names import Loaded, release
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.lengths import fitting, say_left_out
from dapflow.tasks.models.policy import load_policy, policy_path
from dapflow.tasks.step import Out
from dapflow.tasks.training.curves import Progress, curve_rows
from dapflow.tasks.training.errors import NothingToLearnError
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.processes.job import Job
from dapflow.tasks.training.processes.launch import LOGS, launch, with_processes
from dapflow.tasks.training.references import with_reference
from dapflow.tasks.training.rounds.freshness import (
    age_figures,
    largest_lag,
    require_fresh,
    sample_ages,
)
from dapflow.tasks.training.set_aside import Ending, set_aside
from dapflow.tasks.training.settings import Training

_FIGURES = "figures.json"


@dataclass(frozen=True, kw_only=True)
class Course:
    """A policy, and how it is to learn."""

    policy: ModelRef
    reference: ModelRef
    loss: Loss
    training: Training
    seed: int

    @property
    def needs_reference(self) -> bool:
        """For its loss, or for what it sets aside."""
        return self.loss.needs_reference or self.training.sets_aside


def learn(
    out: Out,
    course: Course,
    make_groups: Callable[[Loaded], list[Group]],
    samplers: Mapping[str, Sequence[str | None]],
) -> None:
    """Train a copy of the policy on the groups that fit its context, and write its row and its
    curves.

    samplers: who sampled each answer of a row, None for nobody's.
    """
    if out.pending(0):
        groups, ages, figures = _prepared(out, course, make_groups, samplers)
        job = Job(
            policy=policy_path(out.lake, course.policy),
            groups=groups,
            loss=course.loss,
            training=with_processes(course.training),
            seed=course.seed,
        )
        release()  # the reference above all: from here on only the policy's own copy is in memory
        run = job.run if job.training.processes == 1 else partial(launch, job)
        trained = len(set_aside(groups, course.training)[0])
        logs = run(out.scratch, on_step=Progress(out, trained, course.training))
        ending = Ending.of(logs, course.training, aside=len(groups) - trained)
        for sentence in ending.sentences:
            out.say(sentence)
        figures = [*age_figures(ages, ending.published), *figures, *ending.figures]
        (out.scratch / LOGS).write_text(json.dumps([asdict(log) for log in logs]))
        (out.scratch / _FIGURES).write_text(json.dumps(figures))
        directory = out.scratch / "partial-policy"
        out.write(0, [policy_row(out, course, directory, trained, ending)])
    logs, figures = (json.loads((out.scratch / name).read_text()) for name in (LOGS, _FIGURES))
    out.write(1, curve_rows(out, logs, figures), table="metrics")


def _prepared(
    out: Out,
    course: Course,
    make_groups: Callable[[Loaded], list[Group]],
    samplers: Mapping[str, Sequence[str | None]],
) -> tuple[list[Group], list[int | None], list[dict[str, Any]]]:
    """What is trained on or set aside, how old the answers are that are trained on, and figures
    about what is too long.
    """
    loaded, training = load_policy(out.lake, course.policy), course.training
    groups, too_long = _fitting(out, loaded, course, make_groups(loaded))
    kept, aside = set_aside(groups, training)
    sampled_by = [who for group in kept for row in group.row_ids for who in samplers[row]]
    ages = sample_ages(out.lake, course.policy, sampled_by)
    require_fresh(largest_lag(ages, training.steps(len(kept))), training.max_lag)
    dtype = training.torch_dtype(loaded.model.device)
    if course.loss.needs_reference:
        groups = with_reference(out, course.reference, groups, dtype)
    elif aside:
        groups = [*kept, *with_reference(out, course.reference, aside, dtype)]
    return groups, ages, too_long


def _fitting(
    out: Out, policy: Loaded, course: Course, groups: Sequence[Group]
) -> tuple[list[Group], list[dict[str, Any]]]:
    """The groups that fit the policy and, where the loss asks it, the reference; figures about the
    rows that do not.
    """
    contexts = [context_length(policy.model)]
    if course.needs_reference:
        contexts.append(context_length(read_config(policy_path(out.lake, course.reference))))
    kept, too_long = fitting(groups, min(contexts), course.loss.answers)
    say_left_out(too_long, min(contexts), out.say)
    if not kept:
        raise NothingToLearnError(
            f"No row is left to train on: all {len(too_long):,} are longer than "
            f"the model's context of {min(contexts):,} tokens."
        )
    return kept, too_long


def policy_row(
    out: Out, course: Course, directory: Path, pairs: int, ending: Ending
) -> dict[str, Any]:
    """The row of a trained policy, whose directory comes into the lake. pairs: groups that it has
    learned from.
    """
    digest = files_digest(directory)
    recipe = {
        "loss": course.loss.model_dump(),
        "training": course.training.model_dump(),
        "pairs": pairs,
        "steps": ending.published,
        **ending.recipe,
    }
    return {
        "id": out.row_id(0),
        "name": f"policy trained with {course.loss.name}",
        "role": "policy",
        "parent": course.policy.version,
        "reference": course.reference.version if course.needs_reference else None,
        "path": out.publish(directory),
        "digest": digest,
        "recipe": json.dumps(recipe),
    }
