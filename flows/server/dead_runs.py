"""Runs that a Prefect server believes to be going on although their process is gone: after kill -9,
a full memory, a power cut.

    bury(lake)      each becomes Crashed, with the reason, and gives back its slot; or Completed, where the lake says that it ended well
    end_earlier_attempts(run)       a run that is tried again: the tasks that it was at when it was killed
The lake knows the process of every run (`dapflow.storage.runs`), a worker that of every run it
started. Of runs on other machines the server hears by their heartbeats (`dapflow deploy`), and the
lake from the server. Test: pytest tests/flows/server/test_dead_runs.py, make test-nights
"""

import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed

from dapflow.storage import Lake
from dapflow.storage.runs import Ending, endings, write_off

_PENDING = timedelta(minutes=5)  # how long a worker may take to start a process
_UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def bury(lake: Lake) -> list[str]:
    """Set every run whose process is gone to its final state, at the server and in the lake.
    Returns a sentence about each.
    """
    ended = endings(lake)
    with get_client(sync_client=True) as client:
        elsewhere = [
            run
            for run, ending in ended.items()
            if ending.state == "running" and not ending.here and _is_over(client, run)
        ]
        for run in elsewhere:
            write_off(lake, run)
        buried = [
            _bury(client, run, ended.get(str(run.id)))
            for run in _unfinished(client)
            if run.parent_task_run_id is None and _is_dead(client, run, ended.get(str(run.id)))
        ]
        # Of a run that a worker, or the want of a heartbeat, has set to Crashed, its tasks are not
        # told.
        _end_tasks(
            client,
            FlowRunFilter(state=_type(StateType.CRASHED, StateType.CANCELLED)),
            but=_unfinished(client),
        )
    return buried + [
        f"{run}, on another machine, is over, says the server: it was killed" for run in elsewhere
    ]


def _is_over(client: SyncPrefectClient, run: str) -> bool:
    """Whether the server knows that a run of the lake has ended."""
    try:
        state = client.read_flow_run(UUID(run)).state
    except ObjectNotFound:  # of another server
        return False
    return state is not None and state.is_final()


def end_earlier_attempts(run: str) -> None:
    """To be called by a run that begins: tasks that it has left Running, when it was killed, would
    stay so for ever.
    """
    with get_client(sync_client=True) as client:
        this = client.read_flow_run(UUID(run))
        children = _unfinished(client, this.id)
        _end_tasks(client, _only(this, *children), but=children)


def _unfinished(client: SyncPrefectClient, parent: Any = None) -> list[FlowRun]:
    within = FlowRunFilterParentFlowRunId(any_=[parent]) if parent else None
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=_type(*_UNFINISHED), parent_flow_run_id=within)
    )


def _is_dead(client: SyncPrefectClient, run: FlowRun, ending: Ending | None) -> bool:
    """Whether nobody on this machine works on it. Of other machines nothing is said: then it is not
    dead.
    """
    assert run.state is not None
    if _is_here(run):
        return False
    if run.state.type == StateType.PENDING and datetime.now(UTC) - run.state.timestamp < _PENDING:
        return False
    if ending is not None:
        return ending.gone
    return run.deployment_id is not None and _only_machine(client, run)


def _is_here(run: FlowRun) -> bool:
    """Whether the process that a worker has started for this very run is alive on this machine."""
    try:
        return psutil.Process(int(run.infrastructure_pid or "")).environ().get(
            "PREFECT__FLOW_RUN_ID"
        ) == str(run.id)
    except (ValueError, psutil.Error):
        return False


def _only_machine(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether all workers that could have started it are, or were, on this machine: `dapflow
    worker` names them by their host.
    """
    if run.work_pool_name is None:
        return False
    workers = client.read_workers_for_work_pool(run.work_pool_name)
    return all(worker.name.partition(" ")[0] == socket.gethostname() for worker in workers)


def _bury(client: SyncPrefectClient, run: FlowRun, ending: Ending | None) -> str:
    if ending is not None and ending.state == "done":
        state, sentence = (
            Completed(message="It ended, says the lake, while the server was away."),
            "had ended well: Completed",
        )
    else:
        why = f" ({ending.note})" if ending is not None and ending.note else ""
        state, sentence = (
            Crashed(
                message=f"Its process is gone{why}. The next run goes on from what is in the lake."
            ),
            "is gone: Crashed",
        )
    for child in _unfinished(client, run.id):
        _end_tasks(client, _only(child))
        client.set_flow_run_state(child.id, state, force=True)
    _end_tasks(client, _only(run))
    client.set_flow_run_state(run.id, state, force=True)
    return f"{run.name} ({run.id}) {sentence}"


def _end_tasks(client: SyncPrefectClient, of: FlowRunFilter, but: Sequence[FlowRun] = ()) -> None:
    """Set the unfinished tasks of some runs to Crashed, `but` those that stand for a run which is
    not over: Prefect may take it up again.
    """
    going_on = {run.parent_task_run_id for run in but}
    unfinished = TaskRunFilter(
        state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_UNFINISHED))
    )
    for task_run in client.read_task_runs(flow_run_filter=of, task_run_filter=unfinished):
        if task_run.id not in going_on:
            client.set_task_run_state(
                task_run.id, Crashed(message="The process of its flow is gone."), force=True
            )


def _only(*runs: FlowRun) -> FlowRunFilter:
    return FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs]))


def _type(*types: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))
