"""How the lake's commands look in a terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dapflow.flows.display.cells import cell, size, span, table_of
from dapflow.storage.catalogue import VersionInfo
from dapflow.storage.refs import Ref


def dataset_row(info: VersionInfo, bytes: int) -> dict[str, Any]:
    """What a list of versions says about one."""
    made = info.completed_at or info.opened_at
    facts = {"kind": info.kind, "version": info.version, "step": info.step, "state": info.state}
    return facts | {
        "rows": info.rows,
        "bytes": bytes,
        "seconds": info.seconds,
        "made": made.isoformat(timespec="seconds"),
    }


def print_datasets(console: Console, rows: Sequence[Mapping[str, Any]], limit: int) -> None:
    """The table of `dapflow datasets`."""
    columns = ["kind", "version", "step", "state", ">rows", ">size", ">took", ">age"]
    if console.width < 100:
        columns.remove(">took")
    table = table_of(*columns)
    for row in rows[:limit]:
        age = span(
            (datetime.now().astimezone() - datetime.fromisoformat(row["made"])).total_seconds()
        )
        values = {
            "kind": row["kind"],
            "version": row["version"][:12],
            "step": row["step"],
            "state": row["state"],
            ">rows": f"{row['rows']:,}",
            ">size": size(row["bytes"]),
            ">took": span(row["seconds"]),
            ">age": age,
        }
        table.add_row(
            *(Text(values[column]) for column in columns),
            style="" if row["state"] == "complete" else "dim",
        )
    console.print(table)
    total = f"{len(rows)} versions, {size(sum(row['bytes'] for row in rows))} of Parquet"
    console.print(
        total + (f"; --limit {len(rows)} shows all" if len(rows) > limit else ""), highlight=False
    )


def print_rows(console: Console, ref: Ref, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows one under the other, as a person reads them."""
    console.print(Text.assemble((f"{ref.kind}@{ref.version}", "bold"), f"  {ref.rows:,} rows"))
    for row in rows:
        console.print()
        facts = Table(show_header=False, box=None, pad_edge=False)
        facts.add_column(style="bold", no_wrap=True)
        facts.add_column(overflow="fold")
        for name, value in row.items():
            if value not in (None, []):
                facts.add_row(name, Text(cell(value, 2000)))
        console.print(facts)
    if not rows:
        console.print("no rows")


def print_diff(console: Console, found: Mapping[str, Any]) -> None:
    """Counts, then the changes."""
    console.print(
        f"{found['kind']}@{found['a']} ({found['rows'][0]:,} rows) -> {found['b']} "
        f"({found['rows'][1]:,} rows)",
        highlight=False,
        markup=False,
    )
    policies = found["kind"] == "models"
    if policies:
        console.print(
            "who won on each held-out prompt: the policy, or the one before it", highlight=False
        )
    names = (
        "same winner",
        "judged only for the second",
        "judged only for the first",
        "winner flipped",
    )
    names = names if policies else ("same", "added", "removed", "changed")
    counts = dict(
        zip(names, (found[name] for name in ("same", "added", "removed", "changed")), strict=True)
    )
    console.print(", ".join(f"{count:,} {name}" for name, count in counts.items()), highlight=False)
    if found["changes"]:
        table = table_of(
            "change",
            "prompt",
            *(("winner, first", "winner, second") if policies else ("before", "after")),
        )
        for one in found["changes"]:
            table.add_row(
                one["change"], *(Text(cell(one[name] or "", 160)) for name in ("prompt", "a", "b"))
            )
        console.print(table)
        left = found["added"] + found["removed"] + found["changed"] - len(found["changes"])
        if left:
            console.print(f"and {left:,} more", highlight=False)


def print_garbage(console: Console, rows: Sequence[Mapping[str, Any]], removed: bool) -> None:
    """What went, or would go."""
    if not rows:
        console.print(
            "Nothing to remove: every version is needed by a kept model, new, or being written."
        )
        return
    table = table_of("kind", "version", "step", ">rows", ">size", "why")
    for row in rows:
        cells = (
            row["kind"],
            row["version"],
            row["step"],
            f"{row['rows']:,}",
            size(row["bytes"]),
            row["why"],
        )
        table.add_row(*map(Text, cells))
    console.print(table)
    total = f"{len(rows)} versions, {size(sum(row['bytes'] for row in rows))}"
    console.print(
        f"removed {total}" if removed else f"would remove {total}: say --yes to do it",
        highlight=False,
    )


def print_damage(console: Console, checked: int, damaged: Sequence[Mapping[str, Any]]) -> None:
    """What is damaged, and what making it again will cost."""
    for row in damaged:
        console.print(
            Text(
                f"{row['kind']}@{row['version']}: {row['rows']:,} rows of {row['step']}, "
                f"{span(row['seconds'])} to make again",
                "red",
            )
        )
        for file in row["files"]:
            console.print(
                f"  {file['what']}: {file['path']}", highlight=False, markup=False, soft_wrap=True
            )
    if not damaged:
        console.print(f"{checked} versions, all whole", highlight=False)
