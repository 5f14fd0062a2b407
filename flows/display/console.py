"""What a person sees in the terminal: a bar for each step while it runs, and the summary at the
end.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dapflow.flows.display.figures import lines_of, steps_old, warnings_of
from dapflow.flows.server import interrupt
from dapflow.tasks.step.progress import StepRecord


class ConsoleReporter:
    """Shows every step as it runs (units per second, time left) and keeps the records for the
    summary.
    """

    def __init__(self, console: Console) -> None:
        self.records: list[StepRecord] = []
        self._console = console
        self._task = TaskID(0)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> "ConsoleReporter":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, name: str) -> None:
        """A step begins: its bar appears."""
        interrupt.listen()
        interrupt.check()
        for left in self._bars.task_ids:  # of a step that failed
            self._bars.remove_task(left)
        self._task = self._bars.add_task(name, total=None, rate="", note="")

    def advanced(self, done: float, total: float, unit: str, note: str = "") -> None:
        """A step got on: `done` of `total` units. note: how it is going."""
        interrupt.check()
        task = next(task for task in self._bars.tasks if task.id == self._task)
        rate = done / task.elapsed if task.elapsed else 0.0
        self._bars.update(
            self._task,
            completed=done,
            total=total,
            rate=f"{rate:,.1f} {unit}/s" if rate < 10 else f"{rate:,.0f} {unit}/s",
            note=note,
        )

    def finished(self, record: StepRecord) -> None:
        """A step ended: its bar becomes a line."""
        self._bars.remove_task(self._task)
        self.records.append(record)
        mark, style = ("=", "dim") if record.state == "cached" else ("+", "green")
        line = (
            f"{mark} {record.name:<44} {record.rows:>6,} rows  {record.seconds:>6.1f} s  "
            f"{record.state}"
        )
        self._console.print(Text(line, style=style), highlight=False)

    def said(self, sentence: str) -> None:
        """A step has something to say."""
        self._console.print(Text(f"! {sentence}", style="yellow"))


def print_summary(console: Console, result: dict[str, Any], records: Sequence[StepRecord]) -> None:
    """The outcome of a run, as a person wants to read it."""
    console.print()
    console.print(_steps(records))
    for number, one in enumerate(result["iterations"], start=1):
        console.print(_outcome(number, one))
        console.print(
            Panel(
                Text("\n".join(lines_of(one["metrics"]))),
                title=f"Figures of iteration {number}",
                title_align="left",
            )
        )
        for example in one["examples"]:
            console.print(_example(example))
    console.print(_next(result))


def _steps(records: Sequence[StepRecord]) -> Table:
    table = Table(
        title="Steps", title_justify="left", show_edge=False, pad_edge=False, box=SIMPLE_HEAD
    )
    for column, justify in (
        ("step", "left"),
        ("version", "left"),
        ("state", "left"),
        ("rows", "right"),
        ("seconds", "right"),
    ):
        table.add_column(column, justify=justify, no_wrap=column != "step")  # type: ignore[arg-type]
    for one in records:
        table.add_row(one.name, one.version, one.state, f"{one.rows:,}", f"{one.seconds:.1f}")
    table.add_section()
    table.add_row("all", "", "", "", f"{sum(one.seconds for one in records):.1f}")
    return table


def _measured(one: dict[str, Any]) -> str:
    held_out, judged = one["held_out_prompts"], one["judged_prompts"]
    return (
        f"{held_out} held-out prompts"
        if judged in (None, held_out)
        else f"{judged} of {held_out} held-out prompts (the rest not judged)"
    )


def _outcome(number: int, one: dict[str, Any]) -> Panel:
    warned = warnings_of(one["metrics"])
    dropped = ", ".join(f"{count} {reason}" for reason, count in one["dropped"].items()) or "none"
    lines = [
        *_won(one),
        *(_fact("  careful", warning) for warning in warned),
        *([] if warned else [_fact("  by", "a judge that did not label the training pairs")]),
        *(_judge(role, judge) for role, judge in one["judges"].items()),
        *_paid(one["judging"]),
        _fact("answers trained on", one["answers"])
        if one["answers"]
        else _fact("pairs trained on", one["pairs"]),
        _fact("left out", dropped),
        _fact(
            "oldest sample",
            "not the policy's own" if one["max_lag"] is None else steps_old(one["max_lag"]),
        ),
        _fact("new policy", f"models@{one['policy']}"),
        "(in brackets: 95 % intervals)",
    ]
    return Panel(Text("\n".join(lines)), title=f"Iteration {number}", title_align="left")


def _won(one: dict[str, Any]) -> list[str]:
    """The win rate and what it is worth, or why there is none."""
    title, low, high = "win rate, new against old", one["win_rate_low"], one["win_rate_high"]
    note = next(
        (row["note"] for row in one["metrics"] if row["name"] == "win_rate" and row["note"]), ""
    )
    if one["win_rate"] is None:
        return [_fact(title, f"cannot tell: {note}")]
    verdict = "better" if low > 0.5 else "worse" if high < 0.5 else "cannot tell yet"
    rate = f"{one['win_rate']:.1%} [{low:.1%}, {high:.1%}]: {verdict}"
    return [_fact(title, rate), _fact("  measured on", _measured(one)), _fact("  precision", note)]


def _fact(name: str, value: object) -> str:
    return f"{name:<27}{value}"


def _judge(role: str, judge: dict[str, Any]) -> str:
    if "consistency" in judge:
        steady = (
            f"both orders agree on {judge['consistency']:.0%} [{judge['consistency_low']:.0%}, "
            f"{judge['consistency_high']:.0%}]"
        )
        return _fact(
            f"{role} judge",
            f"{judge['judge']}: {steady}, the first place wins {judge['first']:.0%}",
        )
    if "unread" in judge:
        return _fact(f"{role} judge", _self_judge(judge))
    if "first" in judge:
        shares = f"[{judge['first_low']:.0%}, {judge['first_high']:.0%}]"
        return _fact(
            f"{role} judge",
            f"{judge['judge']}: a person, for whom the first place wins {judge['first']:.0%} "
            f"{shares}",
        )
    if "accuracy" not in judge:
        return _fact(f"{role} judge", judge["judge"])
    shares = f"{judge['accuracy']:.0%} [{judge['accuracy_low']:.0%}, {judge['accuracy_high']:.0%}]"
    return _fact(f"{role} judge right on", f"{shares} of held-out preferences")


def _self_judge(judge: dict[str, Any]) -> str:
    """A policy that judges itself, on the pairs that it orders at all."""
    decides = f"{judge['judge']}, orders {judge['decided']:.0%} of the labelled pairs"
    if judge["accuracy"] is not None:
        decides += f", {judge['accuracy']:.0%} [{judge['accuracy_low']:.0%}, {judge['accuracy_high']:.0%}] of them as people do"
    return decides if judge["used"] else f"not {decides}: no better than chance"


def _paid(judging: dict[str, Any]) -> list[str]:
    if not judging["calls"]:
        return []
    if judging["usd"] is None:
        cost = "dollars unknown (no price)"
    else:
        cost = f"${judging['usd']:.4f}" + (
            f", ${judging['usd_per_pair']:.5f} a kept pair"
            if judging["usd_per_pair"] is not None
            else ""
        )
    return [_fact("judge calls", f"{judging['calls']:,}, {judging['tokens']:,} tokens, {cost}")]


def _example(example: dict[str, Any]) -> Panel:
    table = Table(show_header=False, show_edge=False, pad_edge=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("before", Text(example["before"].strip()))
    table.add_row("after", Text(example["after"].strip()))
    change = f"judged {example['change']:+.2f}"
    return Panel(
        table,
        title=Text(example["prompt"].replace("\n", " ")[:90]),
        title_align="left",
        subtitle=change,
        subtitle_align="right",
    )


def _next(result: dict[str, Any]) -> Panel:
    command = "dapflow" if shutil.which("dapflow") else os.path.relpath(sys.argv[0])
    recipe, lake, further = result["recipe"], result["lake"], len(result["iterations"]) + 1
    lake = lake if "://" in lake else os.path.relpath(lake)
    where = "" if lake == "lake" else f" --lake {lake}"
    same = (
        "".join(
            [
                " --toy" if result["toy"] else "",
                *(f" --set {shlex.quote(one)}" for one in result["settings"]),
            ]
        )
        + where
    )
    reports = [one["report"] for one in result["iterations"] if one["report"]]
    lines = [
        *([f"read it      {os.path.relpath(reports[-1])}"] if reports else []),
        f"go on        {command} run {recipe} --iterations {further}{same}",
        f"look at it   {command} ui{where}",
        f"change it    {command} run {recipe} --set training.learning_rate=1e-5{same}",
        f"the keys     {command} recipes {recipe}",
    ]
    return Panel(Text("\n".join(lines)), title="Next", title_align="left")
