"""Asking a lake in SQL that a user wrote: it reads the lake's tables and nothing else, in so much
memory and time as it is given.

    with Lake("./lake", read_only=True) as lake, question(lake, "from pairs", timeout_s=60) as asked:
        for batch in asked.rows(asked.as_text(300)): ...
The query is checked (`dapflow.storage.sql`) and runs in an instance that is shut in
(`dapflow.storage.database.confine`): either alone is not enough.
"""

import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
import psutil
import pyarrow as pa

from dapflow.storage.database import Connection, confine
from dapflow.storage.errors import Remedy, UserError, lake_errors, one_line
from dapflow.storage.lake import Lake
from dapflow.storage.sql import check_condition, check_query

T = TypeVar("T")
MEMORY = (
    2 * 2**30
)  # bytes that a query may take in this process, Arrow's and Python's among them; DuckDB's own limit lies below
# between interrupting the engine and ending the process, where one function is busy and does not
# listen
_GRACE_S = 3.0
_BATCH = 2048  # rows


@dataclass(frozen=True)
class Question:
    """A query that has been checked, with the columns of its answer: their names, no two the same,
    and DuckDB's types.
    """

    names: Sequence[str]
    types: Sequence[str]
    query: str
    ask: "_Asking"

    def as_text(self, length: int | None = None) -> str:
        """What to select for every column as text, of which at most so many characters."""
        texts = (f"c{place}::VARCHAR" for place in range(len(self.names)))
        return ", ".join(text if length is None else f"left({text}, {length})" for text in texts)

    def as_json(self) -> str:
        """What to select for a row as one JSON object."""
        fields = ", ".join(
            f"{identifier(name)} := c{place}" for place, name in enumerate(self.names)
        )
        return f"to_json(struct_pack({fields}))::VARCHAR"

    def rows(self, select: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """The answer, of which `select` is taken; its columns are c0, c1, ... there. Memory stays
        flat however many rows there are.
        """
        return self.batches(self.reader(select, limit))

    def batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """What a reader of the answer reads."""
        while (batch := self.ask.timed(lambda: next(reader, None))) is not None:
            yield batch

    def reader(self, select: str, limit: int | None = None) -> pa.RecordBatchReader:
        """The same with its schema, for `batches`."""
        columns = ", ".join(f"c{place}" for place in range(len(self.names)))
        most = "" if limit is None else f" LIMIT {limit}"
        text = f"SELECT {select} FROM (\n{self.query}\n) AS asked({columns}){most}"
        return self.ask.timed(lambda: self.ask.cursor.execute(text).to_arrow_reader(_BATCH))


def end_process(error: UserError) -> None:
    """What is done about a query that does not listen: nothing is lost, it only reads."""
    print(error, file=sys.stderr, flush=True)
    os._exit(2)


@contextmanager
def question(
    lake: Lake, query: str, timeout_s: float, on_stuck: Callable[[UserError], None] = end_process
) -> Iterator[Question]:
    """One SELECT over the tables of a lake that is open for reading only. Raises UserError when it
    is anything else, or fails.

    on_stuck: called in another thread when a function goes on although its time is over
    """
    with _asking(lake, timeout_s, on_stuck) as ask:
        text = ask.timed(lambda: check_query(ask.cursor, lake.name, query))
        columns = ask.timed(
            lambda: ask.cursor.execute(f"DESCRIBE SELECT * FROM (\n{text}\n)").fetchall()
        )
        yield Question([name for name, *_ in columns], [kind for _, kind, *_ in columns], text, ask)


def rows_where(
    lake: Lake,
    query: str,
    condition: str,
    timeout_s: float,
    on_stuck: Callable[[UserError], None] = end_process,
) -> list[dict[str, Any]]:
    """The rows of a query of ours in which `{condition}` stands for a user's condition."""
    with _asking(lake, timeout_s, on_stuck) as ask:
        ask.timed(lambda: check_condition(ask.cursor, lake.name, condition))
        text = query.format(condition=f"(\n{condition}\n)")
        return ask.timed(lambda: ask.cursor.execute(text).to_arrow_table().to_pylist())


@dataclass(frozen=True)
class _Asking:
    """A cursor in an instance that is shut in, and how long each answer of its may take."""

    cursor: Connection
    address: str
    timeout_s: float
    on_stuck: Callable[[UserError], None]

    def timed(self, work: Callable[[], T]) -> T:
        """The result of `work`. Raises UserError for what the engine says, and when it takes too
        long.
        """
        late = threading.Event()
        timers = (
            threading.Timer(self.timeout_s, lambda: (late.set(), self.cursor.interrupt())),
            threading.Timer(self.timeout_s + _GRACE_S, lambda: self.on_stuck(self._too_long())),
        )
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            with lake_errors(self.address):
                return _heard(work)
        except KeyboardInterrupt as error:
            if late.is_set():
                raise self._too_long() from error
            raise
        finally:
            for timer in timers:
                timer.cancel()

    def _too_long(self) -> UserError:
        return UserError(
            f"The query took longer than {self.timeout_s:g} seconds: "
            "ask for less, or give it longer.",
            Remedy.LONGER_QUERY,
        )


def _heard(work: Callable[[], T]) -> T:
    """The result of `work`; what the engine says about a query becomes a sentence, whichever
    library hands it on.
    """
    try:
        return work()
    except (MemoryError, duckdb.OutOfMemoryException) as error:
        raise UserError(
            f"The query needs more than {MEMORY / 2**30:g} GB of memory: ask for fewer rows or "
            "shorter values."
        ) from error
    except (duckdb.InterruptException, duckdb.IOException, UserError):
        raise
    except (
        duckdb.Error,
        pa.ArrowException,
        OSError,
        RuntimeError,
    ) as error:  # Arrow's reader hands on what comes later as OSError
        if "INTERRUPT" in str(error):
            raise KeyboardInterrupt from error
        raise UserError(f"The database says: {one_line(str(error))}") from error


@contextmanager
def _asking(
    lake: Lake, timeout_s: float, on_stuck: Callable[[UserError], None]
) -> Iterator[_Asking]:
    assert lake.read_only, (
        "a lake to write to shares its instance with the process, which must not be shut in"
    )
    with lake.open_cursor() as cursor, _memory():
        confine(cursor, lake.location)
        yield _Asking(cursor, lake.location.address, timeout_s, on_stuck)


@contextmanager
def _memory() -> Iterator[None]:
    """At most MEMORY more for this process: a function such as repeat() takes what it wants past
    DuckDB's own limit.
    """
    if sys.platform != "linux":  # elsewhere the system does not count what a process maps
        yield
        return
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = psutil.Process().memory_info().data + MEMORY
    resource.setrlimit(
        resource.RLIMIT_DATA,
        (min([wanted, *(limit for limit in (before, most) if limit >= 0)]), most),
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def identifier(name: str) -> str:
    """A name as SQL writes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
