"""The graph of dataset versions as SVG: what came first at the top, an arrow from each version to
what was made of it, each a link.

graph(nodes, edges, here)  ->  Markup. Layers by longest path; within one, each version stands near those it came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_NODE_W, _BEND_W, _NODE_H, _GAP_X, _GAP_Y = 164, 10, 44, 16, 40
_SWEEPS = 4


@dataclass(frozen=True, kw_only=True)
class Box:
    """A version in the graph: its two lines, the class that colours it, and where it links to."""

    title: str
    note: str
    kind: str
    href: str | None


def graph(boxes: Mapping[str, Box], parents: Mapping[str, Sequence[str]], here: str) -> Markup:
    """boxes by version; parents: of each version those that are in `boxes`; here: the one that is
    marked.
    """
    layers, links = with_bends(layered(list(boxes), parents), parents)
    layers = arranged(layers, links)
    widths = {one: _NODE_W if one in boxes else _BEND_W for layer in layers for one in layer}
    across = [sum(widths[one] + _GAP_X for one in layer) for layer in layers]
    width, height = max(across) + _GAP_X, len(layers) * (_NODE_H + _GAP_Y)
    place: dict[str, tuple[float, float]] = {}
    for row, layer in enumerate(layers):
        left = (width - across[row] + _GAP_X) / 2
        for one in layer:
            place[one] = (left + widths[one] / 2, 8 + row * (_NODE_H + _GAP_Y))
            left += widths[one] + _GAP_X
    body = [
        _edge(place[parent], place[child], child in boxes)
        for child in links
        for parent in links[child]
    ]
    body += [_bend(*place[one]) for one in place if one not in boxes]
    body += [_node(box, *place[one], one == here) for one, box in boxes.items()]
    arrow = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker>'
    )
    return Markup(
        f'<svg class="picture graph" style="max-width: {width:.0f}px" viewBox="0 0 {width:.0f} '
        f'{height}" role="img"'
        f' aria-label="graph of dataset versions"><defs>{arrow}</defs>{"".join(body)}</svg>'
    )


def with_bends(
    layers: list[list[str]], parents: Mapping[str, Sequence[str]]
) -> tuple[list[list[str]], dict[str, list[str]]]:
    """The layers with a bend in each that an edge passes through, and the edges from layer to
    layer: children with their parents.
    """
    depth = {one: row for row, layer in enumerate(layers) for one in layer}
    passed = [list(layer) for layer in layers]
    links: dict[str, list[str]] = {one: [] for one in depth}
    for child in depth:
        for parent in parents.get(child, ()):
            above = parent
            for row in range(depth[parent] + 1, depth[child]):
                bend = (
                    f"{parent} {row}"  # the edges of a version run together for as long as they can
                )
                if bend not in links:
                    passed[row].append(bend)
                    links[bend] = [above]
                above = bend
            links[child].append(above)
    return passed, links


def layered(versions: Sequence[str], parents: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Versions by how many steps the longest way from a version without parents takes; and each as
    late as what it went into allows.
    """
    depth: dict[str, int] = {}

    def deep(one: str) -> int:
        if one not in depth:
            depth[one] = max((deep(parent) + 1 for parent in parents.get(one, ())), default=0)
        return depth[one]

    for one in versions:
        deep(one)
    children: dict[str, list[str]] = {one: [] for one in versions}
    for child in versions:
        for parent in parents.get(child, ()):
            children[parent].append(child)
    for one in sorted(
        versions, key=lambda one: -depth[one]
    ):  # a source stands just above what it went into
        if children[one] and not parents.get(one):
            depth[one] = min(depth[child] for child in children[one]) - 1
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for one in versions:
        layers[depth[one]].append(one)
    return [layer for layer in layers if layer]


def arranged(layers: list[list[str]], parents: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The layers with each version near the middle of its neighbours: the barycentre heuristic,
    down and up a few times.
    """
    neighbours: dict[str, set[str]] = {
        one: set(parents.get(one, ())) for layer in layers for one in layer
    }
    for child in list(neighbours):
        for parent in parents.get(child, ()):
            neighbours[parent].add(child)
    for sweep in range(_SWEEPS):
        place = {
            one: (column + 0.5) / len(layer) for layer in layers for column, one in enumerate(layer)
        }
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            middle = {
                one: _mean([place[other] for other in neighbours[one]], place[one]) for one in layer
            }
            layer.sort(key=lambda one, middle=middle: middle[one])
            place |= {one: (column + 0.5) / len(layer) for column, one in enumerate(layer)}
    return layers


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _edge(start: tuple[float, float], end: tuple[float, float], arrives: bool) -> str:
    x1, y1, x2, y2 = start[0], start[1] + _NODE_H, end[0], end[1] - (2 if arrives else 0)
    middle, tip = (y1 + y2) / 2, ' marker-end="url(#tip)"' if arrives else ""
    return (
        f'<path class="edge"{tip} d="M{x1:.0f} {y1:.0f}C{x1:.0f} {middle:.0f} {x2:.0f} '
        f'{middle:.0f} {x2:.0f} {y2:.0f}"/>'
    )


def _bend(x: float, y: float) -> str:
    return f'<path class="edge" d="M{x:.0f} {y}v{_NODE_H}"/>'


def _node(box: Box, x: float, y: float, here: bool) -> str:
    drawn = (
        f'<g class="node {escape(box.kind)}{" here" if here else ""}"><rect '
        f'x="{x - _NODE_W / 2:.0f}" y="{y}" width="{_NODE_W}" height="{_NODE_H}" rx="7"/>'
        f'<text class="title" x="{x:.0f}" y="{y + 19}" '
        f'text-anchor="middle">{escape(box.title)}</text>'
        f'<text class="tick" x="{x:.0f}" y="{y + 34}" '
        f'text-anchor="middle">{escape(box.note)}</text></g>'
    )
    return f'<a href="{escape(box.href)}">{drawn}</a>' if box.href else drawn
