"""How the lake's commands look in a terminal."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from storage.catalogue import VersionInfo
from storage.database import quoted
from storage.lake import Lake
from storage.lineage import Node
from storage.refs import Ref

_COPY = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}
_TOLD = {  # what a line of the tree says about a row
    "prompts": ("prompt", "source"),
    "completions": ("text", "sample", "seed", "finish_reason"),
    "verdicts": ("outcome", "score", "judge", "note"),
    "acceptances": ("accepted", "reward", "sweep", "note"),
    "pairs": ("margin", "source", "rating", "dropped"),
    "models": ("name", "role"),
}
_LONG = 72  # characters of a cell in a tree


def dataset_row(info: VersionInfo, size: int) -> dict[str, Any]:
    """What a list of versions says about one."""
    made = info.completed_at or info.opened_at
    facts = {"kind": info.kind, "version": info.version, "step": info.step, "state": info.state}
    return facts | {"rows": info.rows, "bytes": size, "seconds": info.seconds, "made": made.isoformat(timespec="seconds")}


def print_datasets(console: Console, rows: Sequence[Mapping[str, Any]], limit: int) -> None:
    """The table of `dapflow datasets`."""
    columns = ["kind", "version", "step", "state", ">rows", ">size", ">took", ">age"]
    if console.width < 100:
        columns.remove(">took")
    table = _table(*columns)
    for row in rows[:limit]:
        age = _span((datetime.now().astimezone() - datetime.fromisoformat(row["made"])).total_seconds())
        values = {
            "kind": row["kind"],
            "version": row["version"][:12],
            "step": row["step"],
            "state": row["state"],
            ">rows": f"{row['rows']:,}",
            ">size": _size(row["bytes"]),
            ">took": _span(row["seconds"]),
            ">age": age,
        }
        table.add_row(*(values[column] for column in columns), style="" if row["state"] == "complete" else "dim")
    console.print(table)
    total = f"{len(rows)} versions, {_size(sum(row['bytes'] for row in rows))} of Parquet"
    console.print(total + (f"; --limit {len(rows)} shows all" if len(rows) > limit else ""), highlight=False)


def print_rows(console: Console, ref: Ref, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows one under the other, as a person reads them."""
    console.print(f"[bold]{ref.kind}@{ref.version}[/bold]  {ref.rows:,} rows", highlight=False)
    for row in rows:
        console.print()
        facts = Table(show_header=False, box=None, pad_edge=False)
        facts.add_column(style="bold", no_wrap=True)
        facts.add_column(overflow="fold")
        for name, value in row.items():
            if value not in (None, []):
                facts.add_row(name, Text(_value(value, 2000)))
        console.print(facts)
    if not rows:
        console.print("no rows")


def print_tree(console: Console, node: Node, levels: Sequence[Mapping[str, Any]]) -> None:
    """Where it came from, what came of it, and of a model what it learned from."""
    console.print(_line(node))
    for name, value in node.facts.items():
        if value not in (None, [], "") and name not in ("version", "id"):
            console.print(Text.assemble((f"  {name:<14}", "dim"), _value(value, 300)), highlight=False)
    for title, side in (("from", "up"), ("made into", "down")):
        if nodes := getattr(node, side):
            tree = Tree(f"[bold]{title}[/bold]")
            for one in nodes:
                _grow(tree, one, side)
            console.print(tree)
    if levels:
        table = _table("learned from", ">rows", "by")
        for row in levels:
            table.add_row(row["level"], f"{row['rows']:,}", row["by"] or "")
        console.print(table)
        console.print(f"every row: dapflow lineage {node.id} --rows", highlight=False)


def learned_line(row: Mapping[str, Any]) -> str:
    """One pair of a model, in one line."""
    verdicts = [*(row["chosen_verdicts"] or []), *(row["rejected_verdicts"] or [])]
    facts = {"prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"], "policy": row["policy"]}
    facts |= {"seeds": f"{row['chosen_seed']},{row['rejected_seed']}" if row["chosen"] else None, "verdicts": ",".join(verdicts)}
    return " ".join([row["pair"], *(f"{name}={value}" for name, value in facts.items() if value)])


def print_diff(console: Console, found: Mapping[str, Any]) -> None:
    """Counts, then the changes."""
    console.print(f"{found['kind']}@{found['a']} ({found['rows'][0]:,} rows) -> {found['b']} ({found['rows'][1]:,} rows)", highlight=False)
    policies = found["kind"] == "models"
    if policies:
        console.print("who won on each held-out prompt: the policy, or the one before it", highlight=False)
    names = ("same winner", "judged only for the second", "judged only for the first", "winner flipped")
    names = names if policies else ("same", "added", "removed", "changed")
    counts = dict(zip(names, (found[name] for name in ("same", "added", "removed", "changed")), strict=True))
    console.print(", ".join(f"{count:,} {name}" for name, count in counts.items()), highlight=False)
    if found["changes"]:
        table = _table("change", "prompt", *(("winner, first", "winner, second") if policies else ("before", "after")))
        for one in found["changes"]:
            table.add_row(one["change"], *(Text(_value(one[name] or "", 160)) for name in ("prompt", "a", "b")))
        console.print(table)
        left = found["added"] + found["removed"] + found["changed"] - len(found["changes"])
        if left:
            console.print(f"and {left:,} more", highlight=False)


def print_table(console: Console, batches: Iterator[pa.RecordBatch], limit: int) -> None:
    """The first `limit` rows of a query."""
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for batch in batches:
        names = batch.schema.names
        rows += batch.to_pylist()
        if len(rows) > limit:
            break
    table = _table(*names)
    for row in rows[:limit]:
        table.add_row(*(Text(_value(row[name], 300)) for name in names))
    console.print(table)
    console.print(
        f"the first {limit:,} rows; --limit or --format csv for more" if len(rows) > limit else f"{len(rows):,} rows", highlight=False
    )


def print_raw(lake: Lake, query: str, form: str) -> None:
    """All rows of a query on standard output, as csv, json or parquet."""
    with tempfile.TemporaryDirectory() as folder, lake.cursor() as cursor:
        target = Path(folder) / "rows"
        cursor.execute(f"COPY ({query.strip().rstrip(';')}\n) TO '{quoted(target)}' ({_COPY[form]})")
        with target.open("rb") as rows:
            shutil.copyfileobj(rows, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def print_garbage(console: Console, rows: Sequence[Mapping[str, Any]], removed: bool) -> None:
    """What went, or would go."""
    if not rows:
        console.print("Nothing to remove: every version is needed by a kept model, new, or being written.")
        return
    table = _table("kind", "version", "step", ">rows", ">size", "why")
    for row in rows:
        table.add_row(row["kind"], row["version"], row["step"], f"{row['rows']:,}", _size(row["bytes"]), row["why"])
    console.print(table)
    total = f"{len(rows)} versions, {_size(sum(row['bytes'] for row in rows))}"
    console.print(f"removed {total}" if removed else f"would remove {total}: say --yes to do it", highlight=False)


def print_damage(console: Console, checked: int, damaged: Sequence[Mapping[str, Any]]) -> None:
    """What is damaged, and what making it again will cost."""
    for row in damaged:
        console.print(
            Text(f"{row['kind']}@{row['version']}: {row['rows']:,} rows of {row['step']}, {_span(row['seconds'])} to make again", "red")
        )
        for file in row["files"]:
            console.print(f"  {file['what']}: {file['path']}", highlight=False, soft_wrap=True)
    if not damaged:
        console.print(f"{checked} versions, all whole", highlight=False)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner and the seconds, on standard error."""
    with _bar() as bar:
        bar.add_task(what, counted="")
        yield


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """The same with a count that the block reports."""
    with _bar() as bar:
        task = bar.add_task(what, counted="")
        yield lambda done: bar.update(task, counted=f"{done:,}")


def _bar() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[counted]}"), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _grow(tree: Tree, node: Node, side: str) -> None:
    branch = tree.add(_line(node))
    for one in getattr(node, side):
        _grow(branch, one, side)


def _line(node: Node) -> Text:
    told = _TOLD.get(node.kind, ())
    row = "-" in node.id or "name" in node.facts
    facts = [f"{name} {_value(node.facts[name], _LONG)}" for name in told if node.facts.get(name) is not None] if row else []
    if not row and node.kind == "metrics" and "step" not in node.facts:
        facts = [f"{name} {_value(value, _LONG)}" for name, value in node.facts.items()]
    elif not row and node.facts:
        facts = [
            f"{node.facts['step']}, {node.facts['rows']:,} rows" + ("" if node.facts["state"] == "complete" else f", {node.facts['state']}")
        ]
    line = Text.assemble((f"{node.role}: " if node.role else "", "dim"), (f"{node.kind}@{node.id}", "bold"))
    return line + Text("  (above)" if node.repeated else "  " + " · ".join(facts), "dim" if node.repeated else "")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        short = column.startswith(">") or column in ("kind", "version", "state")
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold", no_wrap=short)
    return table


def _value(value: Any, length: int) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = text.replace("\n", " ") if length < 1000 else text
    return text if len(text) <= length else text[: length - 3] + "..."


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
