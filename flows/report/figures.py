"""The figures that the lake has about a policy, and those of each step of its training.
flows/display/figures.py lays them out for a reader.
"""

from typing import Any

from dapflow.flows.report.find import Found, metrics_of
from dapflow.storage import Lake

Row = dict[str, Any]


def metric_rows(lake: Lake, found: Found) -> list[Row]:
    """The figures of the whole about this policy: those of the iteration's own metrics, then what
    else was measured of it, newest first.
    """
    others = [
        one for one in reversed(metrics_of(lake.catalogue(), found.policy)) if one != found.metrics
    ]
    rows: dict[str, Row] = {}
    for version in (found.metrics, *others):
        for row in lake.rows(
            "SELECT * FROM metrics WHERE version = ? AND step IS NULL AND (subject = ? OR version "
            "= ?) ORDER BY id",
            [version, found.policy, found.metrics],
        ):
            rows.setdefault(row["name"], row | {"version": version})
    return list(rows.values())


def curves(lake: Lake, found: Found) -> dict[str, list[tuple[float, float, str]]]:
    """Figures of each optimiser step, by name: (step, value, unit)."""
    told: dict[str, list[tuple[float, float, str]]] = {}
    query = (
        "SELECT name, step, value, unit FROM metrics WHERE version IN (?, ?) AND step IS NOT NULL "
        "AND value IS NOT NULL ORDER BY step"
    )
    for row in lake.rows(query, [found.policy, found.metrics]):
        told.setdefault(row["name"], []).append((row["step"], row["value"], row["unit"] or ""))
    return told
