"""The main figures of an iteration as lines for a person: before and after side by side, the rest with its interval, why one is missing
below. All of them are in the report (flows/report).

for line in lines_of(metrics): ...      metrics: rows of the dataset `metrics`, in its order
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.metrics import base_name, label_of, metric_of

Row = Mapping[str, Any]
_TOLD = frozenset({"win_rate", "judged_prompts", "same_judge"})  # the summary begins with them
_MAIN = frozenset(
    [
        "win_rate",
        "length_controlled_win_rate",
        "win_rate_gap",
        "judge_agreement",
        "reward",
        "judge_reward",
        "kl_to_initial",
        "displaced_pairs",
        "length",
        "truncated",
        "distinct_2",
        "invalid_rate",
        "contaminated_prompts",
        "exact_answers",
    ]
)
_WIDTH = 52


def lines_of(rows: Sequence[Row]) -> Iterator[str]:
    """One line a main figure, and what is missing for the same reason on one line."""
    by_name, missing = {row["name"]: row for row in rows if base_name(row["name"]) in _MAIN}, dict[str, list[str]]()
    for name, row in by_name.items():
        if name in _TOLD or (name.endswith("_after") and f"{name.removesuffix('_after')}_before" in by_name):
            continue
        after = by_name.get(f"{name.removesuffix('_before')}_after") if name.endswith("_before") else None
        sides = [one for one in (row, after) if one is not None]
        if any(one["value"] is None for one in sides):
            reason = next(one["note"] for one in sides if one["value"] is None)
            missing.setdefault(reason, []).append(label_of(name))
        else:
            yield f"{label_of(name):<{_WIDTH}}{' -> '.join(_value(one) for one in sides)}{_interval(row) if after is None else ''}"
    for reason, labels in missing.items():
        yield f"not measured: {', '.join(labels)}: {reason}"


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """What one must know before believing the figures."""
    return [row["note"] for row in rows if row["name"] == "same_judge" and row["value"]]


def _value(row: Row) -> str:
    return _number(row["name"], row["value"])


def _interval(row: Row) -> str:
    return "" if row["low"] is None else f" [{_number(row['name'], row['low'])}, {_number(row['name'], row['high'])}]"


def _number(name: str, value: float) -> str:
    if metric_of(name).share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 10 else f"{value:.3g}"
