"""Jobs of a provider's batch interface: written down before the server is told, so that whoever
needs their answers finds them again.

A job belongs to the questions in it, not to the dataset version, and so the code, that sent it: any
run with one of its keys picks it up.

    with alone(lake, tag): job = begin_job(lake, tag, ...); ...; end_job(lake, job, "done")
Writes the table `batches`. Test: pytest tests/tasks/judging/asking/test_batches.py
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal
from uuid import uuid4

from filelock import FileLock, Timeout

from dapflow.storage.errors import lake_errors
from dapflow.storage.lake import Lake


@dataclass(frozen=True, kw_only=True)
class Job:
    """One batch. batch: the server's id, None until it has told one; keys: of the calls that it may
    still bring answers to.
    """

    tag: str
    batch: str | None
    keys: Sequence[str]


def new_tag() -> str:
    """A name for a batch, ours, by which the server can be asked for it."""
    return uuid4().hex


@contextmanager
def alone(lake: Lake, tag: str, busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Alone with a batch as long as the block lasts. Where a process that is alive has it, `busy`
    is told, and its end waited for.
    """
    with lake_errors(lake.location.address):
        lock = FileLock(lake.root / "locks" / f"batch-{tag}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            busy()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def begin_job(
    lake: Lake, tag: str, version: str, server: str, model: str, keys: Sequence[str]
) -> Job:
    """Write down that a batch is about to be submitted."""
    query = "INSERT INTO batches VALUES (?, NULL, ?, ?, ?, ?, 'open', now())"
    lake.commit(
        lambda cursor: cursor.execute(query, [tag, version, server, model, list(keys)]),
        f"batch of {len(keys)}",
    )
    return Job(tag=tag, batch=None, keys=keys)


def name_job(lake: Lake, job: Job, batch: str) -> Job:
    """Write down the server's id of it."""
    lake.commit(
        lambda cursor: cursor.execute(
            "UPDATE batches SET batch = ? WHERE tag = ?", [batch, job.tag]
        ),
        f"batch {batch}",
    )
    return replace(job, batch=batch)


def end_job(lake: Lake, job: Job, state: Literal["done", "lost"], left: Sequence[str] = ()) -> None:
    """Write down that nothing more comes of it; it stays open for the keys that are left, whose
    answers nobody has fetched.
    """
    new = ["open", list(left)] if left else [state, list(job.keys)]
    query = "UPDATE batches SET state = ?, keys = ? WHERE tag = ?"
    lake.commit(lambda cursor: cursor.execute(query, [*new, job.tag]), f"batch {new[0]}")


def open_jobs(lake: Lake, server: str, model: str) -> list[Job]:
    """The batches that may still bring answers, oldest first."""
    rows = lake.rows(
        "SELECT tag, batch, keys FROM batches WHERE server = ? AND model = ? AND state = 'open' "
        "ORDER BY submitted_at",
        [server, model],
    )
    return [Job(**row) for row in rows]
