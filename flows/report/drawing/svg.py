"""Pictures as inline SVG: they scale, print, and take their colours from the page, light or dark.
Series differ in dash as well as in colour.

histogram({"before": [...], "after": [...]}, "score")  ->  Markup
"""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from dapflow.flows.report.drawing.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    ROW,
    STYLES,
    WIDTH,
    Axes,
    legend,
    picture,
    shortened,
    span,
    ticks,
    written,
)
from dapflow.tasks.statistics import Confidence

Points = Sequence[tuple[float, float]]


def histogram(
    series: Mapping[str, Sequence[float]], x_label: str, y_label: str = "answers", bins: int = 24
) -> Markup:
    """How often each value occurs, one outline per series over the same bins."""
    values = [value for one in series.values() for value in one]
    low, high = span(values)
    bins = max(1, min(bins, round(1.5 * math.sqrt(max(len(one) for one in series.values())))))
    width = (high - low) / bins
    outlines: dict[str, list[tuple[float, float]]] = {}
    for name, held in series.items():
        counts = [0] * bins
        for value in held:
            counts[min(bins - 1, int((value - low) / width))] += 1
        steps = [
            (low + place * width, count)
            for place, count in enumerate(counts)
            for place in (place, place + 1)
        ]
        outlines[name] = [(low, 0.0), *steps, (high, 0.0)]
    return lines(outlines, x_label, y_label, filled=True, floor=0.0)


def lines(
    series: Mapping[str, Points],
    x_label: str,
    y_label: str,
    *,
    filled: bool = False,
    floor: float | None = None,
    dots: bool = False,
) -> Markup:
    """Curves over one pair of axes, named beside a piece of their line above the picture."""
    xs, ys = (
        [x for one in series.values() for x, _ in one],
        [y for one in series.values() for _, y in one],
    )
    whole = all(x == round(x) for x in xs) and not filled
    axes = Axes(
        span(xs, 0.05 if dots else 0.0),
        span([*ys, floor] if floor is not None else ys, 0.05),
        whole=whole,
    )
    body = [axes.frame(x_label, y_label)]
    for number, points in enumerate(series.values()):
        place = number % STYLES
        path = "M" + "L".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
        body.append(f'<path class="line s{place}{" filled" if filled else ""}" d="{path}"/>')
        if dots or len(points) == 1:
            body += [
                f'<circle class="dot s{place}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3.5"/>'
                for x, y in points
            ]
    named, rows = legend(list(series))
    return picture(
        body + named,
        f"{y_label} against {x_label}: {', '.join(series)}",
        above=ROW * max(0, rows - 1),
    )


def intervals(
    rows: Sequence[tuple[str, float, float, float]],
    x_label: str,
    even: float | None = 0.5,
    percent: bool = True,
) -> Markup:
    """A point with its 95 % interval for each name, one under the other; a line where both sides
    are equal.
    """
    row, left, right = 30, 24 + 6.6 * min(22, max(len(name) for name, *_ in rows)), 16
    height = row * len(rows) + 48
    low, high = (
        (0.0, 1.0)
        if percent
        else span(
            [value for _, *values in rows for value in values]
            + ([even] if even is not None else []),
            0.08,
        )
    )
    width = WIDTH - left - right

    def x(value: float) -> float:
        return left + width * (min(max(value, low), high) - low) / (high - low)

    bottom = row * len(rows) + 6
    body = []
    for tick in ticks(low, high, 5):
        label = f"{100 * tick:.0f}" if percent else written(tick)
        body.append(
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{bottom}"/>'
        )
        body.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 14}" '
            f'text-anchor="middle">{label}</text>'
        )
    if even is not None:
        body.append(
            f'<line class="even" x1="{x(even):.1f}" x2="{x(even):.1f}" y1="4" y2="{bottom}"/>'
        )
    for place, (name, value, bottom_value, top_value) in enumerate(rows):
        y = 4 + row * place + row / 2
        body.append(
            f'<text class="name" x="{left - 10:.1f}" y="{y + 4:.1f}" '
            f'text-anchor="end">{escape(shortened(name, 22))}</text>'
        )
        body.append(
            f'<line class="range" x1="{x(bottom_value):.1f}" x2="{x(top_value):.1f}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/>'
        )
        body += [
            f'<line class="cap" x1="{x(end):.1f}" x2="{x(end):.1f}" y1="{y - 5:.1f}" '
            f'y2="{y + 5:.1f}"/>'
            for end in (bottom_value, top_value)
        ]
        body.append(f'<circle class="point" cx="{x(value):.1f}" cy="{y:.1f}" r="5"/>')
    body.append(
        f'<text class="label" x="{WIDTH / 2:.1f}" y="{bottom + 33}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
    )
    return picture(body, x_label, height)


def columns(
    rows: Sequence[tuple[str, float, float, float]], x_label: str, y_label: str, even: float = 0.5
) -> Markup:
    """A share with its 95 % interval for each of a few groups, side by side."""
    axes = Axes((0.0, float(len(rows))), (0.0, 1.0), percent=True)
    body = [axes.frame(x_label, y_label, x_ticks=False)]
    body.append(
        f'<line class="even" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axes.y(even):.1f}" '
        f'y2="{axes.y(even):.1f}"/>'
    )
    for place, (name, value, low, high) in enumerate(rows):
        x = axes.x(place + 0.5)
        body += _upright(axes, x, value, low, high)
        for line, part in enumerate(
            name.split(" to ")
        ):  # a span is too wide to stand beside others
            text = escape(f"to {part}" if line else part)
            body.append(
                f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 12 + 10 * line}" '
                f'text-anchor="middle">{text}</text>'
            )
    return picture(body, f"{y_label} by {x_label}")


def reliability(bins: Sequence[Confidence], x_label: str, y_label: str) -> Markup:
    """How often a judge is right by how sure it is, with 95 % intervals, and how many judgements
    each bin holds; the line: as often as it is sure.
    """
    axes = Axes((0.5, 1.0), (0.0, 1.0), percent=True)
    body = [axes.frame(x_label, y_label)]
    body.append(
        f'<line class="even" x1="{axes.x(0.5):.1f}" x2="{axes.x(1):.1f}" y1="{axes.y(0.5):.1f}" '
        f'y2="{axes.y(1):.1f}"/>'
    )
    for one in bins:
        body += _upright(axes, axes.x(one.confidence), one.right, one.low, one.high)
        body.append(
            f'<text class="tick" x="{axes.x(one.confidence):.1f}" y="{axes.y(0) - 5:.1f}" '
            f'text-anchor="middle">{one.n:,}</text>'
        )
    return picture(body, f"{y_label} against {x_label}")


def _upright(axes: "Axes", x: float, value: float, low: float, high: float) -> list[str]:
    """A point with its interval above and below."""
    ends = (
        f'<line class="cap" x1="{x - 5:.1f}" x2="{x + 5:.1f}" y1="{axes.y(end):.1f}" '
        f'y2="{axes.y(end):.1f}"/>'
        for end in (low, high)
    )
    return [
        f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.y(low):.1f}" '
        f'y2="{axes.y(high):.1f}"/>',
        *ends,
        f'<circle class="point" cx="{x:.1f}" cy="{axes.y(value):.1f}" r="5"/>',
    ]
