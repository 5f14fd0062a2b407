"""Figures for a reader: what has a before and an after side by side, the rest as it comes; numbers
with as many digits as say something.

    for line in laid_out(metrics): line.name, line.cells, line.unit, line.note        metrics: rows of the dataset `metrics`, in its order
    for text in lines_of(metrics): ...                                                 the main ones, as lines of the terminal
A metric is known only by its name, value, interval and unit, so a new one is shown without a change
here. Test: pytest tests/flows/report/test_figures.py
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dapflow.tasks.metrics import SIDES, base_name, label_of

Row = Mapping[str, Any]
_SHARES = ("share", "probability")
_DOLLARS = ("usd", "dollars")
_TOLD = frozenset({"win_rate", "judged_prompts", "same_judge"})  # the summary begins with them
_MAIN = frozenset(
    [
        "win_rate",
        "length_controlled_win_rate",
        "win_rate_gap",
        "judge_agreement",
        "reward",
        "judge_reward",
        "first_sweep_share",
        "tilt_reached",
        "kl_to_initial",
        "displaced_pairs",
        "length",
        "truncated",
        "distinct_2",
        "invalid_rate",
        "contaminated_prompts",
        "people_prompts",
        "own_share",
        "mean_lag",
        "renewed_share",
        "api_answers",
        "models_in_memory",
        "exact_answers",
        "instructions_followed",
        "instructions_followed_change",
        "instructions_whole",
        "instructions_whole_change",
        "turn_1_win_rate",
        "turn_2_win_rate",
    ]
)
_WIDTH = 52


@dataclass(frozen=True, kw_only=True)
class Line:
    """A figure, or the two of a before and an after: their rows of `metrics`. unit: a share says of
    what; note: of one that has one.
    """

    name: str
    rows: tuple[Row, ...]
    unit: str
    note: str | None

    @property
    def cells(self) -> tuple[str, str]:
        """The columns before and after, with intervals; what stands alone is in the second."""
        told = [f"{value_of(row)}{interval_of(row)}" for row in self.rows]
        return (told[0], told[1]) if len(told) == 2 else ("", told[0])


def laid_out(rows: Sequence[Row]) -> list[Line]:
    """One line a figure, in the metrics' order."""
    by_name, lines = {row["name"]: row for row in rows}, dict[str, Line]()
    for row in rows:
        stem, sides = _sides(row, by_name)
        note = next((one["note"] for one in reversed(sides) if one.get("note")), None)
        lines.setdefault(
            sides[0]["name"],
            Line(name=label_of(stem), rows=sides, unit=unit_of(sides[-1]), note=note),
        )
    return list(lines.values())


def _sides(row: Row, by_name: Mapping[str, Row]) -> tuple[str, tuple[Row, ...]]:
    """The figure's name without its side, and both sides; where there is only this one, its own
    name and itself.
    """
    for side in SIDES:
        stem = row["name"].removesuffix(f"_{side}")
        both = tuple(by_name[name] for one in SIDES if (name := f"{stem}_{one}") in by_name)
        if stem != row["name"] and len(both) == len(SIDES):
            return stem, both
    return row["name"], (row,)


def lines_of(rows: Sequence[Row]) -> Iterator[str]:
    """One line a main figure, and what is missing for the same reason on one line. All of them are
    in the report (flows/report).
    """
    missing: dict[str, list[str]] = {}
    for line in laid_out(
        [row for row in rows if base_name(row["name"]) in _MAIN and row["name"] not in _TOLD]
    ):
        if (lacking := next((row for row in line.rows if row["value"] is None), None)) is not None:
            missing.setdefault(lacking["note"], []).append(line.name)
        else:
            alone = interval_of(line.rows[0]) if len(line.rows) == 1 else ""
            yield f"{line.name:<{_WIDTH}}{' -> '.join(value_of(row) for row in line.rows)}{alone}"
    for reason, names in missing.items():
        yield f"not measured: {', '.join(names)}: {reason}"


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """What one must know before believing the figures."""
    return [
        row["note"]
        for row in rows
        if row["note"]
        and ((row["name"] == "same_judge" and row["value"]) or row["name"] == "first_sweep_share")
        and row["value"] is not None
    ]


def value_of(row: Row, key: str = "value") -> str:
    """A figure, or an end of its interval; shares in percent."""
    value, unit = row[key], row["unit"] or ""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "no bound"
    if unit.startswith(_SHARES):
        return f"{value:.1%}"
    if unit in _DOLLARS:
        return f"${value:,.4f}"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def label_on_its_side(name: str) -> str:
    """A figure's label, with whether it is that of before or of after, for where the two do not
    stand side by side.
    """
    side = next((one for one in SIDES if name.endswith(f"_{one}")), None)
    return label_of(name) if side is None else f"{label_of(name.removesuffix(f'_{side}'))}, {side}"


def steps_old(steps: float) -> str:
    """The age of a sample."""
    return f"{steps:.0f} optimiser step{'' if steps == 1 else 's'} old"


def interval_of(row: Row) -> str:
    """Its 95 % interval in brackets, after a space; empty where it has none."""
    return (
        ""
        if row["low"] is None or row["high"] is None
        else f" [{value_of(row, 'low')}, {value_of(row, 'high')}]"
    )


def unit_of(row: Row) -> str:
    """The unit beside the figure: a share says of what."""
    unit = row["unit"] or ""
    return unit.removeprefix("share ") if unit.startswith("share of ") else unit
