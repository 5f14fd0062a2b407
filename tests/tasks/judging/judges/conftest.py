"""One lake for the judges' tests: making one takes a second, and nothing is in their way but each
other's calls.
"""

from collections.abc import Iterator

import pytest

from dapflow.storage import Lake


@pytest.fixture(scope="module")
def judges_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with Lake(tmp_path_factory.mktemp("judges") / "lake") as lake:
        yield lake


@pytest.fixture
def lake(judges_lake: Lake) -> Iterator[Lake]:
    yield judges_lake
    for table in ("calls", "questions", "labels", "batches"):
        judges_lake.commit(
            lambda cursor, table=table: cursor.execute(f"DELETE FROM {table}"),
            "forget what a test has asked",
        )
