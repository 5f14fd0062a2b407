"""What all tests share: an empty lake in a directory of its own, one real Prefect server, and no
network.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dapflow.flows.server.environment import prepare

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # toy models: a second thread only waits for busy cores
_own = tempfile.mkdtemp(prefix="dapflow-tests-")
atexit.register(shutil.rmtree, _own, ignore_errors=True)
os.environ["DAPFLOW_ALLOWED"] = (
    f"{_own}/allowed.txt"  # what tests run is nothing that the developer has allowed
)
prepare(None)

from dapflow.storage import Lake, database  # noqa: E402
from tests.helpers.browser import browser  # noqa: E402, F401
from tests.helpers.lakes import Made, empty_lake, iterated_lake  # noqa: E402

# A run asks DuckDB a thousand small questions, and at each its other threads wake and spin: a third
# of the processor's time. Tests of the lake itself (tests/storage/conftest.py), and runs in
# processes of their own, have as many threads as users have.
database._CONFIG["threads"] = "1"


@pytest.fixture
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    """A lake, empty but for what else the test asks for."""
    if "made" in request.fixturenames:
        request.getfixturevalue("made")
    else:
        empty_lake(tmp_path / "lake")
    with Lake(tmp_path / "lake") as lake:
        yield lake


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """The first iteration of an initial policy, which the test's lake holds."""
    return iterated_lake(tmp_path / "lake")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server of the tests' own, with an empty database; ten seconds, once."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield
