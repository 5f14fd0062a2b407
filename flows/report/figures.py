"""Any metrics, laid out for a reader: what has a before and an after side by side, what shares a beginning together, the rest as it comes.

A metric is known only by its name, value, interval and unit, so a new one appears in the report without a change here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flows.report.find import Found, metrics_of
from storage import Lake
from tasks.metrics import label_of

Row = dict[str, Any]
_SIDES = ("_before", "_after")
_SHARES = ("share", "probability")
_DOLLARS = ("usd", "dollars")


def metric_rows(lake: Lake, found: Found) -> list[Row]:
    """The figures of the whole about this policy: those of the iteration's own metrics, then what else was measured of it, newest first."""
    others = [one for one in reversed(metrics_of(lake.catalogue(), found.policy)) if one != found.metrics]
    rows: dict[str, Row] = {}
    for version in (found.metrics, *others):
        for row in lake.rows(
            "SELECT * FROM metrics WHERE version = ? AND step IS NULL AND (subject = ? OR version = ?) ORDER BY id",
            [version, found.policy, found.metrics],
        ):
            rows.setdefault(row["name"], row | {"version": version})
    return list(rows.values())


def curves(lake: Lake, found: Found) -> dict[str, list[tuple[float, float, str]]]:
    """Figures of each optimiser step, by name: (step, value, unit)."""
    told: dict[str, list[tuple[float, float, str]]] = {}
    query = "SELECT name, step, value, unit FROM metrics WHERE version IN (?, ?) AND step IS NOT NULL AND value IS NOT NULL ORDER BY step"
    for row in lake.rows(query, [found.policy, found.metrics]):
        told.setdefault(row["name"], []).append((row["step"], row["value"], row["unit"] or ""))
    return told


def laid_out(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Lines of the table: `name`, `before` and `after` or `value` alone, each with its interval, `unit`, `note`; in the metrics' order."""
    by_name = {row["name"]: row for row in rows}
    lines: list[Row] = []
    done: set[str] = set()
    for row in rows:
        stem, side = _parted(row["name"])
        if row["name"] in done:
            continue
        other = stem + _SIDES[1 - _SIDES.index(side)] if side else ""
        if side and other in by_name:
            before, after = by_name[stem + _SIDES[0]], by_name[stem + _SIDES[1]]
            done |= {before["name"], after["name"]}
            told = {side: value_of(one) + _bracketed(one) for side, one in (("before", before), ("after", after))}
            note = after.get("note") or before.get("note")
            lines.append({"name": label_of(stem), **told, "value": None, "unit": unit_of(after), "note": note})
        else:
            line = {"name": label_of(row["name"]), "before": None, "after": None}
            lines.append(line | {"value": value_of(row) + _bracketed(row), "unit": unit_of(row), "note": row.get("note")})
    return lines


def value_of(row: Mapping[str, Any], key: str = "value") -> str:
    """A figure with as many digits as say something; shares in percent."""
    value, unit = row[key], row["unit"] or ""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "no bound"
    if unit.startswith(_SHARES) and abs(value) <= 1:
        return f"{100 * value:.1f}%"
    if unit in _DOLLARS:
        return f"${value:,.4f}"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e12 else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def unit_of(row: Mapping[str, Any]) -> str:
    """The unit beside the figure: a share says of what."""
    return (row["unit"] or "").removeprefix("share ") if (row["unit"] or "").startswith("share of ") else row["unit"] or ""


def _bracketed(row: Mapping[str, Any]) -> str:
    return "" if row["low"] is None or row["high"] is None else f" [{value_of(row, 'low')}, {value_of(row, 'high')}]"


def _parted(name: str) -> tuple[str, str]:
    return next(((name.removesuffix(side), side) for side in _SIDES if name.endswith(side)), (name, ""))
