"""Commands in a folder whose files are called like Python's modules and ours: none is executed, and
what the user names of it is.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.services import Services, services, settings, wait
from tests.helpers.processes import free_port
from tests.helpers.shadows import shadow
from tests.helpers.toy import QUICK, words

COMMAND = [
    sys.executable,
    "-P",
    "-m",
    "dapflow.flows.cli.main",
]  # as the console script: it begins with a folder of its own on its path
_JUDGE = "def score(prompt, completion): return float(len(completion))\n"
_SERVER_AHEAD = """
from dapflow.flows.server.environment import prepare
prepare(None)
from dapflow.flows.server.run_server import server_ahead
with server_ahead():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Callable[[], list[str]]]:
    """Where the user stands, and what has been executed of it."""
    executed = shadow(tmp_path / "here")
    (tmp_path / "here" / "mine.py").write_text(_JUDGE)
    return tmp_path / "here", executed


def environment(tmp_path: Path) -> dict[str, str]:
    """That of a user who has set nothing."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT") and name != "PYTHONSAFEPATH"
    }
    return clean | {"PREFECT_HOME": str(tmp_path / "home")}


def done(command: list[str], here: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=here, env=environment(here.parent), capture_output=True, text=True, check=False
    )


def test_a_folder_of_such_files_is_one_that_an_unsafe_process_falls_for(
    folder: tuple[Path, Callable[[], list[str]]],
) -> None:
    here, executed = folder
    done([sys.executable, "-c", "import secrets"], here)
    assert [line.split()[0] for line in executed()] == ["secrets"]


@pytest.mark.slow
def test_the_server_that_a_run_starts_executes_none_of_them(
    folder: tuple[Path, Callable[[], list[str]]],
) -> None:
    here, executed = folder
    started = done([sys.executable, "-P", "-c", _SERVER_AHEAD], here)
    assert started.returncode == 0, started.stderr
    assert executed() == []


def test_a_judge_in_the_folder_is_found_by_the_name_of_its_module(
    folder: tuple[Path, Callable[[], list[str]]],
) -> None:
    here, executed = folder
    planned = done([*COMMAND, "plan", "rso", "--toy", *words(*QUICK, "judge=mine:score")], here)
    assert planned.returncode == 0, planned.stderr
    refused = done([*COMMAND, "plan", "rso", "--toy", *words(*QUICK, "judge=secrets:score")], here)
    assert refused.returncode == 2 and "secrets has no function `score`" in refused.stderr
    assert executed() == []


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["judge=mine:score", "training.processes=2"])
def test_a_run_executes_none_of_them(
    folder: tuple[Path, Callable[[], list[str]]], setting: str
) -> None:
    here, executed = folder
    ran = done(
        [
            *COMMAND,
            "run",
            "rso",
            "--toy",
            "--lake",
            str(here.parent / "lake"),
            *words(*QUICK, "judge=shorter", setting),
        ],
        here,
    )
    assert ran.returncode == 0, ran.stderr
    assert executed() == []


@pytest.mark.slow
def test_a_served_model_executes_none_of_them(folder: tuple[Path, Callable[[], list[str]]]) -> None:
    here, executed = folder
    url = f"http://127.0.0.1:{(port := free_port())}/v1/models"
    with (here.parent / "log").open("w") as log:
        served = subprocess.Popen(
            [*COMMAND, "serve", "toy", "--port", str(port)],
            cwd=here,
            env=environment(here.parent),
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + 120
        while not answers(url) and served.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        assert answers(url), (here.parent / "log").read_text()
    finally:
        served.send_signal(signal.SIGTERM)
        served.wait(60)
    assert executed() == []


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


class InFolder(Services):
    """Server, worker and commands in a folder of the user's."""

    def command(self, *arguments: str) -> list[str]:
        change = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        return [sys.executable, "-c", change, str(self.folder / "here"), *COMMAND[1:], *arguments]


@pytest.mark.nights
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("default")
def test_server_worker_and_nights_execute_none_of_them(tmp_path: Path) -> None:
    executed = shadow(tmp_path / "here")
    (tmp_path / "here" / "mine.py").write_text(_JUDGE)
    with services(tmp_path, kind=InFolder) as run:
        run.dapflow("deploy", "--toy", *settings((*QUICK, "judge=mine:score")))
        killed = run.start_night()
        wait("it works", lambda: run.begun(killed, "load"), lambda: str(run.state(killed)))
        process = run.process_of(killed)
        assert process is not None
        process.kill()
        run.wait_for(killed, "Crashed")  # and the worker looks for hooks
        night = run.start_night()
        ended: dict[str, Any] = run.wait_for(night, "GateClosed", "Promoted", "Failed", "Crashed")
        assert ended["name"] in ("GateClosed", "Promoted"), json.dumps(ended)
    assert executed() == []
