"""Checkpoints of a training run: step-<n>/{tensors.safetensors, state.json}, published by rename, the last two kept.

Test: pytest tests/tasks/training/test_checkpoints.py
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from storage.chunks import synchronise

KEPT = 2


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Publish the checkpoint of `step`, all or nothing, and remove all but the newest two."""
    partial = folder / f"partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = partial / "tensors.safetensors"
    save_file(tensors, weights)
    (partial / "state.json").write_text(json.dumps(state | {"step": step, "tensors_bytes": weights.stat().st_size}))
    for file in (weights, partial / "state.json"):
        synchronise(file)
    target = folder / f"step-{step:08d}"
    shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
    partial.rename(target)
    synchronise(folder)
    for old in list(_newest_first(folder))[KEPT:]:
        shutil.rmtree(old)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint, as `save` got it (its state with `step`), or None; damaged ones are passed over."""
    for candidate in _newest_first(folder):
        try:
            state = json.loads((candidate / "state.json").read_text())
            weights = candidate / "tensors.safetensors"
            if weights.stat().st_size == state.pop("tensors_bytes"):
                return load_file(weights), state
        except (OSError, ValueError, KeyError):
            continue
    return None


def _newest_first(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.glob("step-*"), reverse=True))
