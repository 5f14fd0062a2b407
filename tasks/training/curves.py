"""The curves of a training as metrics of its policy, and its progress while it runs.

Test: pytest tests/tasks/training/test_train.py
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dapflow.tasks.step import Out
from dapflow.tasks.step.tracking import track
from dapflow.tasks.training.logs import StepLog, memory_figures
from dapflow.tasks.training.settings import Training

CURVES = (
    "loss",
    "logp_chosen",
    "logp_rejected",
    "reward_chosen",
    "reward_rejected",
    "margin",
    "accuracy",
    "kl",
    "entropy",
    "reward",
    "value_loss",
    "explained_variance",
    "clip_fraction",
    "approx_kl",
    "cut_off_variance",
    "set_aside_loss",
    "set_aside_log_ratio",
    "set_aside_margin",
    "set_aside_accuracy",
    "gradient_norm",
    "learning_rate",
    "tokens_per_second",
    "peak_memory_gib",
)
TERM = "loss_"
"""Before the name of a loss of a sum, whose curve it is."""
_UNITS = {  # of all others: nats
    "accuracy": "share of pairs",
    "set_aside_accuracy": "share of pairs",
    "entropy": "nats per token",
    "reward": "judge's score",
    "loss": "",
    "set_aside_loss": "",  # each has its own
    "gradient_norm": "",
    "value_loss": "squared whitened reward",
    "explained_variance": "share of variance",
    "clip_fraction": "share of tokens",
    "approx_kl": "nats per token",
    "cut_off_variance": "share of the advantages' variance",
    "learning_rate": "",
    "tokens_per_second": "tokens/s",
    "peak_memory_gib": "GiB",
}


class Progress:
    """Tells of optimiser steps, as pairs done of `groups` an epoch."""

    def __init__(self, out: Out, groups: int, training: Training) -> None:
        self._out, self._total, self._batch = out, groups * training.epochs, training.batch_size

    def __call__(self, log: StepLog) -> None:
        for warning in log.warnings:
            self._out.say(f"step {log.step}: {warning}")
        values = {name: getattr(log, name) for name in CURVES} | _terms(log.terms)
        track(self._out.lake, self._out.version, log.step, values)
        figures = {"loss": log.loss, "margin": log.margin, "accuracy": log.accuracy}
        note = ", ".join(
            f"{name} {value:.3f}" for name, value in figures.items() if value is not None
        )
        done = min((log.step + 1) * self._batch, self._total)
        self._out.progress(done, self._total, "pairs", note)


def curve_rows(
    out: Out, logs: Sequence[dict[str, Any]], figures: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The curves of a training run as metrics, then its other figures, and the models that were in
    memory. A figure may name its subject.
    """
    curves = [
        {"name": name, "step": log["step"], "value": value, "unit": _unit(name)}
        for log in logs
        for name, value in ({name: log[name] for name in CURVES} | _terms(log["terms"])).items()
        if value is not None
    ]
    return [
        {"id": out.row_id(place), "subject": out.version, **row}
        for place, row in enumerate([*curves, *figures, *memory_figures(logs)])
    ]


def _terms(terms: Mapping[str, float]) -> dict[str, float]:
    """The curves of the losses of a sum."""
    return {f"{TERM}{name}": value for name, value in terms.items()}


def _unit(name: str) -> str:
    return "" if name.startswith(TERM) else _UNITS.get(name, "nats")
