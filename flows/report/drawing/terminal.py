"""A report in the terminal: the outcome, three examples, the figures that changed, what was left
out. Short: the page has the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dapflow.flows.display.cells import cell, span, table_of
from dapflow.flows.display.figures import label_on_its_side, laid_out, value_of
from dapflow.flows.report.drawing.words import Marked, marked

Row = Mapping[str, Any]
_EXAMPLES = 3
_LONG = 600  # characters of an answer
_STYLES = {"better": "bold blue", "worse": "bold dark_orange", "cannot tell": "bold"}


def print_report(console: Console, runs: Sequence[Row]) -> None:
    """Each iteration of each run, and how to do it again."""
    for run in runs:
        for one in run["iterations"]:
            _iteration(console, one)
        if run["command"]:
            console.print(Text(f"again: {run['command']}", "dim"), soft_wrap=True)


def print_comparison(console: Console, found: Row) -> None:
    """B against A: the outcome, what differs, which prompts flipped."""
    outcome = found["outcome"]
    head = Text(
        f"B {outcome['verdict']}".upper() if outcome["verdict"] != "cannot tell" else "CANNOT TELL",
        _STYLES[outcome["verdict"]],
    )
    lines = [
        head,
        Text(outcome["sentence"]),
        Text(f"{outcome['prompts_both']:,} prompts in common"),
    ]
    if "difference" in outcome:
        told = (
            f"win rates {outcome['win_rate_a']:.1%} and {outcome['win_rate_b']:.1%}: "
            f"{100 * outcome['difference']:+.1f} points"
        )
        told += f" [{100 * outcome['difference_low']:+.1f}, {100 * outcome['difference_high']:+.1f}], paired"
        lines.append(
            Text(
                told
                + (
                    ""
                    if outcome["same_opponent"]
                    else "; each against the policy before it, and these differ"
                )
            )
        )
        lines.append(
            Text(
                f"winner flipped on {outcome['flipped_to_win']} prompts for B, "
                f"{outcome['flipped_to_loss']} against it"
            )
        )
    if "meeting_note" in outcome:
        lines.append(Text(outcome["meeting_note"]))
    title = Text(
        f"A {found['a']['label']} ({found['a']['policy'][:8]})   B {found['b']['label']} "
        f"({found['b']['policy'][:8]})"
    )
    console.print(Panel(Text("\n").join(lines), title=title, title_align="left"))
    for one in found["flipped"][:_EXAMPLES]:
        _example(console, one, ("A", "B"))
    changed = [
        {"key": f"input {row['part']}"} | {key: (row[key] or "")[:8] for key in "ab"}
        for row in found["inputs"]
        if not row["same"]
    ]
    changed += [row | {"key": f"code of {row['key']}"} for row in found["code"]] + found["software"]
    table = table_of("what differs", "A", "B")
    for row in [*found["parameters"], *changed]:
        table.add_row(row["key"], *(cell("" if row[key] is None else row[key], 60) for key in "ab"))
    console.print(
        table if table.row_count else "nothing differs in parameters, inputs, code or software"
    )
    table = table_of("metric", ">A", ">B", "unit")
    for row in found["metrics"]:
        table.add_row(
            label_on_its_side(row["name"]),
            value_of(row, "a"),
            value_of(row, "b"),
            row["unit"] or "",
        )
    console.print(table)


def price(cost: Row) -> str:
    """What an iteration cost, in words."""
    calls = "no paid calls"
    if cost["calls"]:
        calls = f"{cost['calls']:,} judge calls, " + (
            "dollars unknown (no price)" if cost["usd"] is None else f"${cost['usd']:.4f}"
        )
    return f"{span(cost['seconds'])} of work, {calls}"


def _iteration(console: Console, one: Row) -> None:
    outcome = one["outcome"]
    head = Text(outcome["verdict"].upper(), _STYLES.get(outcome["verdict"], "bold"))
    if "win_rate" in outcome:
        head += Text(
            f"  {outcome['win_rate']:.1%} win rate [{outcome['win_rate_low']:.1%}, "
            f"{outcome['win_rate_high']:.1%}]",
            "default",
        )
    body = Text("\n").join(
        [
            head,
            Text(outcome["sentence"]),
            Text(f"cost: {price(one['cost'])}"),
            *(Text(f"! {said}", "yellow") for said in one["warnings"]),
        ]
    )
    console.print(
        Panel(body, title=Text(f"{one['label']}: models@{one['policy'][:8]}"), title_align="left")
    )
    for example in one["examples"][:_EXAMPLES]:
        _example(console, example)
    table = table_of("metric", "before", "after", "unit")
    for line in laid_out(one["metrics"]):
        table.add_row(line.name, *line.cells, line.unit)
    console.print(table)
    for stage in one["stages"]:
        left_out = ", ".join(f"{drop['rows']:,} {drop['why']}" for drop in stage["dropped"])
        console.print(
            Text(
                f"{stage['rows']:>9,} {stage['part']:<12} {'left out: ' + left_out if left_out else ''}".rstrip()
            )
        )
    console.print()


def _example(console: Console, example: Row, sides: tuple[str, str] = ("before", "after")) -> None:
    before, after = marked(*(cell(example[side].strip(), _LONG) for side in ("before", "after")))
    table = Table(show_header=False, show_edge=False, pad_edge=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(sides[0], _text(before, "strike dark_orange"))
    table.add_row(sides[1], _text(after, "underline blue"))
    title = Text(cell(example["prompt"].replace("\n", " "), 90))
    subtitle = Text(
        example["why"] + ("" if example["change"] is None else f", {example['change']:+.2f}")
    )
    console.print(
        Panel(table, title=title, title_align="left", subtitle=subtitle, subtitle_align="right")
    )


def _text(runs: Marked, style: str) -> Text:
    return Text.assemble(*((text, style if differs else "") for text, differs in runs))
