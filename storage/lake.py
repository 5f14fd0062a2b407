"""The lake: a DuckLake (DuckDB, Parquet files, an SQL catalogue) that several processes and
machines may read and write at once.

    with Lake("./lake") as lake:
        lake.sql("select kind, count(*) from versions group by kind")
Writes under its root only (catalogue.sqlite, data/, models/, checkpoints/, locks/), or where its
address says (`dapflow.storage.location`).
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pyarrow as pa
from filelock import FileLock

from dapflow.storage.catalogue import Catalogue, DataFile
from dapflow.storage.database import Connection, attach
from dapflow.storage.errors import LakeError, Remedy, lake_errors, require_space, unwritable
from dapflow.storage.index import Index
from dapflow.storage.location import Location, copied, locate
from dapflow.storage.migrations import migrate
from dapflow.storage.patience import patiently
from dapflow.storage.policies import CALLED
from dapflow.storage.refs import ModelRef, Ref
from dapflow.storage.rows import (
    AcceptanceRow,
    CompletionRow,
    MetricRow,
    PairRow,
    PromptRow,
    VerdictRow,
)
from dapflow.storage.shield import shielded

if TYPE_CHECKING:
    import datasets

T = TypeVar("T")


class Lake:
    """A lake of dataset versions at a directory (created when it is not there) or an address
    (`dapflow.storage.location`).

    read_only: the engine refuses every write. Raises LakeError when the lake cannot be reached or
    written, is damaged, or was made by a newer version of the software.
    """

    def __init__(
        self, address: str | os.PathLike[str] = "lake", *, read_only: bool = False
    ) -> None:
        self.location = locate(address)
        self.root = self.location.root
        self.read_only = read_only
        self._closed = False
        self._schemas: dict[str, pa.Schema] = {}
        self._empty: dict[str, str] = {}
        self._idle: list[
            Connection
        ] = []  # cursors, each used by one block at a time: making one takes 2 ms
        with lake_errors(self.location.address):
            if read_only and not self.location.exists:
                raise LakeError(
                    f"There is no lake at {self.root}: run a recipe, which makes one, or name "
                    "another.",
                    Remedy.MAKE_LAKE,
                )
            self._copied = ExitStack()
            attached = self.location
            if not read_only:
                _make(self.location)
                require_space(self.root, self.location.address)
            elif not os.access(
                self.root, os.W_OK
            ):  # a read-only mount: SQLite wants to write beside the catalogue even to read it
                attached = self._copied.enter_context(copied(self.location))
            self._connection, self.name = patiently(lambda: attach(attached, read_only))
            self._index = Index(self.location, self.name, self.cursor)
            try:
                migrate(self)
            except BaseException:
                self.close()
                raise

    @contextmanager
    def cursor(self) -> Iterator[Connection]:
        """A cursor of its own for one thread or one transaction. An exception in the block rolls
        back what was not committed. A signal ends its query, and is heard at the end of the block.
        """
        with self.open_cursor() as cursor, shielded(cursor.interrupt):
            yield cursor

    @contextmanager
    def open_cursor(self) -> Iterator[Connection]:
        """The same for a block that lasts, in which signals are heard at once."""
        try:
            cursor = self._idle.pop()
        except IndexError:
            cursor = self._connection.cursor()
            cursor.execute(f"USE {self.name}")
        try:
            yield cursor
        except BaseException:
            cursor.close()
            raise
        self._idle.append(cursor)

    def commit(
        self, work: Callable[[Connection], T], message: str, info: dict[str, Any] | None = None
    ) -> T:
        """Run `work(cursor)` in one transaction; on a conflict with another writer, roll back and
        run it again. Raises LakeError.

        Writers that share the lake's root come one after the other: waiting for a turn is cheaper
        than a conflict.
        """

        def attempt() -> T:
            with shielded(), self.open_cursor() as cursor:
                cursor.begin()
                result = work(cursor)
                cursor.execute(
                    f"CALL {self.name}.set_commit_message('dapflow', ?, extra_info => ?)",
                    [message, json.dumps(info or {})],
                )
                cursor.commit()
                return result

        require_space(self.root, self.location.address)
        with (
            lake_errors(self.location.address),
            FileLock(self.root / "locks" / "commit.lock", poll_interval=0.005),
        ):
            return patiently(attempt)

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The rows of a query over the tables of `dapflow.storage.schema`, as an Arrow table."""
        with lake_errors(self.location.address), self.cursor() as cursor:
            return cursor.execute(query, list(parameters)).to_arrow_table()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries."""
        return self.sql(query, parameters).to_pylist()

    def batches(
        self, query: str, parameters: Sequence[Any] = (), rows: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a query as Arrow record batches of at most `rows` rows: memory stays flat
        however many there are.
        """
        with lake_errors(self.location.address), self.open_cursor() as cursor:
            yield from cursor.execute(query, list(parameters)).to_arrow_reader(rows)

    def catalogue(self) -> Catalogue:
        """What the lake holds now: versions, edges and files, read again only when somebody has
        committed something.
        """
        return self._index.catalogue()

    def refresh(self) -> None:
        """Read the catalogue again at the next question, although nobody has committed."""
        self._index.refresh()

    def find(self, version: str) -> Ref | None:
        """The reference of a complete version, or None: an open version does not exist for readers."""
        return self._index.find(version)

    def files_of(self, version: str) -> tuple[DataFile, ...]:
        """The Parquet files of a version, whatever noun their rows are of."""
        return self._index.files_of(version)

    def resolve(self, name: str) -> str:
        """The full id of what a person names: see `Catalogue.resolve`; `promoted` and `newest` are
        policies. Raises LakeError.
        """
        if (called := CALLED.get(name)) is None:
            return self.catalogue().resolve(name)
        policies = [row["policy"] for row in self.rows(called.query)]
        if policies in ([], [None]):
            raise LakeError(called.missing, called.remedy)
        return policies[0]

    def read(self, ref: Ref | str, table: str | None = None) -> pa.Table:
        """All rows of a version in id order, as an Arrow table; columns as `dapflow.storage.schema`
        has them.

        ref: a reference, or a version as a person writes it (`pairs@3f9c01`). `table`: another noun
        that the same step wrote (metrics of a training run). Raises LakeError when the version is
        not complete or its files are gone.
        """
        ref = self.ref(ref)
        return self.sql(*self.query_of(ref, table))

    def read_batches(self, ref: Ref | str, rows: int = 10_000) -> Iterator[pa.RecordBatch]:
        """The same in Arrow record batches of at most `rows` rows, for a version larger than
        memory.
        """
        ref = self.ref(ref)
        return self.batches(*self.query_of(ref), rows)

    def query_of(self, ref: Ref, table: str | None = None) -> tuple[str, list[Any]]:
        """SQL and parameters for all rows of a version in id order: its own files one after the
        other, so that nothing has to be sorted.
        """
        files = [file for file in self.files_of(ref.version) if file.table == (table or ref.kind)]
        if files:
            return f"FROM {self._rows_in(files)}", [sorted(file.path for file in files)]
        return f'FROM "{table or ref.kind}" LIMIT 0', []

    def rows_of(self, ref: Ref | str, table: str | None = None) -> list[dict[str, Any]]:
        """The same as dictionaries."""
        return self.read(ref, table).to_pylist()

    def prompts(self, ref: Ref | str) -> list[PromptRow]:
        """The rows of a version of prompts."""
        return cast("list[PromptRow]", self._rows_of("prompts", ref))

    def completions(self, ref: Ref | str) -> list[CompletionRow]:
        """The rows of a version of completions."""
        return cast("list[CompletionRow]", self._rows_of("completions", ref))

    def verdicts(self, ref: Ref | str) -> list[VerdictRow]:
        """The rows of a version of verdicts."""
        return cast("list[VerdictRow]", self._rows_of("verdicts", ref))

    def acceptances(self, ref: Ref | str) -> list[AcceptanceRow]:
        """The rows of a version of acceptances."""
        return cast("list[AcceptanceRow]", self._rows_of("acceptances", ref))

    def pairs(self, ref: Ref | str) -> list[PairRow]:
        """The rows of a version of pairs."""
        return cast("list[PairRow]", self._rows_of("pairs", ref))

    def metrics(self, ref: Ref | str) -> list[MetricRow]:
        """The rows of a version of metrics, or those that a step has written beside its own noun."""
        return cast("list[MetricRow]", self.rows_of(ref, "metrics"))

    def _rows_of(self, kind: str, ref: Ref | str) -> list[dict[str, Any]]:
        ref = self.ref(ref)
        assert ref.kind == kind, f"{ref!r} holds no {kind}"
        return self.rows_of(ref)

    def ref(self, name: Ref | str) -> Ref:
        """The reference of a complete version. Raises LakeError when there is none of that name, or
        it is not complete.
        """
        version = name.version if isinstance(name, Ref) else self.resolve(name)
        if "-" in version:
            raise LakeError(
                f"{name} is a row: name its version, {version.partition('-')[0]}, "
                "or ask for the lineage of the row.",
                Remedy.FOLLOW_ROW,
            )
        if (found := self.find(version)) is None:
            label = f"{name.kind}@{version}" if isinstance(name, Ref) else name
            raise LakeError(
                f"{label} is not a complete version of the lake at {self.location.address}: run "
                "its recipe again."
            )
        return found

    def pick(
        self, files: Sequence[DataFile], where: str, parameters: Sequence[Any] = ()
    ) -> list[dict[str, Any]]:
        """The rows that a condition picks from files of one version, in id order, without token ids
        and log-probs.

        Read straight from the files: a condition on `id` touches one row group, whatever else the
        lake holds.
        """
        if not files:
            return []
        columns = ", ".join(
            f'"{name}"'
            for name in self.schema(files[0].table).names
            if name not in ("token_ids", "logprobs")
        )
        query = f"SELECT {columns} FROM {self._rows_in(files)} WHERE {where} ORDER BY id"
        return self.rows(query, [[file.path for file in files], *parameters])

    def _rows_in(self, files: Sequence[DataFile]) -> str:
        """What stands after FROM to read files of one noun; a column that is younger than they are
        is null.
        """
        table = files[0].table
        if table not in self._empty:
            columns = self.rows(
                f'SELECT column_name AS name, column_type AS type FROM (DESCRIBE "{table}")'
            )
            self._empty[table] = (
                "SELECT "
                + ", ".join(f'NULL::{one["type"]} AS "{one["name"]}"' for one in columns)
                + " WHERE false"
            )
        return (
            f"({self._empty[table]} UNION ALL BY NAME FROM read_parquet(?, hive_partitioning => "
            "false))"
        )

    def schema(self, table: str) -> pa.Schema:
        """The columns of a noun."""
        if table not in self._schemas:
            self._schemas[table] = self.sql(f'SELECT * FROM "{table}" LIMIT 0').schema
        return self._schemas[table]

    def dataset(self, ref: Ref | str) -> "datasets.Dataset":
        """The rows of a version as a `datasets.Dataset` over the same Arrow memory, not a copy of
        it.
        """
        import datasets
        from datasets.table import InMemoryTable

        return datasets.Dataset(InMemoryTable(self.read(ref)))

    def model(self, ref: ModelRef) -> dict[str, Any]:
        """The row of a model version; `path` is absolute, or None for a model that lives outside
        the lake.
        """
        row = self.rows_of(ref)[0]
        return {**row, "path": None if row["path"] is None else self.root / row["path"]}

    def close(self) -> None:
        """Let go of the catalogue and its locks. The context manager does it too."""
        if self._closed:
            return
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        with closing(self._connection):
            self._connection.execute(f"DETACH DATABASE IF EXISTS {self.name}")
        self._copied.close()

    def __enter__(self) -> "Lake":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make(location: Location) -> None:
    try:
        for name in ("models", "checkpoints", "locks"):
            (location.root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(location.address, error) from error
