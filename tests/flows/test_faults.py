"""Ctrl-C and kill -9 in the middle of a run: nothing half-written, and the run that goes on ends
with the same rows and weights.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dapflow.flows.align import align
from dapflow.flows.server import interrupt
from dapflow.storage import Lake
from dapflow.storage.schema import NOUNS
from tests.helpers.toy import BY_LENGTH, dapflow, words

SECRETS = {
    name: f"planted-{name.lower()}"
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD")
}
SETTINGS = [
    *BY_LENGTH,
    "prompts.per_iteration=8",
    "sampling.n=4",
    "training.checkpoint_every_steps=1",
]


def stopped_after(line: str, with_signal: signal.Signals, lake: Path) -> tuple[int, str, int]:
    """Start a run in a process of its own and send the signal once a line of its progress holds
    `line`. Exit code, standard error, and the process of its server.
    """

    command = [
        sys.executable,
        "-u",
        "-m",
        "dapflow.flows.cli.main",
        "run",
        "rso",
        "--toy",
        "--json",
        "--lake",
        str(lake),
        *words(*SETTINGS),
    ]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT")
    } | SECRETS
    log = lake.with_suffix(".log")
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stderr=stderr, stdout=subprocess.DEVNULL, env=environment
        )
    until = time.monotonic() + 120
    while line not in log.read_text() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert process.poll() is None, log.read_text()
    server = server_of(process.pid)
    process.send_signal(with_signal)
    return process.wait(60), log.read_text(), server


def server_of(run: int) -> int:
    """The process of the server that a run has started, its child."""
    children = psutil.Process(run).children()
    [server] = [
        child.pid for child in children if "dapflow.flows.server.prefect_server" in child.cmdline()
    ]
    return server


def has_ended(process: int) -> bool:
    """Within seconds."""
    until = time.monotonic() + 15
    while psutil.pid_exists(process) and time.monotonic() < until:
        time.sleep(0.05)
    return not psutil.pid_exists(process)


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=lambda number: number.name,
)
def test_a_run_whose_whole_group_is_sent_a_signal_ends_at_once_and_so_does_its_server(
    tmp_path: Path, number: signal.Signals
) -> None:
    # As a terminal does, and `timeout`. Most harm was done while the flow began: without its server
    # Prefect tried for minutes to tell it so.
    events = tmp_path / "events"
    events.touch()
    command = [
        sys.executable,
        "-u",
        "-m",
        "dapflow.flows.cli.main",
        "run",
        "rso",
        "--toy",
        "--lake",
        str(tmp_path / "lake"),
        *words(*SETTINGS),
    ]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT")
    } | {"DAPFLOW_LOG": str(events)}
    until = time.monotonic() + 120
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, stderr=log, stdout=log, env=environment, start_new_session=True
        )
    while (
        "run.started" not in events.read_text()
        and process.poll() is None
        and time.monotonic() < until
    ):
        time.sleep(0.02)
    server = server_of(process.pid)
    os.killpg(process.pid, number)
    assert process.wait(30) == 130, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert "Nothing is lost" in said and "Traceback" not in said and "Error" not in said
    assert has_ended(server)


@pytest.mark.usefixtures("prefect_server")
def test_a_ctrl_c_that_prefect_turns_into_an_error_of_its_own_stops_the_run_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # It comes while Prefect begins a task run, whose crash it then cannot note down: ValueError,
    # "Task run is not set".
    monkeypatch.setattr(interrupt, "_asked", False)
    monkeypatch.setattr(
        "prefect.task_engine._create_task_run_locally",
        lambda *_, **__: signal.raise_signal(signal.SIGINT),
    )
    code, _, said = dapflow(
        "run", "rso", "--toy", "--lake", str(tmp_path / "lake"), *words(*BY_LENGTH), capsys=capsys
    )
    assert code == 130, said
    assert "Nothing is lost" in said
    with Lake(tmp_path / "lake", read_only=True) as lake:
        assert lake.rows("SELECT state, note FROM runs") == [{"state": "stopped", "note": None}]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_was_stopped_twice_ends_like_one_that_was_not(tmp_path: Path) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    code, said, _ = stopped_after("load train prompts", signal.SIGINT, stopped)
    assert code == 130, said
    assert "Nothing is lost" in said
    assert "Traceback" not in said
    code, said, server = stopped_after("pair 32 candidates", signal.SIGKILL, stopped)
    assert code == -signal.SIGKILL, said
    assert has_ended(server)
    results = [align("rso", 1, SETTINGS, True, str(lake)) for lake in (stopped, whole)]
    for result in results:
        for one in result["iterations"]:
            del one["report"]  # where it lies is the lake's own
    assert results[0]["iterations"] == results[1]["iterations"]
    lakes = [Lake(stopped), Lake(whole)]
    for noun in NOUNS:
        timed = (
            "WHERE name NOT IN ('tokens_per_second', 'peak_memory_gib')"
            if noun == "metrics"
            else ""
        )
        rows = [lake.rows(f"SELECT * FROM {noun} {timed} ORDER BY id") for lake in lakes]
        assert rows[0] == rows[1], noun  # models by their digests: the weights are equal to the bit
        assert len({row["id"] for row in rows[0]}) == len(rows[0])
    assert lakes[0].rows("SELECT * FROM versions WHERE state = 'open'") == []
    assert not list((stopped / "checkpoints").iterdir())
    for lake in lakes:
        lake.close()
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [
        path for path in everything if b"planted-" in path.read_bytes()
    ]  # no key in the lake, an artifact or a log
