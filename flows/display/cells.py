"""Cells and tables: what a value, a size and a span of time look like."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dapflow.flows.display.screen import visible


def table_of(*columns: str) -> Table:
    """An empty table; a column named ">rows" stands to the right."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        short = column.startswith(">") or column in ("kind", "version", "state")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
            no_wrap=short,
        )
    return table


def cell(value: Any, length: int) -> str:
    """A value in at most so many characters, on one line unless there is room, with its control
    characters shown.
    """
    text = f"{value:.6g}" if isinstance(value, float) else str(value)[: length + 1]
    text = text.replace("\n", " ") if length < 1000 else text
    return visible(text if len(text) <= length else text[: length - 3] + "...")


def size(count: int) -> str:
    """Bytes, in the unit that fits."""
    rest = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if rest < 1000:
            return f"{rest:.0f} {unit}"
        rest /= 1000
    return f"{rest:.1f} TB"


def span(seconds: float) -> str:
    """Seconds, in the unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
