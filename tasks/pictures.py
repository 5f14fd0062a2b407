"""Pictures for the pages of steps, as markdown that carries its own PNG. Test: pytest
tests/tasks/test_pictures.py
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from dapflow.storage import Lake
from dapflow.tasks.calibration import reliability_of
from dapflow.tasks.statistics import Confidence

# Curves of a training, a panel each: what it is, its curves, and the unit. The report draws the
# same.
PANELS = (
    ("loss", ("loss",), ""),
    ("implied reward", ("reward_chosen", "reward_rejected", "margin"), "nats"),
    ("log-probability of an answer", ("logp_chosen", "logp_rejected"), "nats"),
    ("accuracy on the pairs", ("accuracy",), "share"),
    ("log-ratio to the reference (the KL where answers are fresh)", ("kl",), "nats"),
    ("reward", ("reward",), "judge's score"),
    ("value model", ("value_loss", "explained_variance"), ""),
    ("gradient norm", ("gradient_norm",), ""),
)
Curve = Sequence[tuple[int, float]]


def training_curves(lake: Lake, version: str) -> str:
    """The curves of a trained model, step by step, as markdown; empty where there are none."""
    curves: dict[str, list[tuple[int, float]]] = {}
    query = (
        "SELECT name, step, value FROM metrics WHERE version = ? AND step IS NOT NULL ORDER BY step"
    )
    for row in lake.rows(query, [version]):
        curves.setdefault(row["name"], []).append((row["step"], row["value"]))
    return _markdown("training curves", _panels(curves)) if curves else ""


def calibration(lake: Lake, version: str) -> str:
    """How often a reward model is right by how sure it is, as markdown; empty for any other model."""
    found = reliability_of(lake, version)
    return _markdown("calibration", _reliability(found)) if found else ""


def _reliability(found: Sequence[Confidence]) -> bytes:
    """Each bin with its 95 % interval and how many pairs it holds; on the dashed line it is as
    often right as it is sure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([50, 100], [50, 100], linestyle="--", linewidth=1, color="#777777")
    for one in found:
        x = 100 * one.confidence
        axes.plot([x, x], [100 * one.low, 100 * one.high], color="#4477aa")
        axes.plot(x, 100 * one.right, marker="o", color="#4477aa")
        axes.annotate(f"{one.n:,}", (x, 1), ha="center", fontsize=7)
    axes.set_xlabel(
        "how sure it is of the answer it prefers, %\n(mean of each bin; above: how many pairs are "
        "in it)",
        fontsize=8,
    )
    axes.set_ylabel("how often that is the better answer,\n% of pairs (95 % interval)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_xlim(49, 101)
    axes.set_ylim(0, 102)
    return as_png(FigureCanvasAgg(figure))


def _panels(curves: Mapping[str, Curve]) -> bytes:
    from matplotlib.backends.backend_agg import (
        FigureCanvasAgg,
    )  # half a second, and most processes draw nothing
    from matplotlib.figure import Figure

    shown = [panel for panel in PANELS if any(name in curves for name in panel[1])]
    figure = Figure(figsize=(9, 2.3 * -(-len(shown) // 3)), layout="constrained")
    for place, (title, names, unit) in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // 3), 3, place + 1)
        for name in (name for name in names if name in curves):
            steps, values = zip(*curves[name], strict=True)
            axes.plot(
                steps,
                values,
                marker="." if len(steps) < 30 else None,
                label=name.rpartition("_")[2],
            )
        axes.set_title(title, fontsize=9)
        axes.set_ylabel(unit, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", integer=True)
        if len(axes.lines) > 1:
            axes.legend(fontsize=7, frameon=False)
    return as_png(FigureCanvasAgg(figure))


def as_png(canvas: Any) -> bytes:
    """What is drawn on a canvas of matplotlib, as a PNG."""
    stream = io.BytesIO()
    canvas.print_png(stream)
    return stream.getvalue()


def _markdown(what: str, png: bytes) -> str:
    return f"![{what}](data:image/png;base64,{base64.b64encode(png).decode()})"
