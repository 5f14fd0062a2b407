"""Toy nights in a row through the real scheduler and worker, every third with a random kill -9: of
its process, the worker or the server.

    python -m tests.benchmarks.speed.soak --nights 30
Prints a line for each night (killed, outcome, seconds from its process to its decision, memory of
server and worker, size of the lake), and fails unless each ended in a decision, the policies make
one line, and no process is left.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from dapflow.storage import Lake
from dapflow.storage.promotions import promotions
from tests.deployments.services import SMALL, Services, services, settings, wait

GATE = (
    "gate.win_rate_low=0",
    "gate.least={win_rate: 0.4}",
    "gate.invalid_rate=1",
    "gate.length_growth=10",
)  # passed by some toy policies
VICTIMS = ("flow", "worker", "server")


def soak(nights: int, seed: int) -> Counter[str]:
    """So many decisions. Returns how often who was killed."""
    draw, hits, typical = random.Random(seed), Counter[str](), 20.0
    with tempfile.TemporaryDirectory() as folder, services(Path(folder)) as run:
        run.dapflow(
            "deploy", "--toy", "--cron", "* * * * *", "--dead-after", "90", *settings(SMALL, GATE)
        )
        for number in range(1, nights + 1):
            victim = VICTIMS[number // 3 % 3] if number % 3 == 0 else None
            wait(
                f"night {number} begins",
                lambda number=number: working(run) or len(decided(run)) >= number,
                every=2,
            )
            started = time.monotonic()
            if victim:
                time.sleep(draw.uniform(0, typical))
                if kill(run, victim):
                    hits[victim] += 1
            wait(
                f"night {number} decides",
                lambda number=number: len(decided(run)) >= number,
                every=2,
            )
            seconds = time.monotonic() - started
            typical = typical if victim else seconds
            report(run, number, victim, seconds)
        run.api(f"deployments/{run.api('deployments/name/night/rso')['id']}/pause_deployment", {})
        check(run, nights)
    return hits


def kill(run: Services, victim: str) -> bool:
    """kill -9, and start again what does not start by itself. False when the night was over
    already.
    """
    if victim == "flow":
        if (process := working(run)) is None:
            return False
        process.kill()
        return True
    run.kill(victim)
    run.start_server() if victim == "server" else run.start_worker()
    return True


def working(run: Services) -> psutil.Process | None:
    """The process of a night that has not decided yet: the one before may still be on its way out."""
    process, done = run.process_of(), decided(run)
    try:
        return (
            None
            if process is None or process.environ()["PREFECT__FLOW_RUN_ID"] in done
            else process
        )
    except psutil.Error:  # it has just ended
        return None


def decided(run: Services) -> list[str]:
    """The runs of the nights that have ended in a decision."""
    if not Path(run.lake, "catalogue.sqlite").exists():
        return []
    with Lake(run.lake, read_only=True) as lake:
        return [row["run"] for row in promotions(lake)]


def report(run: Services, number: int, victim: str | None, seconds: float) -> None:
    """One line about a night."""
    with Lake(run.lake, read_only=True) as lake:
        row = promotions(lake)[number - 1]
    memory = {name: process.memory_info().rss / 2**20 for name, process in run.processes.items()}
    disk = {
        name: size(Path(place))
        for name, place in (("lake", run.lake), ("home", run.environment["PREFECT_HOME"]))
    }
    print(
        f"{number:>3}  {row['action']:<8} slice {row['slice']:>3}  {seconds:>6.0f} s  killed {victim or '-':<7}"
        f" server {memory['server']:>5.0f} MiB  worker {memory['worker']:>5.0f} MiB  lake {disk['lake']:>6.1f} MiB  rest {disk['home']:>5.1f} MiB",
        flush=True,
    )


def check(run: Services, nights: int) -> None:
    """One line of policies, every slice once, no orphan, and what `dapflow gc` gives back."""
    wait("the last night's process ends", lambda: run.process_of() is None)
    with Lake(run.lake, read_only=True) as lake:
        rows = promotions(lake)[:nights]
    policy = None
    for place, row in enumerate(rows, start=1):
        assert row["previous"] == policy, row
        assert row["slice"] == place, row
        policy = row["policy"]
    wait("no process is left", lambda: not orphans(run))
    before = size(Path(run.lake))
    run.dapflow("gc", "--yes")
    print(f"dapflow gc: {before:.1f} MiB -> {size(Path(run.lake)):.1f} MiB", flush=True)


def orphans(run: Services) -> list[psutil.Process]:
    """Processes of ours whose parent is gone."""
    return [process for process in run.others() if process.ppid() == 1]


def size(folder: Path) -> float:
    """MiB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    hits = soak(arguments.nights, arguments.seed)
    minutes = (time.monotonic() - started) / 60
    print(
        f"{arguments.nights} nights, {arguments.nights} decisions, one line of policies, no orphan; killed {dict(hits)}; {minutes:.0f} min"
    )


if __name__ == "__main__":
    sys.exit(main())
