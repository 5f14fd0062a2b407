"""The lake: a DuckLake (DuckDB, Parquet files, a SQLite catalogue) that several processes may read and write at once.

    lake = Lake("./lake")
    lake.sql("select kind, count(*) from versions group by kind")
Writes under its root only: catalogue.sqlite, data/, models/, checkpoints/, locks/.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from storage.errors import LakeError
from storage.refs import DatasetRef, ModelRef, Ref
from storage.schema import MIGRATIONS

Connection = duckdb.DuckDBPyConnection
T = TypeVar("T")
_EXTENSIONS = ("ducklake", "sqlite_scanner")
_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": "false",  # nothing is downloaded
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # a table's name is never a Python variable's, and a Ctrl-C is not lost in the look-up
}
_BUSY = ("database is locked", "conflict", "unable to open database file: locked")


class Lake:
    """A lake of dataset versions at `root` (a directory, created when it is not there).

    Raises LakeError when the directory cannot be written, is damaged, or was made by a newer version of the software.
    """

    def __init__(self, root: str | os.PathLike[str] = "lake") -> None:
        self.root = Path(root).expanduser().absolute()
        with lake_errors(self.root):
            for name in ("data", "models", "checkpoints", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._connection = self._attach()
            self._migrate()

    def _attach(self) -> Connection:
        connection = duckdb.connect(config=_CONFIG)
        for name in _EXTENSIONS:
            connection.execute(f"LOAD '{_extension_file(name)}'")
        catalogue = _quoted(self.root / "catalogue.sqlite")
        data = _quoted(self.root / "data")
        # The catalogue remembers where the data was; overriding it lets a lake be moved.
        attach = f"ATTACH 'ducklake:sqlite:{catalogue}' AS lake (DATA_PATH '{data}', OVERRIDE_DATA_PATH true, BUSY_TIMEOUT 30000, META_JOURNAL_MODE 'WAL')"
        _patiently(lambda: connection.execute(attach))
        connection.execute("USE lake")
        return connection

    def _migrate(self) -> None:
        def migrate(cursor: Connection) -> None:
            cursor.execute("CREATE TABLE IF NOT EXISTS lake.migrations (number INTEGER, applied_at TIMESTAMPTZ)")
            done = _one(cursor.execute("SELECT coalesce(max(number), 0) FROM lake.migrations"))
            if done > len(MIGRATIONS):
                raise LakeError(
                    f"The lake at {self.root} has schema {done}, this version of dapflow knows {len(MIGRATIONS)}: "
                    "update dapflow, or use another lake with --lake."
                )
            for number in range(done, len(MIGRATIONS)):
                cursor.execute(MIGRATIONS[number])
                cursor.execute("INSERT INTO lake.migrations VALUES (?, now())", [number + 1])

        if self._schema_number() != len(MIGRATIONS):
            self.commit(migrate, "migrate")

    def _schema_number(self) -> int:
        try:
            with self.cursor() as cursor:
                return _one(cursor.execute("SELECT coalesce(max(number), 0) FROM lake.migrations"))
        except duckdb.CatalogException:
            return 0

    @contextmanager
    def cursor(self) -> Iterator[Connection]:
        """A cursor of its own for one thread or one transaction. Leaving the block rolls back what was not committed."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("USE lake")
            yield cursor

    def commit(self, work: Callable[[Connection], T], message: str, info: dict[str, Any] | None = None) -> T:
        """Run `work(cursor)` in one transaction; on a conflict with another writer, roll back and run it again."""

        def attempt() -> T:
            with self.cursor() as cursor:
                cursor.begin()
                result = work(cursor)
                cursor.execute("CALL lake.set_commit_message('dapflow', ?, extra_info => ?)", [message, json.dumps(info or {})])
                cursor.commit()
                return result

        with lake_errors(self.root):
            return _patiently(attempt)

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The rows of a query over the tables of `storage.schema`, as an Arrow table."""
        with lake_errors(self.root), self.cursor() as cursor:
            return cursor.execute(query, list(parameters)).to_arrow_table()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries."""
        return self.sql(query, parameters).to_pylist()

    def find(self, version: str) -> Ref | None:
        """The reference of a complete version, or None: an open version does not exist for readers."""
        found = self.rows("SELECT kind, rows FROM versions WHERE version = ? AND state = 'complete'", [version])
        if not found:
            return None
        kind, rows = found[0]["kind"], found[0]["rows"]
        return ModelRef(kind, version, rows) if kind == "models" else DatasetRef(kind, version, rows)

    def read(self, ref: Ref, table: str | None = None) -> list[dict[str, Any]]:
        """All rows of a version in id order. `table`: another noun that the same step wrote (metrics of a training run).

        Raises LakeError when the version is not complete or its files are gone.
        """
        if self.find(ref.version) is None:
            raise LakeError(f"{ref.kind}@{ref.version} is not a complete version of the lake at {self.root}: run its recipe again.")
        return self.rows(f'SELECT * FROM "{table or ref.kind}" WHERE version = ? ORDER BY id', [ref.version])

    def intact(self, ref: Ref) -> bool:
        """Whether the data of a complete version is still there: its rows can be counted and its model files exist."""
        try:
            rows = self.rows(f'SELECT count(*) AS n, count(id) AS ids FROM "{ref.kind}" WHERE version = ?', [ref.version])
            if rows[0]["n"] != ref.rows:
                return False
            return ref.kind != "models" or all(row["path"] is None or (self.root / row["path"]).is_dir() for row in self.read(ref))
        except LakeError:
            return False

    def retire_damaged_files(self) -> list[str]:
        """Take data files that are gone or truncated out of the catalogue, so that what they held can be made again.

        Returns their paths, relative to the data directory. The snapshots that saw them keep them.
        """
        live = self.rows(
            "SELECT f.data_file_id AS id, s.path || t.path || f.path AS path, f.file_size_bytes AS bytes"
            " FROM __ducklake_metadata_lake.ducklake_data_file f"
            " JOIN __ducklake_metadata_lake.ducklake_table t USING (table_id)"
            " JOIN __ducklake_metadata_lake.ducklake_schema s USING (schema_id)"
            " WHERE f.end_snapshot IS NULL AND t.end_snapshot IS NULL"
        )
        damaged = [file for file in live if _size(self.root / "data" / file["path"]) != file["bytes"]]
        if damaged:
            ids = ", ".join(str(file["id"]) for file in damaged)
            with closing(duckdb.connect()) as connection, lake_errors(self.root):
                connection.execute(f"LOAD '{_extension_file('sqlite_scanner')}'")
                connection.execute(f"ATTACH '{_quoted(self.root / 'catalogue.sqlite')}' AS catalogue (TYPE sqlite)")
                retire = (
                    "UPDATE catalogue.ducklake_data_file SET end_snapshot ="
                    f" (SELECT max(snapshot_id) FROM catalogue.ducklake_snapshot) WHERE data_file_id IN ({ids})"
                )
                _patiently(lambda: connection.execute(retire))
        return [file["path"] for file in damaged]

    def model(self, ref: ModelRef) -> dict[str, Any]:
        """The row of a model version; `path` is absolute, or None for a model that lives outside the lake."""
        row = self.read(ref)[0]
        return {**row, "path": None if row["path"] is None else self.root / row["path"]}

    def close(self) -> None:
        """Let go of the catalogue and its locks. The context manager does it too."""
        self._connection.close()

    def __enter__(self) -> "Lake":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def lake_errors(root: Path) -> Iterator[None]:
    """Turn what the disk and the database say into a sentence for the user."""
    try:
        yield
    except LakeError:
        raise
    except (RuntimeError, duckdb.InterruptException) as error:
        if "Interrupted" in str(error).title():  # how DuckDB reports a Ctrl-C in the middle of a query
            raise KeyboardInterrupt from error
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LakeError(_full(root)) from error
        raise LakeError(
            f"The lake at {root} cannot be written ({error.strerror}): check the directory, or choose another with --lake."
        ) from error
    except duckdb.Error as error:
        text = str(error)
        if "No space left" in text or "disk is full" in text or "not enough disk" in text:
            raise LakeError(_full(root)) from error
        if "Permission denied" in text or "readonly database" in text or "unable to open database" in text:
            raise LakeError(
                f"The lake at {root} cannot be written: check the directory's permissions, or choose another with --lake."
            ) from error
        if isinstance(error, duckdb.IOException | duckdb.InvalidInputException) or "not a database" in text:
            raise LakeError(
                f"The lake at {root} is damaged ({text.splitlines()[0]}): restore the file, or run the recipe again with another --lake."
            ) from error
        raise


def _full(root: Path) -> str:
    return f"The disk under {root} is full: free some space and run the same command again, it goes on where it stopped."


def _patiently(attempt: Callable[[], T]) -> T:
    retrying = Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random_exponential(multiplier=0.05, max=2.0),
        stop=stop_after_delay(120),
        reraise=True,
    )
    return retrying(attempt)


def _is_busy(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, duckdb.Error) and any(word in text for word in _BUSY)


@cache
def _extension_file(name: str) -> str:
    # Loaded from the installed package as it is: nothing is downloaded or copied into the user's home.
    root = cast("Path", resources.files(f"duckdb_extension_{name}"))
    return _quoted(root / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _one(result: Connection) -> int:
    row = result.fetchone()
    assert row is not None
    return int(row[0])
