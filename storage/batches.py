"""Jobs of a provider's batch interface: written down before the server is told, so that a killed run finds its own again.

Writes the table `batches`. Test: pytest tests/tasks/judges/test_batches.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from storage.lake import Lake


@dataclass(frozen=True, kw_only=True)
class Job:
    """One batch. batch: the server's id, None until it has told one."""

    tag: str
    batch: str | None
    version: str
    keys: Sequence[str]


def begin_job(lake: Lake, version: str, server: str, model: str, keys: Sequence[str]) -> Job:
    """Write down that a batch is about to be submitted."""
    job = Job(tag=uuid4().hex, batch=None, version=version, keys=keys)
    values = [job.tag, version, server, model, list(keys)]
    query = "INSERT INTO batches VALUES (?, NULL, ?, ?, ?, ?, 'open', now())"
    lake.commit(lambda cursor: cursor.execute(query, values), f"batch of {len(keys)}")
    return job


def name_job(lake: Lake, job: Job, batch: str) -> Job:
    """Write down the server's id of it."""
    lake.commit(lambda cursor: cursor.execute("UPDATE batches SET batch = ? WHERE tag = ?", [batch, job.tag]), f"batch {batch}")
    return Job(tag=job.tag, batch=batch, version=job.version, keys=job.keys)


def end_job(lake: Lake, job: Job, state: Literal["done", "lost"]) -> None:
    """Write down that nothing more comes of it."""
    lake.commit(lambda cursor: cursor.execute("UPDATE batches SET state = ? WHERE tag = ?", [state, job.tag]), f"batch {state}")


def open_jobs(lake: Lake, version: str, server: str, model: str) -> list[Job]:
    """The batches of a version that may still bring answers, oldest first."""
    rows = lake.rows(
        "SELECT tag, batch, version, keys FROM batches WHERE version = ? AND server = ? AND model = ? AND state = 'open' ORDER BY submitted_at",
        [version, server, model],
    )
    return [Job(**row) for row in rows]
