"""Pictures of a measured set as PNG, by matplotlib: ours, and the two that the published tool draws."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.matrix.graphs import Join, dendrogram, families, filled, leaves, spanning_tree
from lib_toolkit.analysis.matrix.results import GroupResult
from lib_toolkit.analysis.matrix.scaling import scaled, spectral
from lib_toolkit.reports.compare_png import need_matplotlib
from lib_toolkit.reports.matrix_png_labels import Labels
from lib_toolkit.reports.matrix_published import edge_weights
from lib_toolkit.reports.matrix_svg import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lib_toolkit.analysis.matrix.sums import Floats

_BLUE, _GREY, _PAPER = "#3f63d2", "#9aa1ae", "#f7f7f9"
_HATCH = "////"
_NO_DISTANCE = "no distance (matrix.json says why)"
_LABELLED = 60
"""Models up to which distances stand at the edges of the graph."""

_CUT = 10


def pictures(group: GroupResult, names: Sequence[str]) -> dict[str, bytes]:
    """Heat map, dendrogram, graph, map and line of the largest family of models that can be compared, by name.

    Nothing where no two models can. Raises UsageError where matplotlib is not installed.
    """
    every = families(group.l2)
    if not every or len(every[0]) < 2:
        return {}
    family = every[0]
    apart = filled(group.l2, family)
    known = group.figures("l2")[np.ix_(family, family)]
    own = [label(names[place], 34).short for place in family]
    joins = dendrogram(apart)
    high = 2.5 + 0.17 * len(own)
    title = f"{group.group.title}: distance (L2)"
    drawers: dict[str, tuple[float, float, Callable[[Axes], None]]] = {
        "heatmap": (min(30.0, 3 + high), min(30.0, high), lambda axes: _heat(axes, known, own, joins)),
        "dendrogram": (11, high, lambda axes: _branches(axes, own, joins)),
        "graph": (12, 9, lambda axes: _graph(axes, apart, own, edges=True)),
        "map": (12, 9, lambda axes: _graph(axes, apart, own, edges=False)),
        "line": (max(8.0, 1 + 0.2 * len(own)), 6, lambda axes: _line(axes, known[0], own)),
    }
    made = {}
    for name, (wide, tall, draw) in drawers.items():
        picture, axes = _figure(wide, tall)
        axes.set_title(title)
        draw(axes)
        made[name] = _bytes(picture)
    return made


def published_pictures(
    matrix: Floats, names: Sequence[str], component: str, group: str, metric: str
) -> dict[str, bytes]:
    """The published pictures of one component: ``vg``, all pairs as a graph in spectral layout by 1/distance, and
    ``xy``, the distances to the first model. Without any distance there is no graph, as there."""
    weights = edge_weights(matrix)
    words = f"{metric.upper()} Distance of {component.upper()} in model group {group}"
    made = {}
    if weights.any():
        picture, axes = _figure(16, 12)
        # Only models with an edge are in the published graph.
        linked = np.flatnonzero(weights.any(axis=1))
        points = spectral(weights[np.ix_(linked, linked)])
        for a in range(len(linked)):
            for b in range(a + 1, len(linked)):
                apart = matrix[linked[a], linked[b]]
                if apart > 0:
                    axes.plot(*points[[a, b]].T, color=_GREY, linewidth=0.6, zorder=1)
                    axes.text(*_middle(points, a, b), f"{apart:.4f}", fontsize=6)
        axes.scatter(*points.T, color=_BLUE, zorder=2)
        for (x, y), place in zip(points, linked, strict=True):
            axes.text(x, y, label(names[int(place)], 80).short, fontsize=8, parse_math=False)
        axes.set_title(words, parse_math=False)
        axes.set_axis_off()
        made["vg"] = _bytes(picture)
    picture, axes = _figure(16, 12)
    # Places, not names, stand on the axis: names that begin alike stay apart.
    axes.plot(range(len(names)), matrix[0], marker="o", color=_BLUE)
    _ticks(axes, [name[:_CUT] for name in names])
    axes.set_ylabel(metric.upper())
    axes.set_title(words, parse_math=False)
    made["xy"] = _bytes(picture)
    return made


def _heat(axes: Axes, known: Floats, names: Sequence[str], joins: Sequence[Join]) -> None:
    """Only distances that may be told have a colour: 0 is that of equal models alone."""
    from matplotlib.patches import Patch

    order = leaves(joins, len(names))
    apart = np.ma.masked_invalid(known[np.ix_(order, order)])
    image = axes.imshow(apart, cmap="viridis", vmin=0.0)
    axes.figure.colorbar(image, ax=axes, shrink=0.7)
    if np.ma.is_masked(apart):
        axes.patch.set(facecolor=_PAPER, edgecolor=_GREY, hatch=_HATCH, linewidth=0)
        shown = Patch(facecolor=_PAPER, edgecolor=_GREY, hatch=_HATCH, linewidth=0, label=_NO_DISTANCE)
        axes.legend(handles=[shown], loc="upper left", bbox_to_anchor=(0.0, 0.0), frameon=False, fontsize=7)
    axes.set_yticks(range(len(order)), [names[place] for place in order], fontsize=7, parse_math=False)
    axes.set_xticks([])


def _branches(axes: Axes, names: Sequence[str], joins: Sequence[Join]) -> None:
    order = leaves(joins, len(names))
    places = [(0.0, 0.0)] * len(names)
    for row, place in enumerate(order):
        places[place] = (0.0, float(row))
    for join in joins:
        (near, low), (far, high) = places[join.left], places[join.right]
        axes.plot([near, join.height, join.height, far], [low, low, high, high], color=_BLUE, linewidth=1)
        places.append((join.height, (low + high) / 2))
    axes.set_yticks(range(len(order)), [names[place] for place in order], fontsize=7, parse_math=False)
    axes.invert_yaxis()


def _graph(axes: Axes, apart: Floats, names: Sequence[str], edges: bool) -> None:
    """Models at their places, with ``edges`` joined by the spanning tree; names, those in the middle of all first, and
    distances stand where they cover nothing."""
    placed = scaled(apart)
    joined = spanning_tree(apart) if edges else []
    for edge in joined:
        axes.plot(*placed.points[[edge.a, edge.b]].T, color=_GREY, linewidth=1, zorder=1)
    axes.scatter(placed.points[:, 0], placed.points[:, 1], color=_BLUE, s=24, zorder=2)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)  # room for the names of the outermost
    axes.set_xlabel(f"stress {placed.stress:.3f}")
    labels = Labels(axes, placed.points)
    labels.names(placed.points, names, np.argsort(apart.sum(axis=1), kind="stable").tolist())
    for edge in joined if len(names) <= _LABELLED else []:
        if edge.length > 0:
            labels.at(_middle(placed.points, edge.a, edge.b), f"{edge.length:.4g}")


def _middle(points: Floats, a: int, b: int) -> tuple[float, float]:
    """Half-way between two points."""
    x, y = points[[a, b]].mean(axis=0).tolist()
    return x, y


def _line(axes: Axes, distances: Floats, names: Sequence[str]) -> None:
    """Models without a distance have no point, and the line goes on over them."""
    known = np.flatnonzero(np.isfinite(distances))
    axes.plot(known, distances[known], marker="o", color=_BLUE, markersize=4)
    axes.set_xlim(-0.5, len(names) - 0.5)
    _ticks(axes, names)
    axes.set_ylabel("distance to the first")


def _ticks(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), list(names), rotation=90, fontsize=7, parse_math=False)


def _figure(wide: float, tall: float) -> tuple[Figure, Axes]:
    """A figure without a window or any state that outlives it."""
    need_matplotlib()
    from matplotlib.figure import Figure

    picture = Figure(figsize=(wide, tall), dpi=100, layout="constrained")
    return picture, picture.add_subplot()


def _bytes(picture: Figure) -> bytes:
    data = io.BytesIO()
    picture.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
