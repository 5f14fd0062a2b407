"""What all tests share: an empty lake in a directory of its own, one real Prefect server, and no network."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.environment import prepare

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # toy models: a second thread only waits for busy cores
prepare(None)

from storage import Lake  # noqa: E402
from tests.browser import browser  # noqa: E402, F401


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(tmp_path / "lake")
    yield lake
    lake.close()


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server of the tests' own, with an empty database; ten seconds, once."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield
