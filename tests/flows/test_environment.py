"""The server that a killed run left behind is ended by the next one, wherever Prefect keeps its home."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.environment import prepare

_LEAVES_A_CHILD = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdout=2).pid)"


def test_a_home_of_one_s_own_is_where_the_orphan_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("PREFECT_HOME", str(home))
    left = subprocess.run([sys.executable, "-c", _LEAVES_A_CHILD], stdout=subprocess.PIPE, text=True, check=True)
    orphan = psutil.Process(int(left.stdout))
    (home / "server.json").write_text(json.dumps({"pid": orphan.pid, "started": orphan.create_time()}))
    prepare(str(tmp_path / "lake"))
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
