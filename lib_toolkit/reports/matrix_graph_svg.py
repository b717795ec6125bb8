"""Spanning tree, map and line of a family of models as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.matrix.graphs import Edge
from lib_toolkit.analysis.matrix.scaling import Map
from lib_toolkit.reports.html import EMPTY, Html, tag
from lib_toolkit.reports.matrix_svg import LABELS, ROW, WIDTH, figure, label, row_label, svg

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Floats

_STEP, _DEEPEST = 22, 18
_HIGH = 560
_MARGIN = 40
_LETTER = 6.0

Box = tuple[float, float, float, float]


def tree_svg(names: Sequence[str], edges: Sequence[Edge], apart: Floats, known: Floats) -> Html:
    """The minimum spanning tree, a row for each model: each hangs below the one it is nearest to on the way to the
    model in the middle of all. ``known``: the distances that may be told; 0 is told of no other pair."""
    root = int(np.argmin(apart.sum(axis=1)))
    rows = _hanging(root, edges, len(names))
    at: dict[int, tuple[float, float]] = {}
    parts: list[Html] = []
    for row, (place, parent, depth, length) in enumerate(rows):
        x, y = 14.0 + _STEP * min(depth, _DEEPEST), ROW * (row + 1.0)
        at[place] = (x, y)
        if parent is not None:
            above, start = at[parent]
            joint = max(min(above, x - 6), 4.0)
            parts.append(tag("path", d=f"M{joint:g} {start:g}V{y:g}H{x:g}", class_="set-line"))
        words = "in the middle of all"
        if parent is not None:
            equal = length == 0 and known[place, parent] != 0
            words = "equal but for NaN or infinite values" if equal else figure(length)
        told = label(names[place])
        shown = (tag("title", told.whole), told.short, tag("tspan", f"  {words}", class_="set-soft"))
        parts.append(tag("circle", cx=f"{x:g}", cy=f"{y:g}", r="3.5", class_="set-dot"))
        parts.append(tag("text", *shown, x=f"{x + 8:g}", y=f"{y:g}", dominant_baseline="middle"))
    return svg(WIDTH, ROW * (len(rows) + 1), f"Minimum spanning tree of {len(names)} models.", *parts)


def _hanging(root: int, edges: Sequence[Edge], count: int) -> list[tuple[int, int | None, int, float]]:
    """Rows from the root down: model, the one it hangs on, depth and distance; near ones first."""
    beside: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    for edge in edges:
        beside[edge.a].append((edge.length, edge.b))
        beside[edge.b].append((edge.length, edge.a))
    rows: list[tuple[int, int | None, int, float]] = []
    waiting: list[tuple[int, int | None, int, float]] = [(root, None, 0, 0.0)]
    while waiting:
        row = waiting.pop()
        rows.append(row)
        place, parent, depth, _ = row
        below = sorted((one for one in beside[place] if one[1] != parent), reverse=True)
        waiting += [(other, place, depth + 1, length) for length, other in below]
    return rows


def map_svg(names: Sequence[str], placed: Map, edges: Sequence[Edge]) -> Html:
    """Models at their places, joined by the spanning tree. Labels stand where there is room; a hover shows all."""
    points, high = _fitted(placed.points)
    spots = _spots(points)
    lines = [
        tag(
            "path",
            tag("title", f"{names[edge.a]} ↔ {names[edge.b]}: {figure(edge.length)}"),
            d=f"M{points[edge.a, 0]:.1f} {points[edge.a, 1]:.1f}L{points[edge.b, 0]:.1f} {points[edge.b, 1]:.1f}",
            class_="set-edge",
        )
        for edge in edges
        if edge.length > 0
    ]
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    dots, labels = [], []
    for (x, y), places in spots.items():
        told = ", ".join(names[place] for place in places)
        dots.append(tag("circle", tag("title", told), cx=f"{x:.1f}", cy=f"{y:.1f}", r="5", class_="set-dot"))
        more = f" (+{len(places) - 1})" if len(places) > 1 else ""
        labels.append(_placed_label(label(names[places[0]], 34).short + more, x, y, taken, high))
    words = f"Map of {len(names)} models; stress {placed.stress:.3f}."
    return svg(WIDTH, high, words, *lines, *dots, *labels)


def _fitted(points: Floats) -> tuple[Floats, float]:
    """Into the picture, with one unit for both directions; and how high the picture must be."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([WIDTH - 2 * _MARGIN - 180, _HIGH - 2 * _MARGIN], dtype="<f8")
    span = high - low
    unit = min((room[axis] / span[axis] for axis in (0, 1) if span[axis] > 0), default=1.0)
    tall = float(span[1] * unit) + 2 * _MARGIN
    return (points - (low + high) / 2) * unit + np.array([WIDTH / 2, tall / 2]), tall


def _spots(points: Floats) -> dict[tuple[float, float], list[int]]:
    """Models at one place share a dot."""
    spots: dict[tuple[float, float], list[int]] = {}
    for place, (x, y) in enumerate(np.round(points, 0).tolist()):
        spots.setdefault((x, y), []).append(place)
    return spots


def _placed_label(words: str, x: float, y: float, taken: list[Box], high: float) -> Html:
    """The label right, left, below or above of its dot, wherever it covers nothing; nowhere if it always would."""
    wide = _LETTER * len(words)
    ways = (
        (x + 8, y + 4, "start", (x + 7, y - 7, x + 8 + wide, y + 7)),
        (x - 8, y + 4, "end", (x - 8 - wide, y - 7, x - 7, y + 7)),
        (x, y + 18, "middle", (x - wide / 2, y + 7, x + wide / 2, y + 21)),
        (x, y - 10, "middle", (x - wide / 2, y - 21, x + wide / 2, y - 7)),
    )
    for left, base, anchor, box in ways:
        inside = box[0] >= 2 and box[2] <= WIDTH - 2 and box[1] >= 2 and box[3] <= high - 2
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return tag("text", words, x=f"{left:.1f}", y=f"{base:.1f}", text_anchor=anchor)
    return EMPTY


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def line_svg(names: Sequence[str], distances: Sequence[float], first: str) -> Html:
    """The distance of each model to the first one, in the order of the files; a model without one has no point."""
    most = max((value for value in distances if value == value), default=0.0) or 1.0
    room = WIDTH - LABELS - 90
    points = [
        (LABELS + room * value / most, ROW * (row + 1.0)) for row, value in enumerate(distances) if value == value
    ]
    path = Html("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points))
    dots, labels = [], []
    for row, (name, value) in enumerate(zip(names, distances, strict=True)):
        y = ROW * (row + 1.0)
        labels.append(row_label(name, LABELS - 8, y))
        if value == value:
            x = LABELS + room * value / most
            dots.append(
                tag(
                    "circle",
                    tag("title", f"{name}: {figure(value)}"),
                    cx=f"{x:.1f}",
                    cy=f"{y:g}",
                    r="3.5",
                    class_="set-dot",
                )
            )
            labels.append(
                tag("text", figure(value), x=f"{x + 8:.1f}", y=f"{y:g}", dominant_baseline="middle", class_="set-soft")
            )
    words = f"Distance of {len(names)} models to {first}."
    return svg(WIDTH, ROW * (len(names) + 1), words, tag("path", d=path, class_="set-edge"), *dots, *labels)
