"""Checkpoints of a training run: step-<n>/{tensors*.safetensors, state.json}, published by rename,
the last two kept, and that of the best weights.

Test: pytest tests/tasks/training/test_checkpoints.py
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from dapflow.storage.replacing import synchronise
from dapflow.tasks.training.processes.ranks import ALONE, Ranks

KEPT = 2


def save(
    folder: Path,
    step: int,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    ranks: Ranks = ALONE,
    best: int | None = None,
) -> None:
    """Publish the checkpoint of `step`, all or nothing, and remove all but the newest two and that
    of the step `best`.

    The first process writes for all, unless each holds a shard: then each writes its own.
    """
    partial = folder / "partial-step"
    if ranks.first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    if ranks.sharded:
        ranks.wait()
    if ranks.first or ranks.sharded:
        save_file(tensors, partial / _name(ranks))
        synchronise(partial / _name(ranks))
    if ranks.sharded:
        ranks.wait()
    if ranks.first:
        sizes = {file.name: file.stat().st_size for file in partial.glob("*.safetensors")}
        (partial / "state.json").write_text(json.dumps(state | {"step": step, "bytes": sizes}))
        _publish(folder, partial, step)
        for old in list(_newest_first(folder))[KEPT:]:
            if best is None or old != _at(folder, best):
                shutil.rmtree(old)


def _publish(folder: Path, partial: Path, step: int) -> None:
    synchronise(partial / "state.json")
    target = _at(folder, step)
    shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
    partial.rename(target)
    synchronise(folder)


def load(folder: Path, ranks: Ranks = ALONE) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint, as `save` got it (its state with `step`), or None; damaged ones
    are passed over.
    """
    for candidate in _newest_first(folder):
        try:
            state = json.loads((candidate / "state.json").read_text())
            sizes = state.pop("bytes")
            if all((candidate / name).stat().st_size == size for name, size in sizes.items()):
                return load_file(candidate / _name(ranks)), state
        except (OSError, ValueError, KeyError):
            continue
    return None


def load_at(folder: Path, step: int, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """The tensors of the checkpoint of `step`, which was saved as the best."""
    return load_file(_at(folder, step) / _name(ranks))


def _at(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _name(ranks: Ranks) -> str:
    return (
        f"tensors-{ranks.rank}-of-{ranks.world}.safetensors"
        if ranks.sharded
        else "tensors.safetensors"
    )


def _newest_first(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.glob("step-*"), reverse=True))
