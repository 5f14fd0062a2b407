"""The report as one HTML page that needs nothing else: no script, no font, no picture from
elsewhere. Templates: flows/report/drawing/templates.

page(runs, lineage=None)  ->  HTML. Everything from the lake is escaped: prompts and answers may hold markup.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dapflow.flows.display.cells import span
from dapflow.flows.display.figures import Line, interval_of, label_on_its_side, laid_out, value_of
from dapflow.flows.report.drawing import svg, words
from dapflow.storage import UserError
from dapflow.storage.replacing import replacing
from dapflow.tasks.metrics import label_of
from dapflow.tasks.pictures import PANELS
from dapflow.tasks.statistics import Confidence

Row = Mapping[str, Any]
# figures beside the outcome, by the name of their first row
_TILES = ("judge_reward_before", "reward_before", "length_before", "kl_to_initial")
# rewards of the answers after, each with the role of the judge that gave it
_REWARDS = {
    "judge_reward_after": "measured the result",
    "reward_after": "labelled the training pairs",
}
_QUIET = ("entropy", "learning_rate", "tokens_per_second", "peak_memory_gib")


@cache
def environment() -> Environment:
    """The templates, with everything escaped unless it is Markup."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "span": span,
        "percent": lambda value: f"{100 * value:.1f}%",
        "marked": words.marked,
        "usd": usd,
    }
    made.filters |= {
        "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str),
        "points": _points,
    }
    made.globals |= {"forest_of": lambda one: forest([one])}
    made.globals |= {
        "laid_out": laid_out,
        "tiles": tiles,
        "value_of": value_of,
        "interval_of": interval_of,
    }
    made.globals |= {"label_of": label_of, "label_on_its_side": label_on_its_side}
    return made


def page(runs: Sequence[Row], lineage: Mapping[str, str] | None = None) -> str:
    """runs: of `gather`, each with its `iterations`. lineage: version -> address of its page,
    relative to this one.
    """
    iterations = [one for run in runs for one in run["iterations"]]
    return (
        environment()
        .get_template("report.html")
        .render(
            runs=runs,
            iterations=iterations,
            forest=forest(iterations),
            frontiers=frontiers(iterations),
            pictures={one["policy"]: pictures(one) for one in iterations},
            lineage=lineage or {},
            now=now(),
        )
    )


def write(path: Path, text: str) -> None:
    """A page on disk, whole or not at all. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error


def compare_page(found: Row) -> str:
    """found: of `compare`."""
    told = found["outcome"]
    met = told.get("meeting") is not None
    rows = [("B over A", told["meeting"], told["meeting_low"], told["meeting_high"])] if met else []
    drawn = (
        svg.intervals(rows, "prompts on which B scores higher, % (95 % interval)") if rows else None
    )
    return environment().get_template("compare.html").render(found=found, forest=drawn, now=now())


def forest(iterations: Sequence[Row]) -> Markup | None:
    """The win rate of each iteration with its interval."""
    told = [(one["label"], one["outcome"]) for one in iterations if "win_rate" in one["outcome"]]
    rows = [
        (label, one["win_rate"], one["win_rate_low"], one["win_rate_high"]) for label, one in told
    ]
    return (
        svg.intervals(rows, "win rate against the policy before, % (95 % interval)")
        if rows
        else None
    )


def frontiers(iterations: Sequence[Row]) -> list[tuple[str, Markup]]:
    """Reward against the square root of the KL to the initial policy, a curve per recipe and
    settings, with its title: a picture for each judge that has scored two or more, for their scores
    do not compare. The evaluation's, or where it gives no scores, the one that labelled."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for one in iterations:
        metrics = {row["name"]: row["value"] for row in one["metrics"]}
        kl = next(
            (
                metrics[name]
                for name in ("kl_to_initial_after", "kl_to_initial")
                if metrics.get(name) is not None
            ),
            None,
        )
        name, role = next(
            ((name, role) for name, role in _REWARDS.items() if metrics.get(name) is not None),
            (None, None),
        )
        if kl is not None and name is not None:
            judge = ", ".join(judge["name"] for judge in one["judges"] if judge["role"] == role)
            series = found.setdefault(judge or label_of(name), {})
            series.setdefault(one["series"], []).append((math.sqrt(max(kl, 0.0)), metrics[name]))
    return [
        (
            f"Reward by {judge} against drift",
            _drift({name: sorted(points) for name, points in series.items()}),
        )
        for judge, series in found.items()
        if sum(map(len, series.values())) > 1
    ]


def _drift(series: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    return svg.lines(
        series, "√KL to the initial policy, √nats", "reward after, judge's score", dots=True
    )


def pictures(one: Row) -> list[tuple[str, Markup]]:
    """The pictures of an iteration, each with its title: scores before and after, win rate by
    length, how honest the judges' probabilities are, curves of the training."""
    drawn: list[tuple[str, Markup]] = []
    if all(one["scores"].values()):
        drawn.append(
            ("Scores by the evaluation judge", svg.histogram(one["scores"], "judge's score"))
        )
    if one["by_length"]:
        bands = [
            (_span(band["least"], band["most"]), band["win_rate"], band["low"], band["high"])
            for band in one["by_length"]
        ]
        drawn.append(
            (
                "Win rate by length",
                svg.columns(
                    bands, "how much longer the new answer is, tokens", "win rate, % of prompts"
                ),
            )
        )
    for judge in one["judges"]:
        if judge["reliability"]:
            bins = [Confidence(**held) for held in judge["reliability"]]
            sure, right = "how sure the judge is, % (above: pairs)", "right, % of pairs"
            drawn.append(
                (
                    f"Calibration of {judge['name']}, which {judge['role']}",
                    svg.reliability(bins, sure, right),
                )
            )
    curves, used = one["curves"], set(_QUIET)
    for title, names, _ in PANELS:  # curves that are in none of these get a picture of their own
        held = {name.rpartition("_")[2]: curves[name] for name in names if name in curves}
        used |= set(names)
        if held:
            unit = next(iter(held.values()))[0][2]
            drawn.append((f"Training: {title}", _curves(held, unit or title)))
    for name in curves.keys() - used:
        drawn.append(
            (label_of(name), _curves({name: curves[name]}, curves[name][0][2] or label_of(name)))
        )
    return drawn


def tiles(metrics: Sequence[Row]) -> list[Line]:
    """What stands beside the outcome: rewards of both judges, length, drift; those that were
    measured.
    """
    lines = {line.rows[0]["name"]: line for line in laid_out(metrics)}
    return [
        lines[name]
        for name in _TILES
        if name in lines and all(row["value"] is not None for row in lines[name].rows)
    ]


def usd(value: float | None) -> str:
    """Dollars, or that nobody knows the price."""
    return (
        "price unknown"
        if value is None
        else f"${value:,.2f}"
        if value >= 1 or value == 0
        else f"${value:.4f}"
    )


def _curves(held: Mapping[str, Sequence[tuple[float, float, str]]], y_label: str) -> Markup:
    return svg.lines(
        {name: [(x, y) for x, y, _ in points] for name, points in held.items()},
        "optimiser step",
        y_label,
    )


def _points(value: float) -> str:
    return f"{100 * (value - 0.5):+.1f} points"


def _span(least: float, most: float) -> str:
    return f"{least:+.0f}" if least == most else f"{least:+.0f} to {most:+.0f}"


def now() -> str:
    """When a page was made."""
    return datetime.now().astimezone().strftime("%d %B %Y, %H:%M")
