"""Dataset versions: opened once, filled chunk by chunk, completed in one transaction; never overwritten.

A chunk is committed together with its number, so a step that died finds out which are there and does only the others. One writer at a
time: a second process that wants the same version waits for the first and then finds it complete.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from storage.errors import LakeError
from storage.lake import Connection, Lake, lake_errors
from storage.refs import DatasetRef, ModelRef, Ref, row_id


def version_digest(step: str, code: str, parameters: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """The version of what `step` makes: 16 hexadecimal digits over its name, code version, parameters and parents' versions."""
    content = json.dumps([step, code, parameters, parents], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class OpenVersion:
    """A version while its rows arrive. Get one from `open_version`, which holds the lock on it."""

    def __init__(self, lake: Lake, kind: str, version: str) -> None:
        self.lake = lake
        self.kind = kind
        self.version = version
        self.done = {row["chunk"] for row in lake.rows("SELECT chunk FROM chunks WHERE version = ?", [version])}
        self._since = time.monotonic()

    def row_id(self, ordinal: int) -> str:
        """The id of the row at `ordinal`, the same however often the step is killed and resumed."""
        return row_id(self.version, ordinal)

    def write(self, chunk: int, rows: Sequence[Mapping[str, Any]], table: str | None = None) -> None:
        """Commit the rows of one chunk with its number, all or nothing. `table`: another noun than the version's own.

        A chunk that is committed already is left as it is. Chunk numbers are the version's own, whatever the table. Each row
        brings `id`; `version` is filled in.
        """
        if chunk in self.done:
            return
        table = table or self.kind
        seconds, self._since = time.monotonic() - self._since, time.monotonic()

        def work(cursor: Connection) -> None:
            if rows:
                data = _arrow(cursor, table, self.version, rows)
                cursor.register("new_rows", data)
                cursor.execute(f'INSERT INTO lake."{table}" BY NAME SELECT * FROM new_rows')
                cursor.unregister("new_rows")
            cursor.execute(
                "INSERT INTO lake.chunks VALUES (?, ?, ?, ?, now())",
                [self.version, chunk, len(rows) if table == self.kind else 0, seconds],
            )

        self.lake.commit(work, f"{self.kind}@{self.version} chunk {chunk}")
        self.done.add(chunk)

    def complete(self, parents: Mapping[str, str], flow_run_id: str | None, task_run_id: str | None) -> Ref:
        """Make the version readable, with its lineage, in one transaction."""

        def work(cursor: Connection) -> int:
            counted = cursor.execute(
                "SELECT coalesce(sum(rows), 0), coalesce(sum(seconds), 0) FROM lake.chunks WHERE version = ?", [self.version]
            ).fetchone()
            assert counted is not None
            cursor.execute("DELETE FROM lake.edges WHERE child = ?", [self.version])
            for role, parent in parents.items():
                cursor.execute("INSERT INTO lake.edges VALUES (?, ?, ?)", [self.version, parent, role])
            cursor.execute(
                "UPDATE lake.versions SET state = 'complete', rows = ?, seconds = ?, flow_run_id = ?, task_run_id = ?,"
                " completed_at = now() WHERE version = ?",
                [*counted, flow_run_id, task_run_id, self.version],
            )
            return int(counted[0])

        rows = self.lake.commit(work, f"complete {self.kind}@{self.version}", {"version": self.version})
        return (ModelRef if self.kind == "models" else DatasetRef)(self.kind, self.version, rows)

    @property
    def scratch(self) -> Path:
        """A directory for the step's own checkpoints; it outlives a crash and goes when the version is complete."""
        path = self.lake.root / "checkpoints" / self.version
        path.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, directory: Path) -> str:
        """Move finished model files into the lake by one rename. Returns their path, relative to the lake's root."""
        target = Path("models") / self.version
        place = self.lake.root / target
        if place.exists():  # left by an attempt that died before its row was committed: nothing refers to it
            shutil.rmtree(place)
        os.replace(directory, place)
        return str(target)


@contextmanager
def open_version(
    lake: Lake, *, kind: str, version: str, step: str, code: str, parameters: Mapping[str, Any]
) -> Iterator[OpenVersion | Ref]:
    """Hold the version alone: yields the reference when somebody has completed it meanwhile, else the version to go on with."""
    with lake_errors(lake.root), _lock(lake.root / "locks" / f"{version}.lock"):
        if (ref := lake.find(version)) is not None and lake.intact(ref):
            yield ref
            return
        if ref is not None:
            lake.retire_damaged_files()
            lake.commit(lambda cursor: _forget(cursor, version), f"forget damaged {kind}@{version}")
        lake.commit(lambda cursor: _open(cursor, kind, version, step, code, parameters), f"open {kind}@{version}")
        opened = OpenVersion(lake, kind, version)
        yield opened
        shutil.rmtree(lake.root / "checkpoints" / version, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=6 * 3600)
    except Timeout as error:
        raise LakeError(f"Another process has held {path} for six hours: end it, or wait for it, then run again.") from error
    try:
        yield
    finally:
        lock.release()


def _open(cursor: Connection, kind: str, version: str, step: str, code: str, parameters: Mapping[str, Any]) -> None:
    if cursor.execute("SELECT 1 FROM lake.versions WHERE version = ?", [version]).fetchone() is None:
        cursor.execute(
            "INSERT INTO lake.versions VALUES (?, ?, ?, 'open', ?, ?, NULL, NULL, NULL, NULL, now(), NULL)",
            [version, kind, step, json.dumps(parameters, sort_keys=True, ensure_ascii=False), code],
        )


def _forget(cursor: Connection, version: str) -> None:
    """Take back a version whose data is gone, so that it can be made again under the same name."""
    for table in _tables_with_versions(cursor):
        cursor.execute(f'DELETE FROM lake."{table}" WHERE version = ?', [version])


def _tables_with_versions(cursor: Connection) -> list[str]:
    found = cursor.execute(
        "SELECT DISTINCT table_name FROM duckdb_columns() WHERE database_name = 'lake' AND column_name = 'version'"
    ).fetchall()
    return [name for (name,) in found]


def _arrow(cursor: Connection, table: str, version: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    schema = cursor.execute(f'SELECT * FROM lake."{table}" LIMIT 0').to_arrow_table().schema
    unknown = set().union(*rows) - set(schema.names)
    assert not unknown, f"{table} has no columns {sorted(unknown)}"
    return pa.Table.from_pylist([{"version": version, **row} for row in rows], schema=schema)
