"""What compose.yaml describes, started by hand on loopback: Prefect's server and the lake on
PostgreSQL, and two workers: make test-nights.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dapflow.storage import Lake
from dapflow.storage.promotions import promotions
from tests.deployments.services import SMALL, Services, check_resumed, settings, wait
from tests.helpers.processes import database, postgres

pytestmark = [pytest.mark.nights, pytest.mark.timeout(0)]
SHARDS = ("sampling.n=64", "shards.count=2")  # of two prompts each: 128 answers are a chunk
WORKERS = ("one", "two")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("machines")
    with tempfile.TemporaryDirectory() as place, postgres(Path(place)) as server:
        url = f"postgresql+asyncpg://{database(server, 'prefect')}"
        lake = f"postgres://{database(server, 'lake')}?root={folder / 'lake'}"
        found = Services(folder, {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}, lake)
        try:
            found.start_server()
            for name in WORKERS:
                found.start_worker(name)
            found.dapflow("deploy", "--toy", *settings(SMALL, SHARDS))
            yield found
        finally:
            found.end()


def test_a_night_is_taken_over_by_another_worker_and_no_row_is_there_twice(run: Services) -> None:
    night = run.start_night()
    wait("it samples", lambda: run.begun(night, "sample"), lambda: str(run.state(night)))
    process = run.process_of(night)
    assert process is not None
    first = next(
        name
        for name in WORKERS
        if run.processes[name].pid in {one.pid for one in process.parents()}
    )
    run.kill(first)  # a machine is gone: the worker and all that it had started
    process.kill()
    wait("it is gone", lambda: run.process_of(night) is None)
    assert "is scheduled again" in run.dapflow("resume", night)
    run.wait_for(night, "GateClosed", "Promoted")  # by the other one: nobody else is there
    check_resumed(run.attempts(night))
    shards = [
        one["name"].split(" of ")[0]
        for one in run.tasks(night)
        if one["name"].startswith("shard ") and one["state_name"] == "Completed"
    ]
    assert {"shard 1", "shard 2"} <= set(shards)
    run.start_worker(first)
    following = run.start_night()
    run.wait_for(following, "GateClosed", "Promoted")

    with Lake(run.lake, read_only=True) as lake:
        query = "SELECT count(*) AS rows, count(DISTINCT id) AS ids, count(DISTINCT (prompt_id, sample)) AS answers, version FROM completions"
        found = lake.rows(f"{query} GROUP BY version")
        expected = {
            row["version"]: ref.rows
            for row in found
            if (ref := lake.find(row["version"])) is not None
        }
        decided = promotions(lake)
    assert {row["version"]: row["rows"] for row in found} == expected
    assert all(row["rows"] == row["ids"] == row["answers"] for row in found)
    assert [row["rows"] for row in found].count(4 * 64) == 2
    assert [(row["run"], row["slice"]) for row in decided] == [(night, 1), (following, 2)]
    assert decided[0]["previous"] is None and decided[1]["previous"] == decided[0]["policy"]
    assert not list(run.folder.rglob("prefect.db*"))  # the server keeps its runs in PostgreSQL
