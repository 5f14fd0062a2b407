"""Runs whose process was killed, on a real server: what is at work on them meanwhile, and what is
left behind. With real kills: make test-nights.
"""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import AwaitingRetry, Crashed, Pending, Running, Scheduled
from prefect.workers.process import ProcessWorker

from dapflow.flows.server.dead_runs import bury, end_earlier_attempts
from dapflow.flows.server.worker import Worker
from dapflow.storage import Lake, LakeError
from dapflow.storage.garbage import collect

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow
def _night() -> None: ...


@task
def _task() -> None: ...


def run_of(client: SyncPrefectClient, *states: State) -> FlowRun:
    """A run that has gone through these states, as it was when a worker took it up."""
    run = client.create_flow_run(_night, state=Scheduled())
    for state in states:
        client.set_flow_run_state(run.id, state, force=True)
    return run


def say_crashed(worker: type[ProcessWorker], run: FlowRun) -> None:
    """What a worker does at the end of a run whose process was killed, after it has looked for
    hooks.
    """

    async def say() -> None:
        async with worker(work_pool_name="of-tests") as one:
            await one._propose_crashed_state(
                run, "Flow run infrastructure exited with non-zero status code -9."
            )

    asyncio.run(say())


@pytest.mark.parametrize(
    "since",
    [[AwaitingRetry()], [AwaitingRetry(), Pending()], [AwaitingRetry(), Pending(), Running()]],
)
def test_a_worker_does_not_undo_what_was_scheduled_again_while_it_looked_for_hooks(
    since: list[State],
) -> None:
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name="of-tests", type="process"))
        killed = (Pending(), Running(), Crashed(message="Process exited with status code: -9."))
        ends = dict[type[ProcessWorker], str]()
        for worker in (Worker, ProcessWorker):
            run = run_of(client, *killed, *since)
            say_crashed(worker, run)
            ends[worker] = client.read_flow_run(run.id).state_name or ""
        assert ends == {Worker: since[-1].name, ProcessWorker: "Crashed"}
        run = run_of(client, Pending(), Running())
        say_crashed(Worker, run)  # nobody has said so before: the server did not answer
        assert client.read_flow_run(run.id).state_name == "Crashed"


def test_tasks_of_an_attempt_that_was_killed_end_with_the_next_one() -> None:
    with get_client(sync_client=True) as client:
        run = run_of(client, Pending(), Running())
        parent = client.create_task_run(_task, run.id, "iteration-0", state=Running())
        child = client.create_flow_run(_night, state=Running(), parent_task_run_id=parent.id)
        at_work = [
            client.create_task_run(_task, one, "1", state=Running()) for one in (run.id, child.id)
        ]
        end_earlier_attempts(str(run.id))
        assert [client.read_task_run(one.id).state_name for one in at_work] == [
            "Crashed",
            "Crashed",
        ]
        assert client.read_task_run(parent.id).state_name == "Running"
        assert client.read_flow_run(child.id).state_name == "Running"


def test_tasks_of_a_run_that_others_have_set_to_crashed_end_with_it(lake: Lake) -> None:
    with get_client(sync_client=True) as client:
        run = run_of(client, Pending(), Running())
        parent = client.create_task_run(_task, run.id, "iteration-0", state=Running())
        child = client.create_flow_run(_night, state=Running(), parent_task_run_id=parent.id)
        at_work = client.create_task_run(_task, child.id, "1", state=Running())
        client.set_flow_run_state(
            run.id, Crashed(message="Process exited with status code: -9."), force=True
        )  # as a worker does
        bury(lake)
        states = [client.read_task_run(one.id).state_name for one in (parent, at_work)]
        assert states == ["Running", "Running"]  # the child may be taken up again ...
        client.set_flow_run_state(
            child.id, Crashed(message="No sign of life for 60 seconds."), force=True
        )
        bury(lake)
        states = [client.read_task_run(one.id).state_name for one in (parent, at_work)]
        assert states == ["Crashed", "Crashed"]  # ... or not


def test_a_run_that_died_with_its_machine_stands_in_nobodys_way(lake: Lake) -> None:
    def begin(cursor: Any) -> None:
        for run in (dead, alive):
            values = [str(run.id), "a machine that is gone"]
            cursor.execute(
                "INSERT INTO runs (run, recipe, state, host, process, started_at) VALUES (?, 'rso', 'running', ?, 1, now())",
                values,
            )

    with get_client(sync_client=True) as client:
        dead, alive = run_of(client, Pending(), Running()), run_of(client, Pending(), Running())
        lake.commit(begin, "two runs")
        client.set_flow_run_state(
            dead.id, Crashed(message="No sign of life for 300 seconds."), force=True
        )
        assert [sentence for sentence in bury(lake) if "another machine" in sentence] == [
            f"{dead.id}, on another machine, is over, says the server: it was killed"
        ]
        assert lake.rows("SELECT run, state FROM runs WHERE state = 'running'") == [
            {"run": str(alive.id), "state": "running"}
        ]
        with pytest.raises(LakeError, match="have it written off"):
            collect(lake, [])
        client.set_flow_run_state(alive.id, Crashed(), force=True)
        bury(lake)
        collect(lake, [])
