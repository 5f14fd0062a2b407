"""How long reports take over many prompts: a lake with a run of each of four recipes, each measured
on the same 10,000 prompts.

python -m tests.benchmarks.speed.report [prompts] [recipes]      each command as a user runs it, start of the process included
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dapflow.storage import Lake
from tests.helpers.evaluated import run

_WORDS = (
    "an answer of some length to a question of some length, as a model of the kind that is aligned here may give it; "
    * 4
)


def processor_seconds() -> float:
    """What the processes started so far have used: on a busy machine the better measure."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(prompts: int = 10_000, recipes: int = 4) -> None:
    """Print the seconds and the size of the page of each command."""
    with tempfile.TemporaryDirectory() as folder:
        address, names = (
            Path(folder) / "lake",
            [f"night-{number}" for number in range(1, recipes + 1)],
        )
        started = time.perf_counter()
        with Lake(address) as lake:
            for number, name in enumerate(names, start=1):
                run(
                    lake,
                    name,
                    number=number,
                    prompts=prompts,
                    wins=0.5 + number / 50,
                    longer=number,
                    text=_WORDS,
                )
            policy = lake.rows("SELECT policy FROM iterations WHERE run = ?", [names[-1]])[0][
                "policy"
            ]
        print(
            f"{recipes} runs measured on {prompts:,} prompts each, written in {time.perf_counter() - started:.1f} s"
        )
        page = Path(folder) / "page.html"
        for command in (
            ["report", *names, "--html", str(page)],
            ["report", *names, "--json"],
            ["compare-runs", names[0], names[-1], "--html", str(page)],
            ["lineage", policy, "--html", str(Path(folder) / "pages")],
        ):
            started, spent = time.perf_counter(), processor_seconds()
            subprocess.run(
                [sys.executable, "-m", "dapflow.flows.cli.main", *command, "--lake", str(address)],
                check=True,
                capture_output=True,
            )
            seconds, spent = time.perf_counter() - started, processor_seconds() - spent
            size = (
                f", {page.stat().st_size / 1000:,.0f} kB"
                if "--html" in command and command[0] != "lineage"
                else ""
            )
            print(
                f"{seconds:6.1f} s, {spent:5.1f} s of processor  dapflow {command[0]}{size}",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
