"""Groups that a training sets aside and looks at every few steps: they say when it stops, and which
of its weights were the best.

Pure functions, but for `looked`, which reads the model that is trained. What is compared between
checkpoints is `_merit`: another measure of a checkpoint takes its place there. Test: pytest
tests/tasks/training/test_set_aside.py
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Self

from dapflow.storage.errors import UserError
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.optimizer_step import Trainer, observe
from dapflow.tasks.training.settings import Stop, Training


def set_aside(groups: Sequence[Group], training: Training) -> tuple[list[Group], list[Group]]:
    """(trained on, set aside): aside go the prompts with the lowest digests, each with all its
    groups, until there are enough; none where no setting looks at them.

    Raises UserError where nothing is left to train on.
    """
    if not training.sets_aside:
        return list(groups), []
    aside = dict[str, list[Group]]()
    ordered = sorted(groups, key=lambda group: (_prompt(group), group.key))
    for prompt, same in groupby(ordered, key=_prompt):
        if sum(map(len, aside.values())) >= training.stop.set_aside:
            break
        aside[prompt] = list(same)
    kept = [group for group in groups if _prompt(group) not in aside]
    if not kept:
        raise UserError(
            f"training.stop.set_aside={training.stop.set_aside} leaves nothing to train on: there "
            f"are {len(groups):,} rows, and those of a prompt stay together. Set fewer aside."
        )
    return kept, [group for same in aside.values() for group in same]


def _prompt(group: Group) -> str:
    return hashlib.sha256(repr(group.prompt).encode()).hexdigest()


def looked(trainer: Trainer, aside: Sequence[Group], log: StepLog, last: bool) -> StepLog:
    """The log with what the groups set aside say after its step, at every so many and at the last."""
    rule = trainer.settings.stop
    if not aside or not (last or (log.step + 1) % rule.every == 0):
        return log
    loss, seen = observe(trainer, aside, log.step)
    log_ratio = seen["kl"]  # log pi - log pi_ref, mean over all answers
    assert log_ratio is not None, "`learn` brings the reference's log-probs of what is set aside"
    return replace(
        log,
        set_aside_loss=loss,
        set_aside_log_ratio=log_ratio,
        set_aside_margin=seen["margin"],
        set_aside_accuracy=seen["accuracy"],
        stopped=None if last else _reason(log_ratio, rule),
    )


def _reason(log_ratio: float, rule: Stop) -> str | None:
    if rule.log_ratio is None or log_ratio >= -rule.log_ratio:
        return None
    return (
        f"answers set aside have lost {-log_ratio:.2f} nats against the reference, more than "
        f"training.stop.log_ratio={rule.log_ratio:g}"
    )


def best_step(logs: Sequence[StepLog], training: Training) -> int | None:
    """The step whose weights are published in place of the last: the earliest of the best looks;
    None where the last ones are wanted.
    """
    looks = [log for log in logs if log.set_aside_loss is not None]
    return max(looks, key=_merit).step if looks and training.pick == "best" else None


def _merit(log: StepLog) -> tuple[float, float]:
    """Of the weights after a step, higher is better: the share of the pairs set aside that they
    order as the judge did, then the loss. Without pairs, the loss alone.
    """
    assert log.set_aside_loss is not None, "the caller has asked"
    return log.set_aside_accuracy or 0.0, -log.set_aside_loss


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a training came to its weights. aside: groups that were set aside; taken: optimiser
    steps; published: those behind the weights, fewer where earlier ones were the best; stopped: why
    before its time.
    """

    aside: int
    taken: int
    published: int
    stopped: str | None
    picks: bool

    @classmethod
    def of(cls, logs: Sequence[StepLog], training: Training, aside: int = 0) -> Self:
        best = best_step(logs, training)
        return cls(
            aside=aside,
            taken=len(logs),
            published=len(logs) if best is None else best + 1,
            stopped=logs[-1].stopped,
            picks=best is not None,
        )

    @property
    def sentences(self) -> list[str]:
        """For whoever watches; empty where it went as always."""
        stopped = f"stopped after step {self.taken}: {self.stopped}"
        picked = f"the weights after step {self.published} of {self.taken} were the best"
        return [stopped] * (self.stopped is not None) + [picked] * self.picks

    @property
    def recipe(self) -> dict[str, Any]:
        """For the row of the model."""
        stopped = {"stopped": {"step": self.taken, "reason": self.stopped}}
        return (stopped if self.stopped else {}) | (
            {"picked": self.published} if self.picks else {}
        )

    @property
    def figures(self) -> list[dict[str, Any]]:
        """As metrics."""
        told = [
            ("set_aside_rows", self.aside, "rows", self.aside > 0),
            ("stopped_after", self.taken, "optimiser steps", self.stopped is not None),
            ("picked_after", self.published, "optimiser steps", self.picks),
        ]
        return [
            {"name": name, "value": float(value), "unit": unit}
            for name, value, unit, holds in told
            if holds
        ]
