"""How a run is started, as its deployment says: that a worker starts our flows as `dapflow deploy`
has them started, and nothing else.

A deployment on a server may name any command, any environment and steps before the flow, and so may
a run and a work pool: whoever reaches the server can write them. Test: pytest
tests/flows/server/test_permissions.py
"""

import json
import os
from typing import Any

from dapflow.flows.server.environment import ALLOW
from dapflow.storage import UserError

FLOWS = ("dapflow.flows.night.night", "dapflow.flows.align.align")
_DIRECTORY = "prefect.deployments.steps.set_working_directory"
_HARMLESS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY"}


def start_of(deployment: Any) -> str:
    """What a deployment of Prefect's says of how its runs are started, all of it, as text."""
    said = {
        "entrypoint": deployment.entrypoint,
        "path": deployment.path,
        "pull": deployment.pull_steps,
        "job": deployment.job_variables,
    }
    return f"start {json.dumps(said, sort_keys=True, default=str)}"


def unusual(deployment: Any) -> str | None:
    """What a deployment executes beside one of our flows in a directory, in words; None for those
    that `dapflow deploy` makes by itself.
    """
    if deployment.entrypoint not in FLOWS:
        return f"the entry point {deployment.entrypoint}"
    if steps := [
        step
        for step in deployment.pull_steps or []
        if step.keys() != {_DIRECTORY} or step[_DIRECTORY].keys() != {"directory"}
    ]:
        return f"the pull step {next(iter(steps[0]), '')}"
    return None


def of_job(deployment: Any) -> dict[str, Any]:
    """What a deployment itself says of the process."""
    return {
        name: value
        for name, value in (deployment.job_variables or {}).items()
        if name in ("command", "env", "working_dir")
    }


def changed(configured: Any, plain: Any) -> str | None:
    """In what a configuration of a process worker differs from another, in words; None: in nothing
    that decides what is executed.
    """
    if configured.command != plain.command:
        return f"the command {configured.command}"
    if configured.working_dir != plain.working_dir:
        return f"the working directory {configured.working_dir}"
    names = {
        name
        for name in configured.env.keys() | plain.env.keys()
        if configured.env.get(name) != plain.env.get(name)
    } - _HARMLESS
    return f"the environment variable {min(names)}" if names else None


def refuse(asked: str | None) -> None:
    """Raises UserError for what would be executed beside our flows, in words, unless this process
    allows all.
    """
    if asked and os.environ.get(ALLOW) != "1":
        raise UserError(
            f"The run, its deployment or the work pool asks for {asked}, which `dapflow deploy` "
            "was not given on this machine: "
            "have the deployment made here, or start the worker with --allow-commands."
        )
