"""What a run may execute, through a real server and worker: what its deployment was made with here,
and nothing that the server was told since.

make test-nights
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.services import SMALL, Services, services, settings

pytestmark = [pytest.mark.nights, pytest.mark.timeout(0)]
JUDGE = (
    "def score(prompt, completion):\n    open('{mark}', 'w').close()\n    return -len(completion)\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("allowed")
    (root / "mine.py").write_text(JUDGE.format(mark=root / "mine"))
    (root / "theirs.py").write_text(JUDGE.format(mark=root / "theirs"))
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Services]:
    with services(folder, {"DAPFLOW_ALLOWED": str(folder / "data" / "allowed.txt")}) as found:
        found.dapflow("deploy", "--toy", *settings(SMALL, [f"judge={folder}/mine.py:score"]))
        yield found


def start(run: Services, **body: Any) -> str:
    found = run.api("deployments/name/night/rso")
    whole = {"state": {"type": "SCHEDULED"}, "parameters": found["parameters"]} | body
    return str(run.api(f"deployments/{found['id']}/create_flow_run", whole)["id"])


def test_a_deployment_keeps_what_it_was_made_with(run: Services, folder: Path) -> None:
    run.wait_for(run.start_night(), "GateClosed", "Promoted")
    assert (folder / "mine").exists()


def test_a_run_executes_nothing_that_its_parameters_alone_name(run: Services, folder: Path) -> None:
    command = [
        "sampler.engine=openai",
        "sampler.endpoint.model=m",
        f"sampler.serve=touch {folder}/command {{port}}",
    ]
    for wanted in (command, [f"judge={folder}/theirs.py:score"]):
        state = run.wait_for(run.start_night(settings=[*SMALL, *wanted]), "Failed")
        assert (
            "The run's parameters ask by" in state["message"]
            and "--allow-commands" in state["message"]
        )
    assert not (folder / "command").exists() and not (folder / "theirs").exists()


@pytest.mark.parametrize(
    "variables", [{"command": "touch {folder}/command"}, {"env": {"DAPFLOW_ALLOW_COMMANDS": "1"}}]
)
def test_a_run_is_started_as_all_are(
    variables: dict[str, Any], run: Services, folder: Path
) -> None:
    filled = {
        name: value.format(folder=folder) if isinstance(value, str) else value
        for name, value in variables.items()
    }
    state = run.wait_for(start(run, job_variables=filled), "Crashed")
    assert "which `dapflow deploy` was not given on this machine" in state["message"]
    assert not (folder / "command").exists()
