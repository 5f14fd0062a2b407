"""The simulation of deployments/simulate.py against reality: rates from one run of RSO on
SmolLM2-135M, and what they predict of another.

    python -m tests.benchmarks.speed.scaling          # some minutes of one processor
Measures processor seconds of one thread, which are wall seconds where nobody else wants the
processor, and need no quiet machine. Prints every step of the second run, predicted from its plan
before it begins, and as it was.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from dapflow.flows.server.environment import prepare

_COMMON = (
    "sampling.max_tokens=32",
    "evaluation.sampling.max_tokens=32",
    "evaluation.probes=4",
    "evaluation.exact.source=",
    "evaluation.instructions.prompts=0",
)
_FIRST = ("prompts.per_iteration=6", "sampling.n=4", "prompts.held_out=8")
_SECOND = ("prompts.per_iteration=10", "sampling.n=6", "prompts.held_out=14")
_PREFERENCES = (40, 64)  # pairs that the judges learn from, in each

Seconds = dict[str, float]
Plan = Sequence[Mapping[str, Any]]


class Clock:
    """A reporter that takes down the processor seconds of each step."""

    def __init__(self) -> None:
        self.processor, self.wall = Seconds(), Seconds()
        self._since = 0.0

    def started(self, name: str) -> None:
        self._since = time.process_time()

    def advanced(self, done: float, total: float, unit: str, note: str = "") -> None: ...

    def finished(self, record: Any) -> None:
        key = f"{record.kind}@{record.version}"
        if record.state == "run":
            self.processor[key], self.wall[key] = time.process_time() - self._since, record.seconds
            print(
                f"    {record.name:<44} {self.processor[key]:>7.1f} s, {record.seconds:>7.1f} s by the wall clock",
                flush=True,
            )

    def said(self, sentence: str) -> None: ...


def plan_of(settings: Sequence[str]) -> Plan:
    """What a run of RSO with these settings would do."""
    from dapflow.flows.align import chosen
    from dapflow.flows.planning.plan import make_plan

    return make_plan(chosen("rso", settings, False), 1, None)["steps"]


def run(settings: Sequence[str], lake: Path) -> tuple[Clock, dict[str, list[int]]]:
    """Run it. Returns what it took, and the lengths of all answers by version."""
    from dapflow.flows.align import align
    from dapflow.storage import Lake
    from dapflow.tasks.step.progress import report_to

    clock = Clock()
    with report_to(clock):
        align("rso", 1, tuple(settings), False, str(lake))
    with Lake(lake, read_only=True) as opened:
        rows = opened.rows(
            "SELECT version, list(len(token_ids) ORDER BY id) AS lengths FROM completions GROUP BY version"
        )
    return clock, {f"completions@{row['version']}": row["lengths"] for row in rows}


def main() -> None:
    """Calibrate, predict, run, compare."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(str(root / "home"))
        from dapflow.deployments.simulate import Machines, Rates, calibrate, simulate
        from dapflow.tasks.prompts.sources import read_source

        unknown = Rates(decode_step=0.0, decode_row=0.0, scored_token=0.0, trained_token=0.0)
        records = [dict(one.fields) for one in read_source("shipped", "preferences.jsonl")]
        settings = list[tuple[str, ...]]()
        for number, (sizes, pairs) in enumerate(zip((_FIRST, _SECOND), _PREFERENCES, strict=True)):
            path = root / f"preferences-{number}.jsonl"
            path.write_text("".join(json.dumps(one) + "\n" for one in records[:pairs]))
            settings.append((*_COMMON, *sizes, f"preferences.source={path}"))
        print(f"first run: {' '.join(_FIRST)}, {_PREFERENCES[0]} preferences", flush=True)
        clock, lengths = run(settings[0], root / "first")
        rates = calibrate(plan_of(settings[0]), clock.processor, lengths, unknown)
        print(f"rates: {rates.decode_step * 1e3:.1f} ms a decoding step + {rates.decode_row * 1e3:.2f} ms a row,"
              f" {rates.scored_token * 1e3:.2f} ms a scored token, {rates.trained_token * 1e3:.2f} ms a trained one")  # fmt: skip
        again = simulate(plan_of(settings[0]), rates, Machines())
        real = sum(clock.processor.values())
        simulated = sum(one.seconds for one in again)
        print(
            f"the first run again: {simulated:.1f} s simulated, {real:.1f} s measured, {simulated / real - 1:+.1%}",
            flush=True,
        )
        plan = plan_of(settings[1])
        told = simulate(plan, rates, Machines())
        print(f"second run: {' '.join(_SECOND)}, {_PREFERENCES[1]} preferences", flush=True)
        clock, _ = run(settings[1], root / "second")
    compare(plan, [one.seconds for one in told], clock.processor)


def compare(plan: Plan, predicted: Sequence[float], measured: Mapping[str, float]) -> None:
    """Step by step, and in all; the share of the total is what a step's error counts for."""
    print(f"\n{'step':<44} {'predicted':>10} {'measured':>9}")
    sums = [0.0, 0.0]
    for step, seconds in zip(plan, predicted, strict=True):
        if (real := measured.get(step["version"])) is not None and not step["cached"]:
            sums = [sums[0] + seconds, sums[1] + real]
            print(
                f"{step['name']:<44} {seconds:>8.1f} s {real:>7.1f} s  {seconds / real - 1:>+7.1%}"
            )
    print(f"{'all':<44} {sums[0]:>8.1f} s {sums[1]:>7.1f} s  {sums[0] / sums[1] - 1:>+7.1%}")


if __name__ == "__main__":
    sys.exit(main())
