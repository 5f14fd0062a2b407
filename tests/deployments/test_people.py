"""A run of a deployment that waits for a person is suspended, and goes on when the labels are in:
real server and worker, make test-nights.
"""

from collections.abc import Iterator

import psutil
import pytest

from dapflow.storage import Lake
from dapflow.storage.promotions import decided_by
from tests.deployments.services import SMALL, Services, check_resumed, services, settings, wait
from tests.helpers.person import free_port, person

pytestmark = [pytest.mark.nights, pytest.mark.timeout(0)]
HUMAN = ("judge=human", "evaluation.judge=shorter", "prompts.per_iteration=8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("people")) as found:
        found.dapflow("deploy", "--toy", "--recipe", "sft-sample-rank", *settings(SMALL, HUMAN))
        yield found


def test_a_suspended_run_gives_its_machine_back_and_goes_on_when_a_person_has_labelled(
    run: Services,
) -> None:
    night = run.start_night("night/sft-sample-rank")
    suspended(run, night, times=1)
    port = free_port()
    with Lake(run.lake, read_only=True) as lake:
        assert lake.rows("SELECT state FROM runs") == [{"state": "stopped"}]  # it has not failed
    with person(port, most=2) as first:  # whose sitting is cut off after two labels
        sitting = psutil.Popen(run.command("label", "--port", str(port)), env=run.environment)
        wait("two labels are in", lambda: len(first.asked) == 2 or sitting.poll() is not None)
        sitting.kill()
        sitting.wait()
    assert run.state(night)["name"] == "Suspended"
    run.api(
        f"flow_runs/{night}/resume", {}
    )  # as by the button in the UI, too early: it waits again
    suspended(run, night, times=2)
    with person(port) as second:
        said = run.dapflow("label", "--port", str(port))
    assert "Enough: its run was suspended, and goes on." in said
    run.wait_for(night, "GateClosed", "Promoted")
    keys = [question["key"] for question in (*first.asked, *second.asked)]
    assert len(keys) == len(set(keys))
    with Lake(run.lake, read_only=True) as lake:
        assert sorted(row["key"] for row in lake.rows("SELECT key FROM labels")) == sorted(keys)
        assert {row["key"] for row in lake.rows("SELECT key FROM questions")} == set(keys)
        assert decided_by(lake, night) is not None
        assert lake.rows("SELECT state FROM runs") == [{"state": "done"}]
    attempts = run.attempts(night)
    assert len(attempts) == 3
    check_resumed(attempts)
    assert any(name.startswith("sample") for name, state in attempts[0] if state == "Completed")


def suspended(run: Services, night: str, times: int) -> None:
    """Wait until a run has been so many times, and holds no process."""
    states = f"flow_run_states/?flow_run_id={night}"
    wait(
        "it is suspended",
        lambda: [one["name"] for one in run.api(states)].count("Suspended") == times,
        lambda: str(run.state(night)),
    )
    wait("its process has ended", lambda: run.process_of(night) is None)
