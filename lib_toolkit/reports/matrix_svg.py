"""Heat map and dendrogram of a family of models as SVG, and what all pictures of sets share.

Every model has a row of its own where there are labels, so that they never pile up, be it three models or two hundred.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.matrix.graphs import Join, leaves
from lib_toolkit.analysis.matrix.sources import ENDINGS
from lib_toolkit.reports.html import EMPTY, Html, tag
from lib_toolkit.reports.plain import printable

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Floats

ROW = 15
LABELS = 270
WIDTH = 900
_LONGEST = 42
_DRAWN = 60
"""Up to so many models each cell of the heat map is a shape of its own; beyond, the map is one picture."""

_STOPS = ((0.0, (38, 34, 92)), (0.35, (43, 110, 142)), (0.7, (84, 184, 137)), (1.0, (246, 224, 94)))
_EQUAL = (16, 16, 28)


@dataclass(frozen=True)
class Label:
    """What a row is called: ``short`` fits beside a picture, ``whole`` is for a hover."""

    short: str
    whole: str


def label(name: str, longest: int = _LONGEST) -> Label:
    """A name without its ending, cut before its middle: names of a series differ in their later parts."""
    whole = printable(name)
    stem = whole
    while (cut := stem.rpartition(".")) and f".{cut[2].lower()}" in ENDINGS and cut[0]:
        stem = cut[0]
    if len(stem) <= longest:
        return Label(stem, whole)
    tail = longest * 3 // 5
    return Label(f"{stem[: longest - tail - 1]}…{stem[-tail:]}", whole)


def figure(value: float) -> str:
    """A distance as pictures show it."""
    return f"{value:.5g}" if math.isfinite(value) else "none"


def svg(width: float, height: float, words: str, *children: str, **more: str | None) -> Html:
    """A picture that scales down with the page; ``words`` say what it shows to those who cannot see it."""
    given: dict[str, str | None] = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "class_": "set-picture"}
    size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    return tag("svg", *children, **given, **size, font_size="11", fill="currentColor", aria_label=words, **more)


def row_label(name: str, x: float, y: float, number: str = "") -> Html:
    """The label of a row, which ends at ``x``; a hover shows the whole name."""
    own = label(name)
    words = f"{own.short}  {number}" if number else own.short
    title = tag("title", own.whole)
    return tag("text", title, words, x=f"{x:g}", y=f"{y:g}", text_anchor="end", dominant_baseline="middle")


def heat_map(names: Sequence[str], apart: Floats, identity: str) -> Html:
    """Distances as colours, rows and columns in the order given; ``identity`` is that of the data for the script."""
    count = len(names)
    cell = max(3.6, min(34.0, 600 / count)) if count > _DRAWN else max(ROW, min(34, 600 // count))
    labelled = count <= _DRAWN
    left, top = (LABELS, 22.0) if labelled else (26.0, 22.0)
    most = float(np.nanmax(apart, initial=0.0)) or 1.0
    cells = _cells(names, apart, most, cell, left, top) if labelled else [_picture(apart, most, cell, left, top)]
    side = cell * count
    words = f"Heat map of the distances of {count} models, the farthest {figure(most)} apart."
    return svg(
        left + max(side, 470) + 10,
        top + side + 34,
        words,
        tag("rect", x=f"{left:g}", y=f"{top:g}", width=f"{side:g}", height=f"{side:g}", class_="set-none"),
        *cells,
        *_ticks(names, cell, left, top, labelled),
        _scale(most, left, top + side + 12),
        data_heat=identity,
        data_cell=f"{cell:g}",
        data_left=f"{left:g}",
        data_top=f"{top:g}",
    )


def heat_data(names: Sequence[str], apart: Floats) -> dict[str, object]:
    """What the page's script says of a heat map: names, and the lower triangle of distances in five digits."""
    rows = [
        [float(f"{value:.5g}") if math.isfinite(value) else None for value in row[: place + 1]]
        for place, row in enumerate(apart.tolist())
    ]
    return {"names": [printable(name) for name in names], "rows": rows}


def _cells(names: Sequence[str], apart: Floats, most: float, cell: float, left: float, top: float) -> list[Html]:
    made = []
    for row, column in np.argwhere(~np.isnan(apart)):
        value = float(apart[row, column])
        words = f"{names[row]} ↔ {names[column]}: {figure(value)}"
        at = {
            "x": f"{left + cell * column:g}",
            "y": f"{top + cell * row:g}",
            "width": f"{cell:g}",
            "height": f"{cell:g}",
        }
        shown = EMPTY if row == column else tag("title", words)
        made.append(tag("rect", shown, fill=f"#{bytes(_colour(value, most)).hex()}", **at))
    return made


def _picture(apart: Floats, most: float, cell: float, left: float, top: float) -> Html:
    """All cells as one PNG with a pixel for each; cells without a figure are left transparent."""
    pixels = bytearray()
    for row in apart.tolist():
        pixels.append(0)
        for value in row:
            pixels += bytes((*_colour(value, most), 255)) if math.isfinite(value) else bytes(4)
    data = base64.b64encode(_png(len(apart), bytes(pixels))).decode()
    side = f"{cell * len(apart):g}"
    return tag(
        "image",
        href=Html(f"data:image/png;base64,{data}"),
        x=f"{left:g}",
        y=f"{top:g}",
        width=side,
        height=side,
        style="image-rendering:pixelated",
        preserveAspectRatio="none",
    )


def _png(side: int, rows: bytes) -> bytes:
    """A square picture; ``rows``: for each a zero (no filter) and RGBA pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def _colour(value: float, most: float) -> tuple[int, int, int]:
    """Dark for near, bright for far; equal models are darkest of all."""
    if value == 0:
        return _EQUAL
    share = min(1.0, value / most)
    for (start, low), (end, high) in pairwise(_STOPS):
        if share <= end:
            part = (share - start) / (end - start)
            red, green, blue = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
            return red, green, blue
    return _STOPS[-1][1]


def _ticks(names: Sequence[str], cell: float, left: float, top: float, labelled: bool) -> list[Html]:
    """A label for each row and its number above the column; of many models only every tenth number."""
    made = []
    for place, name in enumerate(names):
        middle = cell * (place + 0.5)
        if labelled:
            made.append(row_label(name, left - 6, top + middle, str(place + 1)))
        elif (place + 1) % 10 == 0:
            made.append(tag("text", str(place + 1), x=f"{left - 4:g}", y=f"{top + middle + 4:g}", text_anchor="end"))
        if labelled or (place + 1) % 10 == 0:
            number = tag("title", name), str(place + 1)
            made.append(tag("text", *number, x=f"{left + middle:g}", y=f"{top - 6:g}", text_anchor="middle"))
    return made


def _scale(most: float, left: float, y: float) -> Html:
    steps = [
        tag(
            "rect",
            x=f"{left + 12 * step:g}",
            y=f"{y:g}",
            width="12",
            height="12",
            fill=f"#{bytes(_colour(most * step / 15, most)).hex()}",
        )
        for step in range(16)
    ]
    words = f"0 (equal) to {figure(most)}; left blank: not comparable"
    return tag("g", *steps, tag("text", words, x=f"{left + 200:g}", y=f"{y + 10:g}"))


def dendrogram_svg(names: Sequence[str], joins: Sequence[Join]) -> Html:
    """Branches that join where the average distance between them is; a hover on a join says it."""
    count = len(names)
    order = leaves(joins, count)
    most = max((join.height for join in joins), default=0.0) or 1.0
    room = WIDTH - LABELS - 90
    places: list[tuple[float, float]] = [(0.0, 0.0)] * count
    for row, place in enumerate(order):
        places[place] = (LABELS, ROW * (row + 1))
    lines = []
    for join in joins:
        (near, low), (far, high) = places[join.left], places[join.right]
        x = LABELS + room * join.height / most
        path = f"M{near:.1f} {low:.1f}H{x:.1f}V{high:.1f}H{far:.1f}"
        lines.append(tag("path", tag("title", f"join at {figure(join.height)}"), d=path, class_="set-line"))
        places.append((x, (low + high) / 2))
    labels = [row_label(names[place], LABELS - 6, ROW * (row + 1)) for row, place in enumerate(order)]
    height = ROW * (count + 1) + 26
    axis = [
        tag("text", figure(most * part), x=f"{LABELS + room * part:g}", y=f"{height - 8:g}", text_anchor="middle")
        for part in (0.0, 0.5, 1.0)
    ]
    return svg(WIDTH, height, f"Dendrogram of {count} models by average distance.", *lines, *labels, *axis)
