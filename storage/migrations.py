"""Brings a lake up to the schema of this version when it is opened. Test: pytest
tests/storage/test_versions.py
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import duckdb

from dapflow.storage.database import Connection
from dapflow.storage.errors import LakeError, Remedy
from dapflow.storage.location import Location
from dapflow.storage.schema import MIGRATIONS

T = TypeVar("T")


class Opened(Protocol):
    """What this needs of a lake."""

    name: str
    location: Location
    read_only: bool

    def cursor(self) -> AbstractContextManager[Connection]: ...

    def commit(self, work: Callable[[Connection], T], message: str) -> T: ...


def migrate(lake: Opened) -> None:
    """Apply what is missing. Raises LakeError for a lake of a newer version, and for an older one
    that is open for reading only.
    """
    with lake.cursor() as cursor:
        done = _number(cursor)
    if done > len(MIGRATIONS):
        raise LakeError(
            f"The lake at {lake.location.address} has schema {done}, "
            f"this version of dapflow knows {len(MIGRATIONS)}: update dapflow, or use another "
            "lake.",
            Remedy.OTHER_LAKE,
        )
    if done < len(MIGRATIONS) and lake.read_only:
        raise LakeError(
            f"The lake at {lake.location.address} has an older schema: "
            "any run on it brings it up to date.",
            Remedy.RUN_RECIPE,
        )
    while done < len(MIGRATIONS):
        done = lake.commit(
            lambda cursor: _migrate_some(cursor, lake.name), f"migrate from schema {done}"
        )


def _migrate_some(cursor: Connection, lake: str) -> int:
    """As many migrations as one transaction takes: a table that it has made takes no options.
    Returns the schema's number now.
    """
    cursor.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER, applied_at TIMESTAMPTZ)")
    # not what it was before, where another process was faster
    begin = end = _number(cursor)
    while end < len(MIGRATIONS) and (end == begin or "set_option" not in MIGRATIONS[end]):
        cursor.execute(MIGRATIONS[end].format(lake=lake))
        cursor.execute("INSERT INTO migrations VALUES (?, now())", [end := end + 1])
    return end


def _number(cursor: Connection) -> int:
    try:
        row = cursor.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchone()
    except duckdb.CatalogException:
        return 0
    assert row is not None
    return int(row[0])
