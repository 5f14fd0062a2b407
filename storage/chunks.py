"""The rows of an open version: a Parquet file a chunk, outside the lake's tables until the version
is complete.

A chunk is there when its file has its name: it is written under another one, brought to the disk,
and renamed. So a chunk costs no transaction, and no query sees a row of it before its time.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dapflow.storage.database import quoted
from dapflow.storage.errors import lake_errors
from dapflow.storage.lake import Lake
from dapflow.storage.replacing import replacing, synchronise
from dapflow.storage.schema import PARQUET

Rows = Sequence[Mapping[str, Any]] | pa.Table
SMALL = 4 * 2**20  # bytes: chunks larger than this stay files of their own
MERGED = 64 * 2**20  # bytes of a merged file, about
_SECONDS = b"seconds"  # wall time spent on a chunk, in its file's metadata


class Chunks:
    """The chunks of one version in a folder of their own."""

    def __init__(self, lake: Lake, version: str, folder: Path) -> None:
        self._lake = lake
        self._version = version
        self._folder = folder

    @property
    def numbers(self) -> set[int]:
        """The chunks that are there."""
        return {int(path.stem) for path in self._paths()}

    def write(self, number: int, table: str, rows: Rows, seconds: float) -> None:
        """Write rows with all columns of the table, all or nothing. Each is a mapping, or a row of
        an Arrow table.
        """
        path = self._folder / table / f"{number:06d}.parquet"
        with lake_errors(self._lake.location.address), self._lake.cursor() as cursor:
            path.parent.mkdir(parents=True, exist_ok=True)
            arrow = _arrow(self._lake.schema(table), self._version, rows)
            assert _rises(arrow["id"]), (
                "the rows of a chunk come in the order of their ids, and the chunks in theirs"
            )
            cursor.register("new_rows", arrow)
            options = f"FORMAT parquet, {PARQUET}, KV_METADATA {{seconds: '{seconds}'}}"
            try:
                with replacing(path, durable=True) as partial:
                    cursor.execute(f"COPY new_rows TO '{quoted(partial)}' ({options})")
            finally:
                cursor.unregister("new_rows")

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of one noun in the chunks that are there, in their order."""
        paths = [path for path in self._paths() if path.parent.name == table]
        return [row for path in paths for row in self.read(int(path.stem), table)]

    def read(self, number: int, table: str) -> list[dict[str, Any]]:
        """The rows of a chunk that is there."""
        with pq.ParquetFile(self._folder / table / f"{number:06d}.parquet") as file:
            return file.read().to_pylist()

    def totals(self, table: str) -> tuple[int, float]:
        """Rows of one noun, and seconds spent on all chunks."""
        rows, seconds = 0, 0.0
        for path in self._paths():
            about = pq.read_metadata(path)
            rows += about.num_rows if path.parent.name == table else 0
            seconds += float((about.metadata or {}).get(_SECONDS, 0))
        return rows, seconds

    def publish(self) -> list[tuple[str, str]]:
        """Put the rows where the lake has its data: (table, path) of each file. Small chunks are
        merged; the chunks themselves stay.

        Nobody knows of these files before they are added to the catalogue.
        """
        published: list[tuple[str, str]] = []
        for table, of_table in groupby(self._paths(), key=lambda path: path.parent.name):
            folder = f"{self._lake.location.data.rstrip('/')}/main/{table}/version={self._version}"
            if "://" not in folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
            for group in _merged(list(of_table)):
                target = f"{folder}/{group[0].stem}-{uuid4().hex}.parquet"
                self._place(group, target)
                published.append((table, target))
        return published

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*/*.parquet"))

    def _place(self, paths: list[Path], target: str) -> None:
        if len(paths) == 1 and "://" not in target:
            try:
                os.link(paths[0], target)
            except OSError:  # another file system, or one without links
                shutil.copyfile(paths[0], target)
            return
        with lake_errors(self._lake.location.address), self._lake.cursor() as cursor:
            source = "SELECT * FROM read_parquet(?, hive_partitioning => false)"
            cursor.execute(
                f"COPY ({source}) TO '{quoted(target)}' (FORMAT parquet, {PARQUET})",
                [[str(path) for path in paths]],
            )
        if "://" not in target:
            synchronise(Path(target))


def _merged(paths: list[Path]) -> list[list[Path]]:
    """Neighbours that are small, in groups of up to MERGED bytes; the others alone."""
    groups: list[list[Path]] = []
    room = 0
    for path in paths:
        size = path.stat().st_size
        if size >= SMALL or size > room:
            groups.append([])
            room = MERGED
        room = 0 if size >= SMALL else room - size
        groups[-1].append(path)
    return groups


def _rises(ids: pa.ChunkedArray) -> bool:
    return (
        len(ids) < 2
        or pc.call_function("all", [pc.call_function("less", [ids[:-1], ids[1:]])]).as_py()
    )


def _arrow(schema: pa.Schema, version: str, rows: Rows) -> pa.Table:
    if isinstance(rows, pa.Table):
        return _with_all_columns(schema, version, rows)
    unknown = {name for row in rows for name in row} - set(schema.names)
    assert not unknown, f"there are no columns {sorted(unknown)}"
    return pa.Table.from_pylist([{**row, "version": version} for row in rows], schema=schema)


def _with_all_columns(schema: pa.Schema, version: str, rows: pa.Table) -> pa.Table:
    names = set(rows.column_names)
    assert names <= set(schema.names), f"there are no columns {sorted(names - set(schema.names))}"
    columns = [
        rows[field.name].cast(field.type)
        if field.name in names
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    columns[schema.get_field_index("version")] = pa.repeat(
        pa.scalar(version, schema.field("version").type), len(rows)
    )
    return pa.Table.from_arrays(columns, schema=schema)
