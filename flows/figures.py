"""The figures of an iteration as lines for a person: before and after side by side, the rest with its interval, why one is missing below.

for line in lines_of(metrics): ...      metrics: rows of the dataset `metrics`, in its order
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.metrics import metric_of

Row = Mapping[str, Any]
_TOLD = frozenset({"win_rate", "judged_prompts", "same_judge"})  # the summary begins with them
_WIDTH = 52


def lines_of(rows: Sequence[Row]) -> Iterator[str]:
    """One line a figure, and what is missing for the same reason on one line."""
    by_name, missing = {row["name"]: row for row in rows}, dict[str, list[str]]()
    for name, row in by_name.items():
        if name in _TOLD or (name.endswith("_after") and f"{name.removesuffix('_after')}_before" in by_name):
            continue
        after = by_name.get(f"{name.removesuffix('_before')}_after") if name.endswith("_before") else None
        sides = [one for one in (row, after) if one is not None]
        if any(one["value"] is None for one in sides):
            reason = next(one["note"] for one in sides if one["value"] is None)
            missing.setdefault(reason, []).append(_label(name))
        else:
            yield f"{_label(name):<{_WIDTH}}{' -> '.join(_value(one) for one in sides)}{_interval(row) if after is None else ''}"
    for reason, labels in missing.items():
        yield f"not measured: {', '.join(labels)}: {reason}"


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """What one must know before believing the figures."""
    return [row["note"] for row in rows if row["name"] == "same_judge" and row["value"]]


def _label(name: str) -> str:
    label, _, baseline = name.partition("_vs_")
    return metric_of(label).label + (f", against {baseline}" if baseline else "")


def _value(row: Row) -> str:
    return _number(row["name"], row["value"])


def _interval(row: Row) -> str:
    return "" if row["low"] is None else f" [{_number(row['name'], row['low'])}, {_number(row['name'], row['high'])}]"


def _number(name: str, value: float) -> str:
    if metric_of(name).share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 10 else f"{value:.3g}"
