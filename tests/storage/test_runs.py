"""Which runs there were and how they ended: done, failed with the reason, stopped, or killed."""

import pytest

from dapflow.storage import Lake
from dapflow.storage.runs import record_run
from tests.helpers.lakes import Made


def states(lake: Lake) -> list[tuple[str, str, str | None]]:
    return [
        (row["run"], row["state"], row["note"])
        for row in lake.rows("SELECT run, state, note FROM runs ORDER BY started_at")
    ]


def test_a_run_is_recorded_with_its_policies(lake: Lake, made: Made) -> None:
    with record_run(lake, "r", "rso", {"seed": 1}) as run:
        assert states(lake) == [("r", "running", None)]
        run.made(1, made["trained"], made["metrics"])
    assert states(lake) == [("r", "done", None)]
    assert lake.rows("SELECT run, iteration, policy FROM iterations") == [
        {"run": "r", "iteration": 1, "policy": made["trained"].version}
    ]
    with record_run(lake, "r", "rso", {}):  # the same flow run, tried again
        assert lake.rows("SELECT * FROM iterations") == []
    assert states(lake) == [("r", "done", None)]


class SuspendedRun(BaseException):
    """As Prefect's signal that ends the process of a run which waits."""


def test_a_failure_has_its_reason_and_a_signal_is_none(lake: Lake) -> None:
    with pytest.raises(RuntimeError), record_run(lake, "a", "rso", {}):
        raise RuntimeError("no more")
    with pytest.raises(KeyboardInterrupt), record_run(lake, "b", "rso", {}):
        raise KeyboardInterrupt
    with pytest.raises(SuspendedRun), record_run(lake, "c", "rso", {}):
        raise SuspendedRun
    assert states(lake) == [
        ("a", "failed", "RuntimeError: no more"),
        ("b", "stopped", None),
        ("c", "stopped", None),
    ]


def test_a_run_whose_process_is_gone_was_killed(lake: Lake) -> None:
    with record_run(lake, "alive", "rso", {}):
        pass
    lake.commit(
        lambda cursor: cursor.execute("UPDATE runs SET state = 'running', process = 4194304 + 1"),
        "as kill -9 leaves it",
    )
    with record_run(lake, "next", "rso", {}):
        assert states(lake) == [("alive", "failed", "killed"), ("next", "running", None)]
