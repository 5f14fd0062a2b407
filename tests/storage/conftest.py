"""Tests of the lake read and write with as many threads of DuckDB's as users have; the others have
one (tests/conftest.py).
"""

import os
from collections.abc import Iterator

import pytest

from dapflow.storage import database


@pytest.fixture(autouse=True)
def _all_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(
        database._CONFIG, "threads"
    )  # of read-only lakes, which have an instance of their own
    instance = database._instance(os.getpid())
    instance.execute("RESET threads")
    yield
    instance.execute("SET threads = 1")
