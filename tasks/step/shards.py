"""A step cut into shards: each is a Prefect task that writes its share of the step's chunks, in
threads or on a Dask or Ray cluster.

    with use_shards(Shards(count=8)): ...             # a run's choice
    spread(out, write, total, prompts=prompts, ...)   # write(out, prompts=prompts, ...) writes the chunks that `out.missing` gives
How many shards there are, and where, is no part of a version: a chunk is the same whoever writes
it. Test: pytest tests/tasks/step/test_shards.py
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import Lake, UserError
from dapflow.storage.versions import OpenVersion
from dapflow.tasks.step import Out, Share, use_lake
from dapflow.tasks.step.artifacts import ProgressArtifact
from dapflow.tasks.step.progress import Silent, report_to, reporter

_POLL_SECONDS = 0.5
_REPORT_SECONDS = 20.0
Write = Callable[..., None]


class Shards(BaseModel):
    """How many shards a step is cut into, and what runs them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int = Field(
        default=1,
        ge=1,
        description="into how many Prefect tasks sampling and judging are cut; 1: none",
    )
    runner: Literal["threads", "dask", "ray"] = Field(
        default="threads", description="threads of this process, or a cluster's processes"
    )
    address: str | None = Field(
        default=None,
        description="of a Dask or Ray cluster; else one of `count` processes on this machine",
    )


_shards: ContextVar[Shards] = ContextVar("shards")
one_at_a_time = threading.Lock()
"""Held by what works with a model in this process: threads that share its processor gain nothing
side by side, and it is loaded once.
"""


@contextmanager
def use_shards(shards: Shards) -> Iterator[None]:
    """Steps called inside the block that can be cut are cut into these."""
    token = _shards.set(shards)
    try:
        yield
    finally:
        _shards.reset(token)


def in_this_process() -> AbstractContextManager[None]:
    """For the block: whatever the run's choice, shards are threads. For what asks a server under
    limits, which hold for one process.
    """
    return use_shards(_shards.get(Shards()).model_copy(update={"runner": "threads"}))


class StepEndedError(Exception):
    """The step that a shard belongs to has ended, so the shard does too; what it has written stays."""


def spread(out: Out, write: Write, total: int, /, **arguments: Any) -> None:
    """Have `write(out, **arguments)` write the chunks that are missing of `total`: shard i of k the
    chunks i, i + k, i + 2k ...

    write: a function of a module, so that another process finds it. A shard with nothing left to do
    ends in state `Cached`. Raises what the first failing shard raised, once all have ended; what
    the others wrote stays.
    """
    shards = _shards.get(Shards())
    if min(shards.count, total) <= 1:
        write(out, **arguments)
        return
    ended, step = threading.Semaphore(0), out.scratch / "step"
    step.write_text(token := uuid4().hex)
    where = {
        "address": out.lake.location.address,
        "kind": out.kind,
        "version": out.version,
        "token": token,
    }
    try:
        with _runner(shards) as runner:
            shares = [Share(index=index, count=shards.count) for index in range(shards.count)]
            futures = [
                runner.submit(
                    _shard, {**where, "write": write, "arguments": arguments, "share": share}
                )
                for share in shares
            ]
            for future in futures:
                future.add_done_callback(lambda _: ended.release())
            left = len(futures)
            try:
                while left:
                    left -= ended.acquire(timeout=_POLL_SECONDS)
                    out.progress(len(out.written()), total, "chunks")
            except BaseException:
                step.unlink(missing_ok=True)  # the sign for the shards to end
                raise
            if shards.runner != "threads":
                _await_reports([future.task_run_id for future in futures])
            for future in futures:
                for sentence in future.result():
                    reporter().said(sentence)
    finally:
        step.unlink(missing_ok=True)


@task(
    name="shard", task_run_name="{share} of {version}", cache_policy=NO_CACHE, persist_result=False
)
def _shard(
    address: str,
    kind: str,
    version: str,
    token: str,
    write: Write,
    arguments: dict[str, Any],
    share: Share,
) -> Any:
    """One shard, in whatever process it runs; returns what it had to say. The step holds the lock
    on the version meanwhile, and completes it.
    """
    with Lake(address) as lake, use_lake(lake):
        opened = OpenVersion(lake, kind, version)
        before = set(opened.done)
        listener = _WhileTheStepRuns(opened.scratch / "step", token)
        with report_to(listener):
            write(Out(opened, ProgressArtifact(f"{share}"), share), **arguments)
        written = opened.done - before
    return listener.sentences if written else Completed(name="Cached", data=listener.sentences)


def _await_reports(shards: Sequence[UUID]) -> None:
    """Wait until the server knows how the shards ended: a cluster's process tells it after its
    answer, and closing the cluster ends the process.
    """
    deadline = time.monotonic() + _REPORT_SECONDS
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            known = client.read_task_runs(
                task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=list(shards)))
            )
            if len(known) == len(shards) and all(
                run.state is not None and run.state.is_final() for run in known
            ):
                return
            time.sleep(_POLL_SECONDS)


class _WhileTheStepRuns(Silent):
    """Ends a shard whose step has ended, however that was: another run of it may have begun, with
    shards of its own. Keeps what it says.
    """

    def __init__(self, step: Path, token: str) -> None:
        self._step, self._token, self._looked = step, token, 0.0
        self.sentences = list[str]()

    def said(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def advanced(self, done: float, total: float, unit: str, note: str = "") -> None:
        if time.monotonic() - self._looked < _POLL_SECONDS:
            return
        self._looked = time.monotonic()
        if not self._step.is_file() or self._step.read_text() != self._token:
            raise StepEndedError


def _runner(shards: Shards) -> TaskRunner[Any]:
    if shards.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=shards.count)
    try:
        library: Any = import_module(f"prefect_{shards.runner}")
    except ImportError:
        raise UserError(
            f"shards.runner={shards.runner} needs prefect-{shards.runner}: pip install "
            f"'dapflow[{shards.runner}]'."
        ) from None
    if shards.runner == "dask":
        local = {
            "n_workers": shards.count,
            "threads_per_worker": 1,
            "host": "127.0.0.1",
            "dashboard_address": None,
        }
        return (
            library.DaskTaskRunner(address=shards.address)
            if shards.address
            else library.DaskTaskRunner(cluster_kwargs=local)
        )
    if shards.address:
        return library.RayTaskRunner(address=shards.address)
    own = {"_temp_dir": tempfile.mkdtemp(prefix="dapflow-ray-"), "_node_ip_address": "127.0.0.1"}
    return library.RayTaskRunner(
        init_kwargs={"num_cpus": shards.count, "include_dashboard": False, **own}
    )
