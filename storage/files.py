"""The Parquet files of a version: one a chunk, merged when it completes, written down with a checksum, checked, and taken out when damaged."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa

from storage.catalogue import DataFile
from storage.database import attach_catalogue, quoted
from storage.errors import lake_errors
from storage.lake import Lake, patiently
from storage.refs import ModelRef, Ref
from storage.schema import NOUNS, PARQUET

Rows = Sequence[Mapping[str, Any]] | pa.Table
SMALL = 4 * 2**20  # bytes: chunks larger than this stay files of their own


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what was written."""

    path: str
    what: str  # 'missing', 'truncated' or 'changed'


def write(lake: Lake, table: str, version: str, chunk: int, rows: Rows) -> str:
    """Write rows to a file of their own, with all columns of the table, and return its path: nobody sees it before it is committed."""
    data = _arrow(lake.schema(table), version, rows)
    folder = f"{lake.location.data.rstrip('/')}/main/{table}/version={version}"
    path = f"{folder}/chunk-{chunk:06d}-{uuid4().hex}.parquet"
    with lake_errors(lake.location.address), lake.cursor() as cursor:
        if "://" not in folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
        cursor.register("new_rows", data)
        cursor.execute(f"COPY new_rows TO '{quoted(path)}' (FORMAT parquet, {PARQUET})")
    return path


def merge(lake: Lake, version: str) -> None:
    """Merge the small files of a version's chunks into one per noun. Rows and ids stay, and older snapshots keep their files."""
    small = [file.table for file in _files_of(lake, version) if file.bytes < SMALL]
    for table in {one for one in small if small.count(one) > 1}:
        with lake_errors(lake.location.address), lake.cursor() as cursor:
            call = f"CALL ducklake_merge_adjacent_files('{lake.name}', '{table}', max_file_size => {SMALL})"
            patiently(lambda cursor=cursor, call=call: cursor.execute(call).fetchall())


def checksums(lake: Lake, version: str) -> list[tuple[str, int, str]]:
    """(path relative to the data, bytes, sha256) of each file of a version."""
    return [(_relative(lake, file.path), file.bytes, _sha256(lake, file.path)) for file in _files_of(lake, version)]


def intact(lake: Lake, ref: Ref) -> bool:
    """Whether the data of a complete version is still there: its files with their sizes, and a model's weights."""
    return not _damages(lake, ref, {})


def verify(lake: Lake) -> Iterator[tuple[Ref, list[Damage]]]:
    """Check every file of every complete version against the catalogue and its checksum; oldest version first."""
    digests = {row["path"]: row["sha256"] for row in lake.rows("SELECT path, sha256 FROM files")}
    for info in sorted(lake.catalogue().versions.values(), key=lambda one: one.opened_at):
        if ref := lake.find(info.version):
            yield ref, _damages(lake, ref, digests)


def retire(lake: Lake, versions: Iterable[str]) -> None:
    """Take files that are missing or damaged out of the catalogue, so that what they held can be deleted and made again."""
    damaged = [file.path for version in versions for file in _files_of(lake, version) if _damage(lake, file, None)]
    if damaged:
        names = ", ".join(f"'{quoted(path.rsplit('/', 1)[-1])}'" for path in damaged)
        with lake_errors(lake.location.address), closing(attach_catalogue(lake.location)) as connection:
            connection.execute(
                "UPDATE catalogue.ducklake_data_file SET end_snapshot = (SELECT max(snapshot_id) FROM catalogue.ducklake_snapshot)"
                f" WHERE end_snapshot IS NULL AND parse_filename(path) IN ({names})"
            )
        lake.refresh()


def _files_of(lake: Lake, version: str) -> list[DataFile]:
    found = lake.catalogue().files
    return [file for table in NOUNS for file in found.get((table, version), ())]


def _damages(lake: Lake, ref: Ref, digests: dict[str, str]) -> list[Damage]:
    files = _files_of(lake, ref.version)
    found = [damage for file in files if (damage := _damage(lake, file, digests.get(_relative(lake, file.path))))]
    if not found and sum(file.rows for file in files if file.table == ref.kind) != ref.rows:
        found = [Damage(f"data/main/{ref.kind}/version={ref.version}", "missing")]
    return found or (_lost_weights(lake, ref) if isinstance(ref, ModelRef) else [])


def _damage(lake: Lake, file: DataFile, sha256: str | None) -> Damage | None:
    size = _size(lake, file.path)
    if size is None:
        return Damage(file.path, "missing")
    if size != file.bytes:
        return Damage(file.path, "truncated" if size < file.bytes else "changed")
    return Damage(file.path, "changed") if sha256 and _sha256(lake, file.path) != sha256 else None


def _lost_weights(lake: Lake, ref: ModelRef) -> list[Damage]:
    path = lake.model(ref)["path"]
    return [Damage(str(path), "missing")] if path and not any(path.glob("*.safetensors")) else []


def _size(lake: Lake, path: str) -> int | None:
    if not path.startswith("s3://"):
        return Path(path).stat().st_size if Path(path).is_file() else None
    try:
        return int(lake.rows("SELECT size FROM read_blob(?)", [path])[0]["size"])
    except (duckdb.IOException, IndexError):
        return None


def _sha256(lake: Lake, path: str) -> str:
    if path.startswith("s3://"):
        return str(lake.rows("SELECT sha256(content) AS digest FROM read_blob(?)", [path])[0]["digest"])
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _relative(lake: Lake, path: str) -> str:
    return path.removeprefix(lake.location.data.rstrip("/") + "/")


def _arrow(schema: pa.Schema, version: str, rows: Rows) -> pa.Table:
    if isinstance(rows, pa.Table):
        return _with_all_columns(schema, version, rows)
    unknown = {name for row in rows for name in row} - set(schema.names)
    assert not unknown, f"there are no columns {sorted(unknown)}"
    return pa.Table.from_pylist([{**row, "version": version} for row in rows], schema=schema)


def _with_all_columns(schema: pa.Schema, version: str, rows: pa.Table) -> pa.Table:
    names = set(rows.column_names)
    assert names <= set(schema.names), f"there are no columns {sorted(names - set(schema.names))}"
    columns = [rows[field.name].cast(field.type) if field.name in names else pa.nulls(len(rows), field.type) for field in schema]
    columns[schema.get_field_index("version")] = pa.repeat(pa.scalar(version, schema.field("version").type), len(rows))
    return pa.Table.from_arrays(columns, schema=schema)
