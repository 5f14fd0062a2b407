"""Metrics for an experiment tracker beside the lake, as they are logged:
DAPFLOW_TRACKER=tensorboard, or a function of your own.

    def tracker(run: str | None, version: str, step: int | None, metrics: Mapping[str, float]) -> None      # package.module:tracker
`run`: as in the table `runs`; `version`: what the metrics are about, so a policy's curves and,
later, its figures; `step`: of the optimiser, None for figures of the whole. A tracker that fails is
told of once, and ends no run. Test: pytest tests/tasks/step/test_tracking.py
"""

import os
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Protocol

from dapflow.storage import Lake, Ref, UserError
from dapflow.storage.logs import log
from dapflow.storage.runs import current_run
from dapflow.tasks.modules import module_named
from dapflow.tasks.step.progress import reporter

VARIABLE = "DAPFLOW_TRACKER"
_broken = set[str]()  # trackers that have failed in this process
_grown = set[str]()  # versions whose curves were told step by step


class Tracker(Protocol):
    """Whoever is told."""

    def __call__(
        self, run: str | None, version: str, step: int | None, metrics: Mapping[str, float]
    ) -> None: ...


def check_tracker() -> None:
    """Raises UserError when DAPFLOW_TRACKER names none: before a run, not amid its training."""
    if name := os.environ.get(VARIABLE):
        _tracker(name, "")


def track(lake: Lake, version: str, step: int | None, metrics: Mapping[str, float | None]) -> None:
    """Tell the tracker, if there is one."""
    if not (name := os.environ.get(VARIABLE)) or name in _broken:
        return
    if step is not None:
        _grown.add(version)
    try:
        _tracker(name, str(lake.root))(
            current_run(),
            version,
            step,
            {key: value for key, value in metrics.items() if value is not None},
        )
    except Exception as error:  # whatever a tracker raises is no reason to lose a training
        _broken.add(name)
        reporter().said(
            f"The tracker {name} failed and is told no more: {type(error).__name__}: {error}"
        )
        log(
            "tracker.failed",
            run=current_run(),
            version=version,
            note=f"{type(error).__name__}: {error}",
        )


def track_version(lake: Lake, ref: Ref) -> None:
    """Tell the tracker all metrics of a version that is complete, less those of single rows and the
    curves that it was told of as they grew.
    """
    if not os.environ.get(VARIABLE):
        return
    told = defaultdict[tuple[str, int | None], dict[str, float]](dict)
    query = (
        "SELECT subject, name, step, value FROM metrics WHERE version = ? AND NOT "
        "contains(subject, '-') ORDER BY step, id"
    )
    for row in lake.rows(query, [ref.version]):
        if row["value"] is not None and (row["step"] is None or ref.version not in _grown):
            told[row["subject"], row["step"]][row["name"]] = row["value"]
    for (subject, step), metrics in told.items():
        track(lake, subject, step, metrics)


@cache
def _tracker(name: str, root: str) -> Tracker:
    if name == "tensorboard":
        return _TensorBoard(root)
    module, _, function = name.partition(":")
    try:
        return getattr(module_named(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{VARIABLE}={name}: {error}. It is `tensorboard`, or package.module:function."
        ) from error


class _TensorBoard:
    """Events below tensorboard/ in the lake, a directory for each version: `tensorboard --logdir
    lake/tensorboard`.
    """

    def __init__(self, root: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"{VARIABLE}=tensorboard needs a package: pip install 'dapflow[tensorboard]'."
            ) from error
        self._open = cache(
            lambda version: SummaryWriter(os.path.join(root, "tensorboard", version))
        )

    def __call__(
        self, run: str | None, version: str, step: int | None, metrics: Mapping[str, float]
    ) -> None:
        writer = self._open(version)
        for name, value in metrics.items():
            writer.add_scalar(
                f"{'figures' if step is None else 'training'}/{name}", value, step or 0
            )
        writer.flush()
