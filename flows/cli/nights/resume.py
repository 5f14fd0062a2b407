"""`dapflow resume` and `dapflow doctor`: after a failure, whatever it was, on with what the lake
holds.

Test: make test-nights
"""

import os
from typing import Any

from dapflow.flows.cli.nights.server import POOL, reach
from dapflow.flows.cli.options import AllowCommands, Lake, allow, existing
from dapflow.flows.display.screen import Screen, say
from dapflow.flows.server.environment import prepare
from dapflow.flows.server.run_server import put_behind_the_door
from dapflow.storage.errors import UserError


def resume(
    run: str | None = None,
    /,
    *,
    server: str | None = None,
    lake: Lake = "lake",
    allow_commands: AllowCommands = False,
) -> None:
    """Go on with a run that failed, crashed or was killed: what the lake holds is not done again.

    Example: dapflow resume

    Parameters
    ----------
    run
        Name or id of the run, or its beginning; the newest by default.
    server
        The Prefect server's API, if it is not PREFECT_API_URL; without either, the runs of the lake itself.
    """
    allow(allow_commands)
    _connect(server, lake)
    from prefect.client.orchestration import get_client
    from prefect.states import Scheduled

    from dapflow.flows.server.dead_runs import bury

    with existing(lake) as opened, get_client(sync_client=True) as client:
        for sentence in bury(opened):
            say(sentence)
        found = _find(client, run)
        if found.state.is_completed():
            say(f"{found.name} ended well ({found.state.name}): there is nothing to resume.")
            return
        if not found.state.is_final():
            raise UserError(f"{found.name} is {found.state.name}: it is not over yet.")
        if found.deployment_id is not None:
            client.set_flow_run_state(
                found.id, Scheduled(name="AwaitingRetry", message="dapflow resume"), force=True
            )
            say(f"{found.name} is scheduled again: a worker takes it up.")
            return
    say(f"{found.name}, once more ({found.state.message or found.state.name})")
    _again(found.parameters)


def doctor(*, server: str | None = None, lake: Lake = "lake") -> None:
    """Look after the lake and its Prefect server: runs whose process is gone (they are set to
    Crashed), workers, schedules.

    Example: dapflow doctor

    Parameters
    ----------
    server
        The Prefect server's API, if it is not PREFECT_API_URL; without either, the runs of the lake itself.
    """
    _connect(server, lake)
    from prefect.client.orchestration import get_client

    from dapflow.flows.server.dead_runs import bury
    from dapflow.storage.garbage import left_open

    with existing(lake) as opened, get_client(sync_client=True) as client:
        buried = bury(opened)
        say("\n".join(buried) or "runs: none whose process is gone")
        left = left_open(opened)
        size = sum(one.bytes for one in left) / 2**20
        print(
            f"lake: {len(left)} versions left open ({size:.1f} MiB): the next run goes on with "
            "them, `dapflow gc` takes them out"
        )
        if "PREFECT_API_URL" in os.environ:
            say("\n".join(_served(client)))


def _connect(server: str | None, lake: str) -> None:
    if url := server or os.environ.get("PREFECT_API_URL"):
        reach(url)
    existing(lake).close()  # before `prepare`, which makes one
    prepare(lake)
    if "PREFECT_API_URL" not in os.environ:
        put_behind_the_door()


def _find(client: Any, name: str | None) -> Any:
    """The newest run of a flow of ours that `name` stands for. Raises UserError when there is none."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    flows = FlowFilter(name=FlowFilterName(any_=["align", "night"]))
    runs = client.read_flow_runs(
        flow_filter=flows, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200
    )
    begun = [run for run in runs if not run.state.is_scheduled()]
    found = [
        run for run in begun if name is None or str(run.id).startswith(name) or run.name == name
    ]
    if not found:
        raise UserError(
            "There is no such run"
            + (
                f" as {name}: `dapflow ui` shows them."
                if name
                else ": start one with `dapflow run`."
            )
        )
    return found[0]


def _again(parameters: dict[str, Any]) -> None:
    from dapflow.flows.align import align, chosen
    from dapflow.flows.display.console import ConsoleReporter, print_summary
    from dapflow.flows.night import in_words, night
    from dapflow.tasks.step.progress import report_to

    chosen(
        parameters.get("recipe", "rso"),
        parameters.get("settings", ()),
        parameters.get("toy", False),
        from_parameters=True,
    )
    reporter = ConsoleReporter(Screen())
    with reporter, report_to(reporter):
        if "iterations" in parameters:
            result: Any = align(**parameters)
        else:
            say(in_words(night(**parameters)))
            return
    print_summary(Screen(), result, reporter.records)


def _served(client: Any) -> list[str]:
    """What a server says of its workers and schedules."""
    from prefect.exceptions import ObjectNotFound

    try:
        workers = client.read_workers_for_work_pool(POOL)
    except ObjectNotFound:
        return ["server: no work pool yet, `dapflow deploy` makes it"]
    online = [worker.name for worker in workers if worker.status == "ONLINE"]
    lines = [
        f"workers: {', '.join(online)}"
        if online
        else "workers: none is alive, `dapflow worker` starts one"
    ]
    for deployment in client.read_deployments():
        active = [schedule for schedule in deployment.schedules if schedule.active]
        lines.append(
            f"deployment {deployment.name}: {len(active)} of {len(deployment.schedules)} "
            "schedules on"
        )
    return lines
