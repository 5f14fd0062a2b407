"""What a tracker is told: curves as they grow, figures at the end, and nothing that ends a run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dapflow.storage import Lake, UserError
from dapflow.storage.runs import record_run
from dapflow.tasks.step import tracking
from dapflow.tasks.step.progress import Silent, report_to
from tests.helpers.lakes import ids, named, write

TRACKER = """
told = []

def tracker(run, version, step, metrics):
    told.append((run, version, step, dict(metrics)))

def broken(run, version, step, metrics):
    told.append(version)
    raise ConnectionError("the tracker's server is gone")
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the functions of a module `my_tracker` have been told."""
    (tmp_path / "my_tracker.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(tracking.VARIABLE, "my_tracker:tracker")
    import my_tracker  # pyright: ignore[reportMissingImports]

    yield my_tracker.told
    del sys.modules["my_tracker"]
    for memory in (tracking._grown, tracking._broken):
        memory.clear()
    tracking._tracker.cache_clear()


def trained(lake: Lake) -> Any:
    """A version of metrics about a policy: one figure, one that could not be had, a curve of two
    steps, and a figure about a row.
    """
    version, policy = named("metrics"), named("policy")
    rows = {
        "subject": [*[policy] * 4, *ids(version, 1)],
        "name": ["win_rate", "kl", "loss", "loss", "overlap"],
    }
    rows["step"] = pa.array([None, None, 0, 1, None], pa.int64())
    table = pa.table({"id": ids(version, 5), **rows, "value": [0.75, None, 0.7, 0.6, 0.9]})
    return policy, write(lake, "metrics", version, "evaluate", table, {})


def test_the_metrics_of_a_version_go_to_the_function_with_run_and_step(
    lake: Lake, told: list[Any]
) -> None:
    policy, ref = trained(lake)
    with record_run(lake, "4711", "rso", {}):
        tracking.track_version(lake, ref)
    assert sorted(told, key=lambda one: one[2] is None) == [
        ("4711", policy, 0, {"loss": 0.7}), ("4711", policy, 1, {"loss": 0.6}), ("4711", policy, None, {"win_rate": 0.75}),
    ]  # fmt: skip


def test_a_curve_that_was_told_as_it_grew_is_not_told_again(lake: Lake, told: list[Any]) -> None:
    _, ref = trained(lake)
    tracking.track(lake, ref.version, 0, {"loss": 0.7, "margin": None})
    assert told == [(None, ref.version, 0, {"loss": 0.7})]
    tracking.track_version(lake, ref)
    assert [one[2] for one in told] == [0, None]


def test_a_tracker_that_fails_is_told_of_once_and_ends_nothing(
    lake: Lake, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.VARIABLE, "my_tracker:broken")
    said = list[str]()

    class Listening(Silent):
        def said(self, sentence: str) -> None:
            said.append(sentence)

    with report_to(Listening()):
        for step in range(3):
            tracking.track(lake, "v", step, {"loss": 0.0})
    assert told == ["v"]
    assert said == [
        "The tracker my_tracker:broken failed and is told no more: ConnectionError: the tracker's server is gone"
    ]


@pytest.mark.parametrize("name", ["nowhere:tracker", "my_tracker:nobody", "my_tracker", ":"])
def test_a_tracker_that_is_not_there_is_said_before_a_run(
    name: str, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.VARIABLE, name)
    with pytest.raises(
        UserError,
        match=f"{tracking.VARIABLE}={name}: .* It is `tensorboard`, or package.module:function",
    ):
        tracking.check_tracker()


def test_tensorboard_reads_curves_and_figures(
    lake: Lake, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.VARIABLE, "tensorboard")
    policy, ref = trained(lake)
    tracking.track_version(lake, ref)
    read = EventAccumulator(str(lake.root / "tensorboard" / policy)).Reload()
    assert [(one.step, one.value) for one in read.Scalars("training/loss")] == [
        (0, pytest.approx(0.7)),
        (1, pytest.approx(0.6)),
    ]
    assert [one.value for one in read.Scalars("figures/win_rate")] == [0.75]
    assert (
        len(list((lake.root / "tensorboard" / policy).iterdir())) == 1
    )  # a file, not one for each step
