"""`dapflow deploy`: the nights on a Prefect server. Deploying again changes what has changed, and
nothing else.

    dapflow ui &  dapflow worker &  dapflow deploy --recipe rso --cron "0 1 * * *" --timezone Europe/Berlin --notify https://...
Test: make test-nights
"""

import importlib.resources
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import Parameter, validators

from dapflow.flows.cli.nights.server import HEARTBEAT_SECONDS, LOCAL, POOL, Server, reach
from dapflow.flows.cli.options import Lake
from dapflow.flows.server.deployed import start_of
from dapflow.flows.server.environment import prepare
from dapflow.flows.server.permissions import remember
from dapflow.storage.errors import UserError
from dapflow.storage.location import locate

QUEUE = "nights"


def deploy(
    *,
    recipe: Annotated[tuple[str, ...], Parameter(negative=())] = ("rso",),
    cron: str | None = None,
    timezone: str | None = None,
    settings: Annotated[
        tuple[str, ...],
        Parameter(name="--set", help="Change the recipes: key=value, repeatable.", negative=()),
    ] = (),
    toy: Annotated[bool, Parameter(negative=())] = False,
    notify: Annotated[str | None, Parameter(env_var="DAPFLOW_NOTIFY")] = None,
    dead_after: Annotated[
        int, Parameter(validator=validators.Number(gte=2 * HEARTBEAT_SECONDS))
    ] = 300,
    file: Path | None = None,
    lake: Lake = "lake",
    server: Server = LOCAL,
) -> None:
    """Set up a Prefect server for nights: work pool, one night at a time, a deployment for each
    recipe, automations. Repeat it at will.

    Example: dapflow deploy --recipe rso --cron "0 1 * * *" --timezone Europe/Berlin

    Parameters
    ----------
    recipe
        Recipes whose schedule is switched on, repeatable; the others can be started, and switched on, in the UI.
    cron
        When, as in crontab; what deployments/prefect.yaml says by default.
    timezone
        In which time zone, for example Europe/Berlin.
    toy
        On a toy model: to try it all.
    notify
        Who is told of failures, closed gates and spent budgets: the URL of a webhook, or TYPE/NAME of a notification block of the server.
    dead_after
        Seconds without a sign of life after which a run is set to Crashed.
    file
        Another prefect.yaml.
    """
    reach(server)
    prepare(lake)
    described = describe(file, recipe, cron, timezone, lake, settings, toy)
    from prefect.client.orchestration import get_client

    from dapflow.flows.server.automations import set_up

    with get_client(sync_client=True) as client:
        _pool(client)
        _prefect_deploy(described)
        remember(
            start_of(client.read_deployment_by_name(_full_name(one)))
            for one in described["deployments"]
        )
        told = set_up(client, notify, dead_after)
    for one in described["deployments"]:
        for schedule in one["schedules"]:
            when = f"{schedule['cron']} {schedule['timezone']}" + (
                "" if schedule["active"] else ", switched off"
            )
            print(f"night/{one['name']:<24} {when}")
    print("\n".join(told))
    first = next(
        one["name"] for one in described["deployments"] if one["parameters"]["recipe"] in recipe
    )
    print(
        f"UI: {server.removesuffix('/api')}   start one now: PREFECT_API_URL={server} prefect "
        f"deployment run night/{first}"
    )


def describe(
    file: Path | None,
    active: tuple[str, ...],
    cron: str | None,
    timezone: str | None,
    lake: str,
    settings: tuple[str, ...],
    toy: bool,
) -> dict[str, Any]:
    """prefect.yaml with the choices made here. Raises UserError for what a night would stumble
    over: nobody is awake then.
    """
    path = file or Path(str(importlib.resources.files("dapflow.deployments") / "prefect.yaml"))
    if not path.is_file():
        raise UserError(f"There is no file {path}: name a prefect.yaml with --file.")
    described = yaml.safe_load(path.read_text())
    known = [one["parameters"]["recipe"] for one in described["deployments"]]
    if unknown := [one for one in active if one not in known]:
        raise UserError(
            f"There is no deployment for `{unknown[0]}` in {path}: choose of {', '.join(known)}, "
            "or add one there."
        )
    described["pull"] = [
        {"prefect.deployments.steps.set_working_directory": {"directory": os.getcwd()}}
    ]
    for one in described["deployments"]:
        one["parameters"] |= {"settings": list(settings), "toy": toy, "lake": locate(lake).address}
        for schedule in one["schedules"]:
            schedule["active"] = one["parameters"]["recipe"] in active
            schedule["cron"], schedule["timezone"] = (
                cron or schedule["cron"],
                timezone or schedule["timezone"],
            )
            _check_schedule(schedule["cron"], schedule["timezone"])
    _check_settings(active, settings, toy)
    return described


def _check_schedule(cron: str, timezone: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        wrong = error.errors()[0]
        example = (
            'as in crontab, "0 1 * * *" for one at night'
            if wrong["loc"] == ("cron",)
            else "for example Europe/Berlin"
        )
        raise UserError(
            f"--{wrong['loc'][0]} {wrong['input']}: Prefect does not know it. Write it {example}."
        ) from error


def _check_settings(active: tuple[str, ...], settings: tuple[str, ...], toy: bool) -> None:
    """Raises UserError for what an active recipe does not take; what it executes is allowed from
    now on, on this machine. Keys of judges are not asked for: they are the worker's."""
    from dapflow.flows.recipes.changes import change
    from dapflow.flows.recipes.methods import recipe_named
    from dapflow.flows.recipes.toy import toy as toy_of
    from dapflow.flows.server.recipe_code import executed_by

    for name in active:
        recipe = recipe_named(name)
        remember(executed_by(name, change(toy_of(recipe) if toy else recipe, settings)))


def _full_name(deployment: dict[str, Any]) -> str:
    """Of its flow, by the last word of the entry point, and of itself."""
    return f"{deployment['entrypoint'].replace(':', '.').rpartition('.')[2].replace('_', '-')}/{deployment['name']}"


def _pool(client: Any) -> None:
    """The work pool, and its queue that lets one night at a time through. A pool of another type,
    made by hand, stays what it is.
    """
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(name=POOL, type="process", base_job_template=template)
        )
    except ObjectAlreadyExists:
        pass
    try:
        queue = client.read_work_queue_by_name(QUEUE, work_pool_name=POOL)
    except ObjectNotFound:
        queue = client.create_work_queue(QUEUE, work_pool_name=POOL)
    client.update_work_queue(queue.id, concurrency_limit=1)


def _prefect_deploy(described: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prefect.yaml"
        path.write_text(yaml.safe_dump(described))
        command = [
            sys.executable,
            "-P",
            "-m",
            "dapflow.flows.server.preload",
            "prefect",
            "--no-prompt",
            "deploy",
            "--all",
            "--prefect-file",
            str(path),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=os.environ | {"PREFECT_LOGGING_LEVEL": "ERROR"},
        )
    if done.returncode:
        raise UserError(
            f"Prefect does not take the deployments: {(done.stderr + done.stdout).strip()[-500:]}"
        )
