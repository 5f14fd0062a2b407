"""What the environment says of threads before torch is loaded; what the user has set stays."""

import subprocess
import sys
from pathlib import Path

from dapflow.flows.server.environment import thread_defaults
from tests.helpers.lakes import empty_lake


def test_threads_wait_asleep_beside_others_unless_the_user_says_how_they_wait() -> None:
    assert int(thread_defaults({})["GOMP_SPINCOUNT"]) > 0
    for name in (
        "OMP_WAIT_POLICY",
        "GOMP_SPINCOUNT",
        "GOMP_CPU_AFFINITY",
        "OMP_PROC_BIND",
        "OMP_PLACES",
    ):
        assert "GOMP_SPINCOUNT" not in thread_defaults({name: "as chosen"})


def test_every_setting_of_threads_stands_before_torch_is_loaded(tmp_path: Path) -> None:
    script = (
        "import os, sys; from dapflow.flows.server.environment import prepare, thread_defaults; expected = thread_defaults(os.environ); prepare(None)\n"
        "assert expected and all(os.environ[name] == value for name, value in expected.items())\n"
        "assert 'torch' not in sys.modules"
    )
    assert _alone(script, tmp_path).returncode == 0


def test_a_command_that_runs_nothing_loads_torch_with_these_settings_too(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "sys.addaudithook(lambda event, about: event == 'import' and about[0] == 'torch' and print('torch', os.environ.get('GOMP_SPINCOUNT')))\n"
        "from dapflow.flows.cli.main import main; main(['report'])"
    )
    empty_lake(tmp_path / "lake")
    done = _alone(script, tmp_path)
    assert done.stdout.splitlines()[:1] == [f"torch {thread_defaults({})['GOMP_SPINCOUNT']}"], (
        done.stderr
    )


def test_what_the_user_has_set_of_threads_stays(tmp_path: Path) -> None:
    script = "import os; from dapflow.flows.server.environment import prepare; prepare(None); print(os.environ['GOMP_SPINCOUNT'], os.environ['RAYON_NUM_THREADS'])"
    done = _alone(script, tmp_path, GOMP_SPINCOUNT="7", RAYON_NUM_THREADS="3")
    assert (done.returncode, done.stdout) == (0, "7 3\n")


def _alone(script: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What becomes of a script in a process of its own, in a folder, with nothing set but this."""
    environment = {"PATH": "", "PREFECT_HOME": str(folder), "HOME": str(folder), **environment}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
