"""Pictures as inline SVG: they scale, print, and take their colours from the page, light or dark.
Series differ in dash as well as in colour.

histogram({"before": [...], "after": [...]}, "score")  ->  Markup
"""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from dapflow.tasks.statistics import Confidence

_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 26, 42
_STYLES = 8  # of series, in templates/style.css
_ROW = 16  # of the legend
Points = Sequence[tuple[float, float]]


def histogram(
    series: Mapping[str, Sequence[float]], x_label: str, y_label: str = "answers", bins: int = 24
) -> Markup:
    """How often each value occurs, one outline per series over the same bins."""
    values = [value for one in series.values() for value in one]
    low, high = _range(values)
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
    axes = _Axes(
        _range(xs, 0.05 if dots else 0.0),
        _range([*ys, floor] if floor is not None else ys, 0.05),
        whole=whole,
    )
    body = [axes.frame(x_label, y_label)]
    for number, points in enumerate(series.values()):
        place = number % _STYLES
        path = "M" + "L".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
        body.append(f'<path class="line s{place}{" filled" if filled else ""}" d="{path}"/>')
        if dots or len(points) == 1:
            body += [
                f'<circle class="dot s{place}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3.5"/>'
                for x, y in points
            ]
    named, rows = _legend(list(series))
    return _svg(
        body + named,
        f"{y_label} against {x_label}: {', '.join(series)}",
        above=_ROW * max(0, rows - 1),
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
        else _range(
            [value for _, *values in rows for value in values]
            + ([even] if even is not None else []),
            0.08,
        )
    )
    width = _WIDTH - left - right

    def x(value: float) -> float:
        return left + width * (min(max(value, low), high) - low) / (high - low)

    bottom = row * len(rows) + 6
    body = []
    for tick in _ticks(low, high, 5):
        label = f"{100 * tick:.0f}" if percent else _number(tick)
        body.append(
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{bottom}"/>'
        )
        body.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>'
        )
    if even is not None:
        body.append(
            f'<line class="even" x1="{x(even):.1f}" x2="{x(even):.1f}" y1="4" y2="{bottom}"/>'
        )
    for place, (name, value, bottom_value, top_value) in enumerate(rows):
        y = 4 + row * place + row / 2
        body.append(
            f'<text class="name" x="{left - 10:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(name, 22))}</text>'
        )
        body.append(
            f'<line class="range" x1="{x(bottom_value):.1f}" x2="{x(top_value):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        body += [
            f'<line class="cap" x1="{x(end):.1f}" x2="{x(end):.1f}" y1="{y - 5:.1f}" y2="{y + 5:.1f}"/>'
            for end in (bottom_value, top_value)
        ]
        body.append(f'<circle class="point" cx="{x(value):.1f}" cy="{y:.1f}" r="5"/>')
    body.append(
        f'<text class="label" x="{_WIDTH / 2:.1f}" y="{bottom + 33}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return _svg(body, x_label, height)


def columns(
    rows: Sequence[tuple[str, float, float, float]], x_label: str, y_label: str, even: float = 0.5
) -> Markup:
    """A share with its 95 % interval for each of a few groups, side by side."""
    axes = _Axes((0.0, float(len(rows))), (0.0, 1.0), percent=True)
    body = [axes.frame(x_label, y_label, x_ticks=False)]
    body.append(
        f'<line class="even" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{axes.y(even):.1f}" y2="{axes.y(even):.1f}"/>'
    )
    for place, (name, value, low, high) in enumerate(rows):
        x = axes.x(place + 0.5)
        body += _upright(axes, x, value, low, high)
        for line, part in enumerate(
            name.split(" to ")
        ):  # a span is too wide to stand beside others
            text = escape(f"to {part}" if line else part)
            body.append(
                f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 12 + 10 * line}" text-anchor="middle">{text}</text>'
            )
    return _svg(body, f"{y_label} by {x_label}")


def reliability(bins: Sequence[Confidence], x_label: str, y_label: str) -> Markup:
    """How often a judge is right by how sure it is, with 95 % intervals, and how many judgements
    each bin holds; the line: as often as it is sure.
    """
    axes = _Axes((0.5, 1.0), (0.0, 1.0), percent=True)
    body = [axes.frame(x_label, y_label)]
    body.append(
        f'<line class="even" x1="{axes.x(0.5):.1f}" x2="{axes.x(1):.1f}" y1="{axes.y(0.5):.1f}" y2="{axes.y(1):.1f}"/>'
    )
    for one in bins:
        body += _upright(axes, axes.x(one.confidence), one.right, one.low, one.high)
        body.append(
            f'<text class="tick" x="{axes.x(one.confidence):.1f}" y="{axes.y(0) - 5:.1f}" text-anchor="middle">{one.n:,}</text>'
        )
    return _svg(body, f"{y_label} against {x_label}")


def _upright(axes: "_Axes", x: float, value: float, low: float, high: float) -> list[str]:
    """A point with its interval above and below."""
    ends = (
        f'<line class="cap" x1="{x - 5:.1f}" x2="{x + 5:.1f}" y1="{axes.y(end):.1f}" y2="{axes.y(end):.1f}"/>'
        for end in (low, high)
    )
    return [
        f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.y(low):.1f}" y2="{axes.y(high):.1f}"/>',
        *ends,
        f'<circle class="point" cx="{x:.1f}" cy="{axes.y(value):.1f}" r="5"/>',
    ]


class _Axes:
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
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - self.xs[0]) / (self.xs[1] - self.xs[0])

    def y(self, value: float) -> float:
        return (
            _HEIGHT
            - _BOTTOM
            - (_HEIGHT - _TOP - _BOTTOM) * (value - self.ys[0]) / (self.ys[1] - self.ys[0])
        )

    def frame(self, x_label: str, y_label: str, x_ticks: bool = True) -> str:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        body = []
        for tick in _ticks(*self.ys, 4):
            y = self.y(tick)
            body.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            label = f"{100 * tick:.0f}" if self.percent else _number(tick)
            body.append(
                f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'
            )
        for tick in _ticks(*self.xs, 6, self.whole) if x_ticks else ():
            body.append(
                f'<line class="axis" x1="{self.x(tick):.1f}" x2="{self.x(tick):.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            )
            label = f"{100 * tick:.0f}" if self.percent else _number(tick)
            body.append(
                f'<text class="tick" x="{self.x(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{label}</text>'
            )
        body.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        body.append(
            f'<text class="label" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        )
        middle = (_TOP + bottom) / 2
        body.append(
            f'<text class="label" transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
        )
        return "".join(body)


def _legend(names: Sequence[str]) -> tuple[list[str], int]:
    """The names beside a piece of their line, in as many rows as they take, upwards from the frame;
    and how many rows these are.
    """
    if len(names) < 2:
        return [], 0
    rows: list[list[tuple[int, float, str]]] = [[]]
    x = float(_LEFT)
    for number, name in enumerate(_short(one, 30) for one in names):
        width = 42 + 6.4 * len(name)
        if rows[-1] and x + width > _WIDTH:
            rows, x = [*rows, []], float(_LEFT)
        rows[-1].append((number % _STYLES, x, name))
        x += width
    body = list[str]()
    for up, row in enumerate(reversed(rows)):
        for place, x, name in row:
            body.append(
                f'<line class="line s{place}" x1="{x:.0f}" x2="{x + 22:.0f}" y1="{12 - _ROW * up}" y2="{12 - _ROW * up}"/>'
            )
            body.append(
                f'<text class="name" x="{x + 27:.0f}" y="{16 - _ROW * up}">{escape(name)}</text>'
            )
    return body, len(rows)


def _svg(body: Sequence[str], title: str, height: int = _HEIGHT, above: int = 0) -> Markup:
    """above: how far it reaches over its upper edge."""
    return Markup(
        f'<svg class="picture" viewBox="0 {-above} {_WIDTH} {height + above}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def _range(values: Sequence[float], room: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        half = abs(low) / 2 or 0.5
        return low - half, high + half
    return low - room * (high - low), high + room * (high - low)


def _ticks(low: float, high: float, wanted: int, whole: bool = False) -> list[float]:
    rough = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * next(one for one in (1, 2, 5, 10) if one * size >= rough)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value + 0:.4g}"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
