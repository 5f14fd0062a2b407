"""Nights through a real Prefect server, scheduler and worker, which are killed one after the other:
make test-nights (minutes).
"""

from collections.abc import Iterator

import pytest

from dapflow.storage import Lake
from dapflow.storage.promotions import decided_by
from tests.deployments.services import (
    SMALL,
    Services,
    check_resumed,
    services,
    settings,
    wait,
    webhook,
)
from tests.helpers.model_servers import Behaviour, openai_server

pytestmark = [pytest.mark.nights, pytest.mark.timeout(0)]
KEYS = {
    name: f"planted-{name.lower()}"
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD")
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("nights"), KEYS) as found:
        found.dapflow("deploy", "--toy", "--dead-after", "60", *settings(SMALL))
        yield found


def heard(said: list[dict[str, str]], subject: str) -> str:
    """What people are told under this subject, once."""
    wait(
        f"people are told: {subject}",
        lambda: any(one["subject"] == subject for one in said),
        lambda: str(said),
    )
    (found,) = [one["body"] for one in said if one["subject"] == subject]
    return found


def test_deploying_again_changes_nothing_and_tells_people_what_happens(run: Services) -> None:
    with webhook() as (url, said):
        told = [
            run.dapflow(
                "deploy",
                "--toy",
                "--dead-after",
                "60",
                "--notify",
                url,
                *settings(SMALL, ["gate.win_rate_low=1"]),
            )
            for _ in range(2)
        ]
        assert told[0] == told[1]
        # Without the address, prefect would ask a server of its own.
        assert told[0].endswith(
            f"start one now: PREFECT_API_URL={run.url} prefect deployment run night/rso\n"
        )
        assert len(run.api("deployments/filter", {})) == 3
        assert len(run.api("automations/filter", {})) == 4
        assert [
            queue["concurrency_limit"]
            for queue in run.api("work_queues/filter", {})
            if queue["name"] == "nights"
        ] == [1]
        found = run.api("deployments/name/night/rso")
        form = found["parameter_openapi_schema"]
        assert form["definitions"]["RecipeName"]["enum"][0] == "rso"
        assert [
            field["type"] for name, field in form["properties"].items() if name != "recipe"
        ] == ["array", "boolean", "string"]
        night = run.start_night()
        assert "at least 1 is asked" in run.wait_for(night, "GateClosed", "Promoted")["message"]
        told_of = heard(said, "dapflow: a policy was not promoted")
        assert "win_rate (low end of its interval) is" in told_of
        assert f"http://127.0.0.1:{run.port}/runs/flow-run/{night}" in told_of
        with openai_server(Behaviour(reply="1")) as endpoint:
            judge = (
                "judge=llm",
                "judge.endpoint.model=judge",
                f"judge.endpoint.base_url={endpoint}",
                "judge.budget.max_calls=2",
            )
            night = run.start_night(recipe="sft-sample-rank", settings=[*SMALL, *judge])
            run.wait_for(night, "GateClosed", "Promoted")
        assert "verdicts are missing (2 calls" in heard(said, "dapflow: a judge's budget is spent")
        failing = run.start_night(settings=[*SMALL, "prompts.source=/nowhere.jsonl"])
        run.wait_for(failing, "Failed")
        told_of = heard(said, f"dapflow: {run.api(f'flow_runs/{failing}')['name']} Failed")
        assert "/nowhere.jsonl" in told_of and "dapflow resume" in told_of
    run.dapflow("deploy", "--toy", "--dead-after", "60", *settings(SMALL))
    for file in run.folder.rglob(
        "*"
    ):  # the lake, Prefect's database with its parameters, artifacts and blocks, and all logs
        if file.is_file():
            assert b"planted-" not in file.read_bytes(), file
            assert b"secret-path-of-the-hook" not in file.read_bytes(), file


@pytest.mark.parametrize("step", ["sample", "train with", "evaluate"])
def test_a_night_whose_process_was_killed_is_resumed_from_the_lake(
    run: Services, step: str
) -> None:
    night = run.start_night()
    wait(f"{step} begins", lambda: run.begun(night, step), lambda: str(run.state(night)))
    process = run.process_of(night)
    assert process is not None
    process.kill()
    run.wait_for(night, "Crashed")  # the worker has seen it
    assert "is scheduled again" in run.dapflow("resume", night)
    run.wait_for(night, "GateClosed", "Promoted")
    check_resumed(run.attempts(night))
    with Lake(run.lake, read_only=True) as lake:
        assert decided_by(lake, night) is not None


def test_a_night_whose_worker_died_with_it_is_found_and_its_slot_is_free_again(
    run: Services,
) -> None:
    night = run.start_night()
    wait("it samples", lambda: run.begun(night, "sample"))
    run.kill("worker")
    process = run.process_of(night)
    assert process is not None  # it outlives its worker
    process.kill()
    wait("it is gone", lambda: run.process_of(night) is None)
    run.start_worker()
    assert f"({night}) is gone: Crashed" in run.dapflow("doctor")
    assert run.state(night)["type"] == "CRASHED"
    assert "Its process is gone" in run.state(night)["message"]
    following = run.start_night()  # one at a time: it could not begin if the slot were held
    run.wait_for(following, "GateClosed", "Promoted")


def test_without_anybody_doing_anything_a_dead_run_is_crashed_for_want_of_a_heartbeat(
    run: Services,
) -> None:
    night = run.start_night()
    wait("it samples", lambda: run.begun(night, "sample"))
    run.kill("worker")
    process = run.process_of(night)
    assert process is not None
    process.kill()
    assert "No sign of life for 60 seconds" in run.wait_for(night, "Crashed")["message"]
    run.start_worker()
    run.wait_for(run.start_night(), "GateClosed", "Promoted")


def test_a_server_that_was_killed_comes_back_and_the_next_night_goes_on(run: Services) -> None:
    night = run.start_night()
    wait("it samples", lambda: run.begun(night, "sample"))
    run.kill("server")
    run.start_server()
    wait("the process ends", lambda: run.process_of(night) is None)
    run.dapflow("doctor")
    run.wait_for(night, "Crashed", "Failed", "GateClosed", "Promoted")
    run.wait_for(run.start_night(), "GateClosed", "Promoted")


def test_the_line_of_policies_is_one_and_its_processes_are_ended(run: Services) -> None:
    run.wait_for(run.start_night(), "GateClosed", "Promoted")
    wait("no process is left", lambda: run.process_of() is None)
    with Lake(run.lake, read_only=True) as lake:
        rows = lake.rows("SELECT slice, policy, previous FROM promotions ORDER BY number")
    assert [row["slice"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["previous"] for row in rows[1:]] == [row["policy"] for row in rows[:-1]]
