"""Every call of a judge that is asked over the network: written down before it is sent and before
its answer is used, never asked twice.

    with Ledger(lake, version) as ledger:
        known = ledger.find(keys)                              # answers that some run has paid for already
        call = ledger.sent(key, model, request, cost)          # about to be sent
        ledger.ended(call, answer, None, cost, seconds)        # from now on the answer may be used
Writes ROOT/ledger/*.jsonl, a journal each, and the table `calls`. Test: pytest
tests/storage/test_ledger.py
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self
from uuid import uuid4

import pyarrow as pa

from dapflow.storage.database import Connection
from dapflow.storage.errors import lake_errors
from dapflow.storage.lake import Lake
from dapflow.storage.replacing import synchronise

_SECONDS_BETWEEN_SYNCS = (
    1.0  # what is flushed outlives the process; a power cut may take the last second's calls
)
KILLED = "killed"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a call takes: before it is sent the most that it can, then what the server has counted."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0  # None where nobody knows the price

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True, kw_only=True)
class Spent:
    """All calls that were made for a version, whatever became of them."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0


def spent_on(lake: Lake, versions: Iterable[str]) -> tuple[int, int, float | None]:
    """Calls, tokens and dollars (None where nobody knows a price) that were spent on these
    versions, failures included.
    """
    [row] = lake.rows(
        "SELECT count(*) AS calls, coalesce(sum(tokens_in + tokens_out), 0)::BIGINT AS tokens, "
        "coalesce(sum(usd), 0.0) AS usd,"
        " bool_or(usd IS NULL) AS unknown FROM calls WHERE version IN (SELECT unnest(?))",
        [sorted(versions)],
    )
    return row["calls"], row["tokens"], None if row["unknown"] else row["usd"]


class Ledger:
    """The calls of one version. Opening it brings into the lake what processes that died have left
    in their journals; closing, its own.
    """

    def __init__(self, lake: Lake, version: str) -> None:
        self._lake = lake
        self._version = version
        folder = lake.root / "ledger"
        folder.mkdir(exist_ok=True)
        collect_journals(lake)
        self._path, self._stream = _new_journal(folder)
        self._calls = 0
        self._synced = time.monotonic()
        self._disk = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Bring its calls into the lake."""
        with self._stream:
            self._disk.shutdown()
            _fold(self._lake, self._path)

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        """The answers that are known already, by key."""
        return known_answers(self._lake, keys)

    def spent(self) -> Spent:
        """What the version has taken so far in processes that have ended, killed ones included."""
        [row] = self._lake.rows(
            "SELECT count(*) AS calls, coalesce(sum(tokens_in + tokens_out), 0)::BIGINT AS "
            "tokens, coalesce(sum(usd), 0.0) AS usd"
            " FROM calls WHERE version = ?",
            [self._version],
        )
        return Spent(**row)

    def sent(
        self, key: str, model: str, request: Mapping[str, Any], attempt: int, most: Cost
    ) -> int:
        """Write down that a call is about to be sent; returns its number. most: what is taken to be
        spent should nobody ever know.
        """
        self._calls += 1
        values = {
            "key": key,
            "version": self._version,
            "model": model,
            "attempt": attempt,
            "request": request,
        }
        self._append(
            {
                "call": self._calls,
                **values,
                **_figures(most),
                "sent_at": datetime.now(UTC).isoformat(),
            }
        )
        return self._calls

    def ended(
        self, call: int, answer: str | None, error: str | None, cost: Cost, seconds: float
    ) -> None:
        """Write down how it ended. error: None for an answer that may be used."""
        self._append(
            {"call": call, "answer": answer, "error": error, **_figures(cost), "seconds": seconds}
        )

    def _append(self, entry: Mapping[str, Any]) -> None:
        with lake_errors(self._lake.location.address):
            self._stream.write(json.dumps(entry).encode() + b"\n")
            if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
                self._synced = time.monotonic()
                self._disk.submit(
                    os.fsync, self._stream.fileno()
                )  # nobody waits for it: a sync holds all calls up for 10 ms or more

    def synchronise(self) -> None:
        """Bring what was written to the disk: what follows from it is about to be."""
        os.fsync(self._stream.fileno())


def known_answers(lake: Lake, keys: Iterable[str]) -> dict[str, str]:
    """The answers of the lake, and those of processes that are at work now, by key. Writes nothing."""
    wanted = set(keys)
    journaled = (
        call for path in (lake.root / "ledger").glob("*.jsonl") for call in _calls_of(path)
    )
    found = {
        call["key"]: call["answer"]
        for call in journaled
        if call["error"] is None and call["key"] in wanted
    }
    # two runs that asked for the same at once have two answers: everybody takes the same one
    query = (
        "SELECT key, arg_min(answer, call) FROM calls WHERE error IS NULL AND key IN (SELECT key "
        "FROM wanted) GROUP BY key"
    )
    with lake.cursor() as cursor:
        cursor.register("wanted", pa.table({"key": pa.array(sorted(wanted), pa.string())}))
        try:
            return found | dict(cursor.execute(query).fetchall())
        finally:
            cursor.unregister("wanted")


def collect_journals(lake: Lake) -> None:
    """Bring the journals of dead processes into the table `calls`."""
    for path in sorted((lake.root / "ledger").glob("*.jsonl")):
        with (
            suppress(FileNotFoundError),
            path.open("r+b") as stream,
        ):  # else another process was faster
            if _locked(stream, path):
                _fold(lake, path)


def _new_journal(folder: Path) -> tuple[Path, IO[bytes]]:
    """A file that this process holds the lock of as long as it lives: the system lets go of it,
    however the process ends.
    """
    while True:
        path = folder / f"{uuid4().hex[:16]}.jsonl"
        stream = path.open(
            "xb", buffering=0
        )  # a line is the system's at once: it outlives a kill -9
        if _locked(stream, path):
            synchronise(folder)
            return path, stream
        stream.close()  # somebody took it for a dead one's before it was locked


def _locked(stream: IO[bytes], path: Path) -> bool:
    """Whether the lock on a journal is ours now, and the journal still where it was."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _fold(lake: Lake, path: Path) -> None:
    """Bring a journal into the lake in one transaction, then remove it.

    A process that dies in between leaves a journal whose calls are there already: their names are,
    so they are not added again.
    """
    calls = list(_calls_of(path))
    if calls:
        rows = [
            {**call, "request": json.dumps(call["request"], ensure_ascii=False)} for call in calls
        ]
        new = pa.Table.from_pylist(rows, schema=lake.schema("calls"))

        def work(cursor: Connection) -> None:
            cursor.register("new_calls", new)
            cursor.execute(
                "INSERT INTO calls SELECT * FROM new_calls WHERE call NOT IN (SELECT call FROM "
                "calls WHERE journal = ?)",
                [path.stem],
            )
            cursor.unregister("new_calls")

        lake.commit(work, f"{len(calls)} calls")
    path.unlink(missing_ok=True)


def _calls_of(path: Path) -> Iterator[dict[str, Any]]:
    """The calls of a journal. One that has not ended was killed, and is taken to have cost the most
    that it can.
    """
    calls: dict[int, dict[str, Any]] = {}
    for entry in _entries(path):
        number = entry.pop("call")
        if number not in calls:
            entry["sent_at"] = datetime.fromisoformat(entry["sent_at"])
            calls[number] = {
                "call": f"{path.stem}-{number:08d}",
                "journal": path.stem,
                "answer": None,
                "error": KILLED,
                "seconds": None,
            }
        calls[number] |= entry
    yield from calls.values()


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:  # brought into the lake meanwhile
        return
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the last one, cut off by a kill
            continue


def _figures(cost: Cost) -> dict[str, Any]:
    return {"tokens_in": cost.tokens_in, "tokens_out": cost.tokens_out, "usd": cost.usd}
