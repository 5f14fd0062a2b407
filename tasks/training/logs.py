"""What training tells of each optimiser step. Test: pytest tests/tasks/training/test_fit.py"""

import math
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from dapflow.tasks.models.names import models_in_memory
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.training.settings import Training

_COUNTED = frozenset(8**power for power in range(12))  # steps, from 1


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One optimiser step; means over its groups, before the step was taken, in nats summed over an
    answer's tokens.

    Chosen is a group's first answer, rejected its last. Implied rewards are log pi - log pi_ref,
    without a loss's beta; the margin is theirs where there is a reference, else of the log-probs;
    accuracy is the share of groups whose margin is above zero; kl is the mean of log pi - log
    pi_ref over all answers, which estimates KL(pi || pi_ref) where the policy has just sampled
    them; entropy is the policy's at each token of the answers, mean over tokens. Memory is the
    process's (the device's, on a GPU) highest so far. Models are those that the process holds,
    counted at steps 1, 8, 64 ..., and the bytes of their weights. reward is the judge's, mean over
    the answers that have one.

    Of groups that are set aside, at the steps that looked at them, all after the step: loss, margin
    and accuracy as above, and log pi - log pi_ref, mean over all answers; and why the training
    stopped there.

    Of a sum of losses: the value of each by its name, before its weight.

    Of losses with a value model: its loss, and what share of the variance of its targets it
    explains, both before the step; the share of tokens whose ratio to the policy that sampled them
    is beyond the clip; and the estimated KL(pi_old || pi) a token. Of rounds with rewards: the
    share of the variance of the round's advantages that is the cap on cut-off answers.
    """

    step: int
    epoch: int
    loss: float
    logp_chosen: float
    logp_rejected: float | None
    reward_chosen: float | None
    reward_rejected: float | None
    margin: float | None
    accuracy: float | None
    kl: float | None
    entropy: float
    gradient_norm: float
    learning_rate: float
    tokens_per_second: float
    peak_memory_gib: float
    models: int | None = None
    model_bytes: int | None = None
    reward: float | None = None
    value_loss: float | None = None
    explained_variance: float | None = None
    clip_fraction: float | None = None
    approx_kl: float | None = None
    cut_off_variance: float | None = None
    set_aside_loss: float | None = None
    set_aside_log_ratio: float | None = None
    set_aside_margin: float | None = None
    set_aside_accuracy: float | None = None
    stopped: str | None = None
    terms: Mapping[str, float] = field(default_factory=dict[str, float])
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Self:
        """From what JSON made of `asdict`."""
        fields: dict[str, Any] = plain | {"warnings": tuple(plain["warnings"])}
        return cls(**fields)


def means(batch: Sequence[Group], policies: Sequence[Tensor]) -> dict[str, float | None]:
    """The figures of `StepLog` that say how the answers fare: of a batch and the log-probs of each
    group's answers.
    """
    first = [policy[0].item() for policy in policies]
    last = [policy[-1].item() for policy in policies if len(policy) > 1]
    references = [group.reference for group in batch if group.reference is not None]
    d_first = [p - r[0] for p, r in zip(first, references, strict=False)]
    d_last = [p - r[-1] for p, r in zip(last, references, strict=False)]
    margins = [w - l for w, l in zip(d_first or first, d_last or last, strict=False)]
    return {
        "logp_rejected": _mean(last),
        "reward_chosen": _mean(d_first),
        "reward_rejected": _mean(d_last),
        "margin": _mean(margins),
        "accuracy": _mean([float(margin > 0) for margin in margins]),
        "reward": _mean([reward for group in batch for reward in group.rewards or ()]),
        "kl": _mean(
            [
                value.item() - r
                for p, g in zip(policies, batch, strict=True)
                for value, r in zip(p, g.reference or (), strict=False)
            ]
        ),
    }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def peak_memory_gib(device: torch.device) -> float:
    """The most that the process, or on a GPU the device, has held so far."""
    held = (
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return held / 2**30


def models_held(step: int) -> tuple[int, int] | tuple[None, None]:
    """How many models the process holds, and their bytes, at the steps that they are counted at:
    that takes about 0.2 s.
    """
    return models_in_memory() if step + 1 in _COUNTED else (None, None)


def memory_figures(logs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The most models that a training has held at once, and the most bytes of weights, as metrics.
    logs: `asdict` of each step's.
    """
    units = {"models": ("models_in_memory", "models"), "model_bytes": ("model_bytes", "bytes")}
    counted = {key: [log[key] for log in logs if log.get(key) is not None] for key in units}
    return [
        {"name": units[key][0], "value": float(max(some)), "unit": units[key][1]}
        for key, some in counted.items()
        if some
    ]


def displacement(
    gained: float | None, settings: Training, since: str = "against the reference"
) -> tuple[str, ...]:
    """A warning when the chosen answers become much less likely than they were (arXiv 2410.08847).
    gained: nats, mean over answers.
    """
    if gained is None or gained > -settings.displacement_alarm_nats:
        return ()
    return (f"likelihood displacement: chosen answers have lost {-gained:.1f} nats {since}",)
