"""What every picture of the report has: a frame with ticks, a legend, and the SVG around it.

    axes = Axes((0, 10), (0, 1)); axes.x(5.0)  ->  where that is, in pixels
Test: pytest tests/flows/report/test_report.py
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 26, 42
STYLES = 8  # of series, in templates/style.css
ROW = 16  # of the legend


class Axes:
    """Where a value lies in the picture, and the frame with ticks and labels around it."""

    def __init__(
        self,
        xs: tuple[float, float],
        ys: tuple[float, float],
        percent: bool = False,
        whole: bool = False,
    ) -> None:
        self.xs, self.ys, self.percent, self.whole = xs, ys, percent, whole

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.xs[0]) / (self.xs[1] - self.xs[0])

    def y(self, value: float) -> float:
        return (
            HEIGHT
            - BOTTOM
            - (HEIGHT - TOP - BOTTOM) * (value - self.ys[0]) / (self.ys[1] - self.ys[0])
        )

    def frame(self, x_label: str, y_label: str, x_ticks: bool = True) -> str:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        body = []
        for tick in ticks(*self.ys, 4):
            y = self.y(tick)
            body.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            label = f"{100 * tick:.0f}" if self.percent else written(tick)
            body.append(
                f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" '
                f'text-anchor="end">{label}</text>'
            )
        for tick in ticks(*self.xs, 6, self.whole) if x_ticks else ():
            body.append(
                f'<line class="axis" x1="{self.x(tick):.1f}" x2="{self.x(tick):.1f}" '
                f'y1="{bottom}" y2="{bottom + 4}"/>'
            )
            label = f"{100 * tick:.0f}" if self.percent else written(tick)
            body.append(
                f'<text class="tick" x="{self.x(tick):.1f}" y="{bottom + 15}" '
                f'text-anchor="middle">{label}</text>'
            )
        body.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        body.append(
            f'<text class="label" x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" '
            f'text-anchor="middle">{escape(x_label)}</text>'
        )
        middle = (TOP + bottom) / 2
        body.append(
            f'<text class="label" transform="translate(11 {middle}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )
        return "".join(body)


def legend(names: Sequence[str]) -> tuple[list[str], int]:
    """The names beside a piece of their line, in as many rows as they take, upwards from the frame;
    and how many rows these are.
    """
    if len(names) < 2:
        return [], 0
    rows: list[list[tuple[int, float, str]]] = [[]]
    x = float(LEFT)
    for number, name in enumerate(shortened(one, 30) for one in names):
        width = 42 + 6.4 * len(name)
        if rows[-1] and x + width > WIDTH:
            rows, x = [*rows, []], float(LEFT)
        rows[-1].append((number % STYLES, x, name))
        x += width
    body = list[str]()
    for up, row in enumerate(reversed(rows)):
        for place, x, name in row:
            body.append(
                f'<line class="line s{place}" x1="{x:.0f}" x2="{x + 22:.0f}" y1="{12 - ROW * up}" '
                f'y2="{12 - ROW * up}"/>'
            )
            body.append(
                f'<text class="name" x="{x + 27:.0f}" y="{16 - ROW * up}">{escape(name)}</text>'
            )
    return body, len(rows)


def picture(body: Sequence[str], title: str, height: int = HEIGHT, above: int = 0) -> Markup:
    """above: how far it reaches over its upper edge."""
    return Markup(
        f'<svg class="picture" viewBox="0 {-above} {WIDTH} {height + above}" role="img" '
        f'aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def span(values: Sequence[float], room: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        half = abs(low) / 2 or 0.5
        return low - half, high + half
    return low - room * (high - low), high + room * (high - low)


def ticks(low: float, high: float, wanted: int, whole: bool = False) -> list[float]:
    rough = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * next(one for one in (1, 2, 5, 10) if one * size >= rough)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def written(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value + 0:.4g}"


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
