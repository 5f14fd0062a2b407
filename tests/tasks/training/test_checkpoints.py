"""Checkpoints: published whole, the last two kept, damaged ones passed over."""

from pathlib import Path

import pytest
import torch

from dapflow.tasks.training import checkpoints


def save(folder: Path, step: int) -> None:
    checkpoints.save(folder, step, {"w": torch.full((100,), float(step))}, {"run": "a"})


def step_of(folder: Path) -> int | None:
    found = checkpoints.load(folder)
    if found is None:
        return None
    tensors, state = found
    assert tensors["w"].tolist() == [float(state["step"])] * 100
    assert state == {"run": "a", "step": state["step"]}
    return state["step"]


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert step_of(tmp_path) == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert step_of(tmp_path) is None
    assert step_of(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "damage", ["truncated", "no weights", "no state", "half a state", "header only"]
)
def test_a_damaged_checkpoint_is_passed_over_and_replaced(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    weights, state = (
        tmp_path / "step-00000010" / "tensors.safetensors",
        tmp_path / "step-00000010" / "state.json",
    )
    {
        "truncated": lambda: weights.write_bytes(weights.read_bytes()[:-1]),
        "no weights": weights.unlink,
        "no state": state.unlink,
        "half a state": lambda: state.write_text(state.read_text()[:10]),
        "header only": lambda: weights.write_bytes(b""),
    }[damage]()
    assert step_of(tmp_path) == 5
    save(tmp_path, 10)
    assert step_of(tmp_path) == 10


def test_one_that_was_never_published_is_not_seen(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / "step-00000005").rename(tmp_path / "partial-123")
    assert step_of(tmp_path) is None
