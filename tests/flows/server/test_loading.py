"""A deployment that was changed after its run was taken up, on a real server: neither the run's
process nor the worker executes what it says now.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun

from dapflow.flows.night import night
from dapflow.flows.server.deployed import start_of
from dapflow.flows.server.loading import load
from dapflow.flows.server.permissions import remember
from dapflow.storage import UserError

pytestmark = pytest.mark.usefixtures("prefect_server")
PLAIN = "prefect.deployments.steps.set_working_directory"
SHELL = "prefect.deployments.steps.run_shell_script"


@flow
def _other() -> None: ...


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a step of an attacker's leaves behind; nothing is allowed here."""
    monkeypatch.setenv("DAPFLOW_ALLOWED", str(tmp_path / "allowed.txt"))
    monkeypatch.setenv("DAPFLOW_ALLOW_COMMANDS", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mark"


def steps(mark: Path) -> list[dict[str, Any]]:
    return [{SHELL: {"script": f"touch {mark}"}}]


async def deployed(client: PrefectClient, entrypoint: str, pull: list[dict[str, Any]]) -> FlowRun:
    """A run of a deployment; deployed again, it is the same one, changed."""
    made = await client.create_deployment(
        await client.create_flow(_other),
        "changed",
        entrypoint=entrypoint,
        path=".",
        pull_steps=pull,
    )
    return await client.create_flow_run_from_deployment(made)


async def loaded(entrypoint: str, pull: list[dict[str, Any]], made_here: bool = False) -> Any:
    async with get_client() as client:
        run = await deployed(client, entrypoint, pull)
        assert run.deployment_id is not None
        if made_here:
            remember([start_of(await client.read_deployment(run.deployment_id))])
    return await load(run, use_placeholder_flow=False)


def test_a_deployment_of_our_flow_in_a_folder_is_loaded(mark: Path) -> None:
    assert (
        asyncio.run(
            loaded("dapflow.flows.night.night", [{PLAIN: {"directory": str(mark.parent)}}])
        ).fn
        is night.fn
    )


@pytest.mark.parametrize("made_here", [False, True])
def test_a_step_is_executed_only_if_the_deployment_was_made_here(
    mark: Path, made_here: bool
) -> None:
    if made_here:
        asyncio.run(loaded("dapflow.flows.night.night", steps(mark), made_here=True))
    else:
        with pytest.raises(UserError, match=f"asks for the pull step {SHELL}"):
            asyncio.run(loaded("dapflow.flows.night.night", steps(mark)))
    assert mark.exists() == made_here


def test_another_entry_point_is_not_imported(mark: Path) -> None:
    Path("evil.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom dapflow.flows.night import night\n"
    )
    with pytest.raises(UserError, match="asks for the entry point"):
        asyncio.run(loaded("evil.py:night", [{PLAIN: {"directory": "."}}]))
    assert not mark.exists()


def test_what_is_loaded_is_what_was_looked_at(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = list[Any]()
    read = PrefectClient.read_deployment

    async def then_changed(client: PrefectClient, deployment: Any) -> Any:
        was = await read(client, deployment)
        reads.append(was.pull_steps)
        await deployed(
            client, "dapflow.flows.night.night", steps(mark)
        )  # by somebody else, at this very moment
        return was

    async def attacked() -> None:
        async with get_client() as client:
            run = await deployed(client, "dapflow.flows.night.night", [{PLAIN: {"directory": "."}}])
        monkeypatch.setattr(PrefectClient, "read_deployment", then_changed)
        await load(run, use_placeholder_flow=False)

    asyncio.run(attacked())
    assert reads == [[{PLAIN: {"directory": "."}}]] and not mark.exists()


def test_the_process_of_a_run_loads_by_it(tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text(
        "import prefect.flow_engine as engine\nprint(engine.load_flow_from_flow_run.__module__)\n"
    )
    command = [
        sys.executable,
        "-P",
        "-W",
        "error::RuntimeWarning",
        "-m",
        "dapflow.flows.server.preload",
        "says",
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{load.__module__}\n", done.stderr
