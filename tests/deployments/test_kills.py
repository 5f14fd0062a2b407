"""kill -9 of a night's process, of the worker and of the server, each in the middle of each step:
make test-nights (an hour).
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dapflow.storage import Lake
from dapflow.storage.promotions import decided_by, promotions
from dapflow.storage.schema import NOUNS
from tests.deployments.services import SMALL, Services, services, settings, wait

pytestmark = [pytest.mark.nights, pytest.mark.timeout(0)]
# By a program, and little is measured: a night has each kind of step, and few twice.
QUICK = (
    *SMALL,
    "training.epochs=1",
    "evaluation.judge=shorter",
    "evaluation.probes=0",
    "evaluation.exact.source=",
    "evaluation.instructions.prompts=0",
)
STEPS = {  # from this record of the log to the next one
    "prompts": ("step.started", "load train prompts"),
    "reward training": ("step.started", "train reward model .*"),
    "sampling": ("step.started", "sample .*"),
    "judging": ("step.started", "judge .*"),
    "acceptance": ("step.started", "accept .*"),
    "pairing": ("step.started", "pair .*"),
    "policy training": ("step.started", "train with .*"),
    "evaluation": ("step.started", "evaluate"),
    "gate": ("step.done", "evaluate"),
    "report": ("policy.decided", ""),
}
DECIDED = ("GateClosed", "Promoted")
Record = dict[str, Any]


class Nights:
    """Nights of one line, each with samples, a reward model and a policy of its own."""

    def __init__(self, run: Services) -> None:
        self.run = run
        self.log = Path(run.environment["DAPFLOW_LOG"])
        self.asked = dict[str, tuple[str, ...]]()

    def start(self, *more: str) -> str:
        """Start one."""
        night = self.run.start_night(settings=[*QUICK, *more])
        self.asked[night] = more
        return night

    def records(self, night: str) -> list[Record]:
        """What its log says, over all its attempts."""
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        return [
            one
            for one in (json.loads(line) for line in lines if line.endswith("\n"))
            if one.get("run") == night
        ]

    def goes(self, night: str) -> list[list[Record]]:
        """The same, attempt by attempt."""
        found = list[list[Record]]()
        for one in self.records(night):
            if one["event"] == "run.started":
                found.append([])
            found[-1].append(one)
        return found

    def halt_in(self, step: str, number: int) -> tuple[str, psutil.Process]:
        """A night whose process stands still (SIGSTOP) in this step, and its process. number: its
        reward model is like no other's.
        """
        draw = random.Random(number)
        for attempt in range(9):  # a step that was over before the signal came
            night = self.start(f"seed={number * 10 + attempt}")
            wait(
                f"{step} of {night}",
                lambda night=night: self.at(night, step) or self.over(night),
                every=0.01,
            )
            time.sleep(draw.uniform(0, 0.2) if attempt < 5 else 0)
            process = self.run.process_of(night)
            if process is not None:
                process.suspend()
                if self.at(night, step):
                    return night, process
                process.resume()
            wait(f"{night} ends", lambda night=night: self.over(night))
        raise AssertionError(f"never in {step}")

    def at(self, night: str, step: str) -> bool:
        """Whether it is in this step now."""
        event, title = STEPS[step]
        records = self.records(night)
        return (
            bool(records)
            and records[-1]["event"] == event
            and re.fullmatch(title, records[-1].get("title", "")) is not None
        )

    def over(self, night: str) -> bool:
        """Whether its state is final."""
        return self.run.state(night)["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    def unfinished(self) -> list[str]:
        """Whatever the server believes to be going on."""
        wanted = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
        runs = [
            f"run {one['name']} {one['state_name']}"
            for one in self.run.api("flow_runs/filter", {"flow_runs": wanted})
        ]
        return runs + [
            f"task {one['name']} {one['state_name']}"
            for one in self.run.api("task_runs/filter", {"task_runs": wanted})
        ]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    folder = tmp_path_factory.mktemp("kills")
    with services(folder, {"DAPFLOW_LOG": str(folder / "steps.log")}) as run:
        run.dapflow("deploy", "--toy", "--dead-after", "60", *settings(QUICK))
        yield Nights(run)


def resume(run: Services, night: str) -> None:
    """As people do."""
    assert "is scheduled again" in run.dapflow("resume", night)


def retry(run: Services, night: str) -> None:
    """As by the button in the UI."""
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    run.api(f"flow_runs/{night}/set_state", {"state": state, "force": True})


@pytest.mark.parametrize("step", STEPS)
def test_a_night_whose_process_was_killed_goes_on(nights: Nights, step: str) -> None:
    number = list(STEPS).index(step)
    night, process = nights.halt_in(step, number)
    process.kill()
    nights.run.wait_for(night, "Crashed")  # the worker has seen it
    (resume, retry)[number % 2](nights.run, night)
    nights.run.wait_for(night, *DECIDED)
    check_went_on(*nights.goes(night))
    check(nights)
    check_whole(nights.run, night)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("victim", "first"), [("worker", 20), ("server", 40)])
def test_a_night_outlives_a_worker_or_a_server_that_comes_back(
    nights: Nights, victim: str, first: int, step: str
) -> None:
    night, process = nights.halt_in(step, first + list(STEPS).index(step))
    nights.run.kill(victim)
    process.resume()
    (nights.run.start_worker if victim == "worker" else nights.run.start_server)()
    nights.run.wait_for(night, *DECIDED)
    assert len(nights.goes(night)) == 1
    check(nights)
    check_whole(nights.run, night)


@pytest.mark.parametrize("step", ["sampling", "gate"])
def test_a_night_whose_server_stayed_away_gives_up_and_the_next_one_goes_on(
    nights: Nights, step: str
) -> None:
    night, process = nights.halt_in(step, 60 + list(STEPS).index(step))
    nights.run.kill("server")
    process.resume()
    wait("the process ends", lambda: nights.run.process_of() is None)
    assert [one["event"] for one in nights.records(night) if one["event"].startswith("run.")] == [
        "run.started",
        "run.failed",
    ]
    nights.run.start_server()
    if nights.run.processes["worker"].poll() is not None:  # it has given up, too
        nights.run.start_worker()
    following = nights.start(*nights.asked[night][-1:])
    nights.run.wait_for(
        following, *DECIDED
    )  # it could not begin, were the slot not given back for want of a heartbeat
    assert nights.run.state(night)["type"] == "CRASHED"
    if decided(nights.run, night) is None:  # to decide takes the lake, and no server
        check_went_on(*nights.goes(night), *nights.goes(following))
    check(nights)


def check_went_on(first: list[Record], second: list[Record]) -> None:
    """What the first go had done was there in the second."""
    done = [one["title"] for one in first if one["event"] in ("step.done", "step.cached")]
    later = [one for one in second if one["event"] in ("step.done", "step.cached")]
    assert [one["title"] for one in later[: len(done)]] == done[: len(later)]
    assert all(one["event"] == "step.cached" for one in later[: len(done)]), later


def decided(run: Services, night: str) -> dict[str, Any] | None:
    """What a night has decided."""
    with Lake(run.lake, read_only=True) as lake:
        return decided_by(lake, night)


def check_whole(run: Services, night: str) -> None:
    """A night that is over is written down as done, with its iteration and its report."""
    row = decided(run, night)
    assert row is not None
    with Lake(run.lake, read_only=True) as lake:
        assert lake.rows("SELECT state FROM runs WHERE run = ?", [night]) == [{"state": "done"}]
        if row["candidate"]:  # its prompts have taught something
            assert lake.rows("SELECT policy FROM iterations WHERE run = ?", [night]) == [
                {"policy": row["candidate"]}
            ]
            assert (lake.root / "reports" / row["candidate"] / "index.html").is_file()


def check(nights: Nights) -> None:
    """Each slice decided once, no row twice, nothing left running, no orphan."""
    run = nights.run
    wait("no process is left", lambda: not run.others(), lambda: str(run.others()))
    wait("nothing is going on", lambda: not nights.unfinished(), lambda: str(nights.unfinished()))
    with Lake(run.lake, read_only=True) as lake:
        rows = promotions(lake)
        assert [row["slice"] for row in rows] == list(range(1, len(rows) + 1))
        assert [row["previous"] for row in rows[1:]] == [row["policy"] for row in rows[:-1]]
        assert max(Counter(row["run"] for row in rows).values()) == 1
        for noun in NOUNS:
            assert lake.rows(f"SELECT id FROM {noun} GROUP BY id HAVING count(*) > 1") == [], noun
        twice = "SELECT judge, completion_id FROM verdicts GROUP BY version, judge, completion_id, other_id HAVING count(*) > 1"
        assert lake.rows(twice) == []
        assert lake.rows("SELECT * FROM runs WHERE state = 'running'") == []
        assert lake.rows("SELECT version FROM versions GROUP BY version HAVING count(*) > 1") == []
