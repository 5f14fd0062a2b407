"""Dataset versions: opened once, filled chunk by chunk, completed in one transaction; never
overwritten.

A chunk is written together with its number (`dapflow.storage.chunks`), so a step that died finds
out which are there and does only the others. One writer at a time: a second process that wants the
same version waits for the first and then finds it complete.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dapflow.storage import files
from dapflow.storage.chunks import Chunks, Rows
from dapflow.storage.database import Connection
from dapflow.storage.errors import LakeError, lake_errors, require_space
from dapflow.storage.lake import Lake
from dapflow.storage.refs import Ref, ref_of, row_id
from dapflow.storage.schema import NOUNS


def version_digest(
    step: str, code: str, parameters: Mapping[str, Any], parents: Mapping[str, str]
) -> str:
    """The version of what `step` makes: 16 hexadecimal digits over its name, code version,
    parameters and parents' versions.
    """
    content = json.dumps(
        [step, code, parameters, parents], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A version that is to be made, and what makes it. activity: what the step does, where it is
    one.
    """

    kind: str
    version: str
    step: str
    code: str
    parameters: Mapping[str, Any]
    activity: str | None = None


class OpenVersion:
    """A version while its rows arrive. Get one from `open_version`, which holds the lock on it."""

    def __init__(self, lake: Lake, kind: str, version: str) -> None:
        self.lake = lake
        self.kind = kind
        self.version = version
        self._chunks = Chunks(lake, version, self.scratch / "rows")
        self.done = self._chunks.numbers
        self._since = time.monotonic()

    def row_id(self, ordinal: int) -> str:
        """The id of the row at `ordinal`, the same however often the step is killed and resumed."""
        return row_id(self.version, ordinal)

    def write(self, chunk: int, rows: Rows, table: str | None = None) -> None:
        """Write the rows of one chunk with its number, all or nothing. `table`: another noun than
        the version's own.

        A chunk that is there already is left as it is. Chunk numbers are the version's own,
        whatever the table. Each row, a mapping or a row of an Arrow table, brings `id`; `version`
        is filled in, and columns that are not there are null.
        """
        if chunk in self.done:
            return
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        require_space(self.lake.root, self.lake.location.address)
        self._chunks.write(chunk, table or self.kind, rows, seconds)
        self.done.add(chunk)

    def rows(self, chunk: int, table: str | None = None) -> list[dict[str, Any]]:
        """The rows of a chunk that has been written, for a step whose next chunk depends on it."""
        return self._chunks.read(chunk, table or self.kind)

    def written(self) -> set[int]:
        """The chunks that are there by now, those of other writers included."""
        return self._chunks.numbers

    def all_rows(self) -> list[dict[str, Any]]:
        """The rows of its own noun that are there by now, in the order of their ids."""
        return self._chunks.rows(self.kind)

    def complete(
        self, parents: Mapping[str, str], flow_run_id: str | None, task_run_id: str | None
    ) -> Ref:
        """Make the version readable: its rows, its lineage and the checksums of its files come into
        the lake in one transaction.
        """
        rows, seconds = self._chunks.totals(self.kind)
        published = self._chunks.publish()
        paths = [path for _, path in published] + files.model_files(self.lake, self.version)
        written = [(self.version, *files.checksum(self.lake, path)) for path in paths]

        def work(cursor: Connection) -> None:
            for table, path in published:
                cursor.execute(
                    f"CALL ducklake_add_data_files('{self.lake.name}', '{table}', ?)", [path]
                )
            _insert(
                cursor, "edges", [(self.version, parent, role) for role, parent in parents.items()]
            )
            _insert(cursor, "files", written)
            cursor.execute(
                "UPDATE versions SET state = 'complete', rows = ?, seconds = ?, flow_run_id = ?, "
                "task_run_id = ?,"
                " completed_at = now() WHERE version = ?",
                [rows, seconds, flow_run_id, task_run_id, self.version],
            )

        self.lake.commit(work, f"complete {self.kind}@{self.version}", {"version": self.version})
        return ref_of(self.kind, self.version, rows)

    @property
    def scratch(self) -> Path:
        """A directory for the step's own checkpoints; it outlives a crash and goes when the version
        is complete.

        What is called partial-... goes when the step fails.
        """
        path = self.lake.root / "checkpoints" / self.version
        path.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, directory: Path) -> str:
        """Move finished model files into the lake by one rename. Returns their path, relative to
        the lake's root.
        """
        target = Path("models") / self.version
        place = self.lake.root / target
        if (
            place.exists()
        ):  # left by an attempt that died before its row was committed: nothing refers to it
            shutil.rmtree(place)
        os.replace(directory, place)
        return str(target)


@contextmanager
def open_version(lake: Lake, opening: Opening) -> Iterator[OpenVersion | Ref]:
    """Hold the version alone: yields the reference when somebody has completed it meanwhile, else
    the version to go on with.
    """
    kind, version = opening.kind, opening.version
    with lake_errors(lake.location.address), _lock(lake.root / "locks" / f"{version}.lock"):
        scratch = lake.root / "checkpoints" / version
        if (ref := lake.find(version)) is not None and files.intact(lake, ref):
            shutil.rmtree(
                scratch, ignore_errors=True
            )  # of a writer that was killed right after it had completed it
            yield ref
            return
        if ref is not None:
            files.retire(lake, [version])
            lake.commit(lambda cursor: _forget(cursor, version), f"forget damaged {kind}@{version}")
        lake.commit(lambda cursor: _open(cursor, opening), f"open {kind}@{version}")
        try:
            yield OpenVersion(lake, kind, version)
        except BaseException:
            for unfinished in scratch.glob(
                "partial-*"
            ):  # what a full disk has cut off must not keep it full
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(scratch, ignore_errors=True)


def forget(lake: Lake, versions: Sequence[str]) -> None:
    """Take versions back, damaged files and all, as if they had never been: the next run of their
    recipe makes them anew.
    """
    files.retire(lake, versions, whole=True)
    for version in versions:
        lake.commit(lambda cursor, version=version: _forget(cursor, version), f"forget {version}")
        shutil.rmtree(lake.root / "checkpoints" / version, ignore_errors=True)


def drop_rows(cursor: Connection, versions: Sequence[str]) -> None:
    """Take back all rows of versions; the record of the versions themselves stays."""
    for table in (*NOUNS, "files"):
        cursor.execute(
            f'DELETE FROM "{table}" WHERE version IN ({", ".join("?" * len(versions))})',
            list(versions),
        )


def _forget(cursor: Connection, version: str) -> None:
    """Take back a version as if it had never been, so that it can be made again under the same
    name.
    """
    drop_rows(cursor, [version])
    cursor.execute("DELETE FROM versions WHERE version = ?", [version])
    cursor.execute("DELETE FROM edges WHERE child = ?", [version])


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=6 * 3600)
    except Timeout as error:
        raise LakeError(
            f"Another process has held {path} for six hours: end it, or wait for it, then run "
            "again."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _open(cursor: Connection, opening: Opening) -> None:
    query = "SELECT state FROM versions WHERE version = ?"
    found = cursor.execute(query, [opening.version]).fetchone()
    if found == ("dropped",):
        _forget(cursor, opening.version)
    if found != ("open",):
        parameters = json.dumps(opening.parameters, sort_keys=True, ensure_ascii=False)
        cursor.execute(
            "INSERT INTO versions (version, kind, step, activity, state, parameters, code, "
            "opened_at)"
            " VALUES (?, ?, ?, ?, 'open', ?, ?, now())",
            [
                opening.version,
                opening.kind,
                opening.step,
                opening.activity,
                parameters,
                opening.code,
            ],
        )


def _insert(cursor: Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        places = ", ".join(f"({', '.join('?' * len(row))})" for row in rows)
        cursor.execute(
            f"INSERT INTO {table} VALUES {places}", [value for row in rows for value in row]
        )
