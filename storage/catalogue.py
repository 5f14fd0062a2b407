"""What a lake holds, in memory: its versions, the edges between them, and the files of each. One
snapshot, never changed.

A query through DuckLake costs 10 to 30 ms, most of it looking up the files; asking here costs the 4
ms of asking whether anything is new.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from dapflow.storage.database import Connection
from dapflow.storage.errors import LakeError, Remedy
from dapflow.storage.refs import row_id
from dapflow.storage.schema import NOUNS

TESTED = "test"  # the role of pairs that a reward model is tested on: it does not learn from them


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One row of `versions`, without its parameters."""

    version: str
    kind: str
    step: str
    state: str  # 'open', 'complete' or 'dropped'
    rows: int
    seconds: float
    opened_at: datetime
    completed_at: datetime | None
    activity: str | None  # what its step does; None where older software made it


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a version."""

    table: str
    version: str
    path: str  # absolute, or s3://...
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A snapshot of the lake."""

    snapshot: int
    versions: Mapping[str, VersionInfo]
    parents: Mapping[str, Mapping[str, str]]  # child -> role -> parent
    children: Mapping[str, tuple[str, ...]]
    files: Mapping[tuple[str, str], tuple[DataFile, ...]]  # (table, version) -> its files

    def resolve(self, text: str) -> str:
        """The full id that `text` begins: of a version (`3f9c01`, `pairs@3f9c01`) or of a row
        (`3f9c01aa-17`).

        Raises LakeError when nothing, or more than one thing, begins so.
        """
        kind, _, rest = text.rpartition("@")
        start, dash, ordinal = rest.partition("-")
        found = sorted(
            one.version
            for one in self.versions.values()
            if one.version.startswith(start) and kind in ("", one.kind)
        )
        if not start or not found:
            raise LakeError(
                f"Nothing in the lake has the id {text}: look at what there is.",
                Remedy.LIST_DATASETS,
            )
        if len(found) > 1 and start not in found:
            several = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
            raise LakeError(
                f"{text} is the beginning of {len(found)} ids ({several}): give more of it."
            )
        version = start if start in found else found[0]
        if dash and not ordinal.isdigit():
            raise LakeError(
                f"{text} is not the id of a row: that is a version, a dash and a number, such as "
                f"{row_id(version, 12)}."
            )
        return row_id(version, int(ordinal)) if dash else version

    def ancestors(self, version: str) -> Iterator[str]:
        """All versions it was made from, nearest first, each once."""
        return _walk(version, lambda one: self.parents.get(one, {}).values())

    def sources(self, version: str) -> Iterator[str]:
        """The datasets it was made from, as `ancestors` but not beyond a model: the rows that went
        into these rows.
        """

        def step(one: str) -> Iterator[str]:
            return (
                parent
                for parent in self.parents.get(one, {}).values()
                if parent in self.versions and self.versions[parent].kind != "models"
            )

        return _walk(version, step)

    def learned_from(self, version: str) -> Iterator[str]:
        """As `ancestors`, without what a reward model was only tested on."""
        return _walk(
            version,
            lambda one: (
                parent for role, parent in self.parents.get(one, {}).items() if role != TESTED
            ),
        )

    def descendants(self, version: str) -> Iterator[str]:
        """All versions made from it, nearest first, each once."""
        return _walk(version, lambda one: self.children.get(one, ()))

    def files_of(self, table: str, version: str) -> tuple[DataFile, ...]:
        """The files that hold a version's rows of one noun."""
        return self.files.get((table, version), ())

    def all_files_of(self, version: str) -> tuple[DataFile, ...]:
        """The files that hold a version's rows, whatever their noun."""
        return tuple(file for table in NOUNS for file in self.files_of(table, version))

    def bytes_of(self, version: str) -> int:
        """Size of a version's Parquet files."""
        return sum(file.bytes for file in self.all_files_of(version))


def latest_snapshot(cursor: Connection, lake: str) -> int:
    """The number of the newest commit."""
    row = cursor.execute(
        f"SELECT max(snapshot_id) FROM __ducklake_metadata_{lake}.ducklake_snapshot"
    ).fetchone()
    assert row is not None
    return int(row[0])


def load_catalogue(cursor: Connection, lake: str, data: str, snapshot: int) -> Catalogue:
    """Read the catalogue as it is now."""
    found = cursor.execute(
        "SELECT version, kind, step, state, coalesce(rows, 0), coalesce(seconds, 0), opened_at, "
        "completed_at, activity"
        " FROM versions"
    ).fetchall()
    edges = cursor.execute("SELECT child, role, parent FROM edges").fetchall()
    parents: dict[str, dict[str, str]] = defaultdict(dict)
    children: dict[str, list[str]] = defaultdict(list)
    for child, role, parent in edges:
        parents[child][role] = parent
        children[parent].append(child)
    files: dict[tuple[str, str], list[DataFile]] = defaultdict(list)
    for file in data_files(cursor, lake, data):
        files[file.table, file.version].append(file)
    return Catalogue(
        snapshot=snapshot,
        versions={row[0]: VersionInfo(*row) for row in found},
        parents=dict(parents),
        children={parent: tuple(dict.fromkeys(ones)) for parent, ones in children.items()},
        files={key: tuple(ones) for key, ones in files.items()},
    )


def data_files(
    cursor: Connection, lake: str, data: str, version: str | None = None
) -> Iterator[DataFile]:
    """The files of a version, or of all."""
    meta, only = f"__ducklake_metadata_{lake}", " AND p.partition_value = ?" if version else ""
    query = (
        "SELECT t.table_name, p.partition_value, s.path || t.path || f.path, f.file_size_bytes, "
        "f.record_count"
        f" FROM {meta}.ducklake_data_file f JOIN {meta}.ducklake_file_partition_value p USING "
        "(data_file_id)"
        f" JOIN {meta}.ducklake_table t ON t.table_id = f.table_id JOIN {meta}.ducklake_schema s "
        "USING (schema_id)"
        f" WHERE f.end_snapshot IS NULL AND t.end_snapshot IS NULL{only} ORDER BY f.row_id_start"
    )
    for table, owner, path, size, rows in cursor.execute(
        query, [version] if version else []
    ).fetchall():
        yield DataFile(table, owner, f"{data.rstrip('/')}/{path}", size, rows)


def _walk(start: str, step: Callable[[str], Iterable[str]]) -> Iterator[str]:
    seen, front = {start}, [start]
    while front:
        found = [one for old in front for one in step(old)]
        front = [one for one in dict.fromkeys(found) if one not in seen]
        seen.update(front)
        yield from front
