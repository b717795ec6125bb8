"""Words beside the points of a matplotlib picture, each only where it covers nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    from lib_toolkit.analysis.matrix.sums import Floats

_WAYS = ((6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 6, "center", "bottom"), (0, -6, "center", "top"))
"""Where a label goes, seen from its point, in points: right, left, above, below."""

_DOT = 4.0
"""Pixels that a point takes on each side."""


class Labels:
    """The room of a picture whose lines and points are all drawn. Pixels are those of the picture's own resolution."""

    def __init__(self, axes: Axes, points: Floats) -> None:
        """Lay the picture out; ``points`` (in data units) are kept free."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.transforms import Bbox

        self._axes = axes
        picture = axes.figure
        assert isinstance(picture, Figure)
        self._renderer = FigureCanvasAgg(picture).get_renderer()
        picture.draw_without_rendering()
        self._inside = axes.get_window_extent(self._renderer)
        pixels = axes.transData.transform(points)
        self._taken: list[Bbox] = [Bbox([(x - _DOT, y - _DOT), (x + _DOT, y + _DOT)]) for x, y in pixels]

    def names(self, points: Floats, names: Sequence[str], order: Iterable[int]) -> None:
        """Name as many points as there is room for, the first of ``order`` first; points in one place share a label."""
        places: dict[tuple[float, float], list[int]] = {}
        for place in order:
            x, y = np.round(self._axes.transData.transform(points[place])).tolist()
            places.setdefault((x, y), []).append(place)
        for together in places.values():
            more = f" (+{len(together) - 1})" if len(together) > 1 else ""
            for x, y, across, up in _WAYS:
                words = self._axes.annotate(
                    names[together[0]] + more,
                    points[together[0]],
                    (x, y),
                    textcoords="offset points",
                    fontsize=7,
                    ha=across,
                    va=up,
                    parse_math=False,
                )
                if self._keep(words):
                    break

    def at(self, point: tuple[float, float], words: str) -> None:
        """Words in the middle of a line, if there is room."""
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        self._keep(self._axes.text(*point, words, fontsize=6, color="#555", ha="center", va="center", bbox=paper))

    def _keep(self, words: Text) -> bool:
        """Whether the words cover nothing; they are taken away again where they do."""
        box = words.get_window_extent(self._renderer)
        inside = self._inside.x0 <= box.x0 and box.x1 <= self._inside.x1
        inside = inside and self._inside.y0 <= box.y0 and box.y1 <= self._inside.y1
        if not inside or box.count_overlaps(self._taken):
            words.remove()
            return False
        words.set_in_layout(False)
        self._taken.append(box)
        return True
