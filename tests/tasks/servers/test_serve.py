"""A server of one's own: waited for, used, and ended with the step or with the process, however
that dies.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from dapflow.storage import UserError
from dapflow.tasks.servers.serve import served
from tests.helpers import ROOT

COMMAND = f"{sys.executable} -m tests.helpers.model_servers {{model}} {{port}}"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_it_answers_while_it_is_needed_and_is_gone_after(tmp_path: Path) -> None:
    log, said = tmp_path / "log", list[str]()
    others = set(psutil.Process().children(recursive=True))  # of this test run
    with served(COMMAND, tmp_path, log, say=said.append) as url:
        assert urlopen(f"{url}/models").status == 200
        family = [
            child for child in psutil.Process().children(recursive=True) if child not in others
        ]
        assert len(family) >= 3  # the supervisor, the server, and what the server has started
    assert psutil.wait_procs(family, timeout=15)[1] == []
    assert f"serving {tmp_path} on" in log.read_text()
    assert str(log) in said[0]


def test_it_ends_when_its_process_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, time; from dapflow.tasks.servers.serve import served\n"
        "with served(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[2]) / 'log') as url: print(url, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, COMMAND, str(tmp_path)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"http://127.0.0.1:")
        family = psutil.Process(parent.pid).children(recursive=True)
        os.kill(parent.pid, signal.SIGKILL)
    assert len(family) >= 3
    assert psutil.wait_procs(family, timeout=15)[1] == []


def test_a_command_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    broken = f"{sys.executable} -c \"raise SystemExit('no such option: --modle')\""
    with (
        pytest.raises(UserError, match=r"ended before it answered \(no such option: --modle\)"),
        served(broken, tmp_path, tmp_path / "log"),
    ):
        pass


def test_a_server_that_never_answers_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    silent = f'{sys.executable} -c "import time; time.sleep(600)"'
    with (
        pytest.raises(UserError, match="has not answered"),
        served(silent, tmp_path, tmp_path / "log", minutes=0.02),
    ):
        pass
    assert not [
        child
        for child in psutil.Process().children(recursive=True)
        if "time.sleep(600)" in " ".join(child.cmdline())
    ]
