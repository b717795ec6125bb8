"""A third model's places between two, as data and as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lib_toolkit.analysis.compare.places import Placed, Third
from lib_toolkit.analysis.compare.verdicts import percent

HEAD = ("part", "tensors", "ratio", "off the line", "rounding explains", "angle", "turn")
"""What the rows hold: the residual and its bound as shares of ‖A−B‖; angles in degrees."""

EXPLAINED = (
    "Ratio: 0 at A, 1 at B. Off the line: the way from M to the line through A and B, as a share of ‖A−B‖. "
    "Angle: between M−A and B−A. Turn: between the steps from A to M and from M to B."
)


def third_json(third: Third) -> dict[str, object]:
    """The places as plain dicts, lists, strings, numbers and None, without the model itself."""
    return {
        "components": [_place(one) for one in third.components],
        "merge_blocks": [_place(one) for one in third.merge_blocks],
    }


def third_rows(places: Sequence[Placed]) -> list[tuple[str, ...]]:
    """A row for each place, as HEAD says."""
    return [
        (
            one.name,
            f"{one.tensors:,}",
            "–" if one.position.ratio is None else f"{round(one.position.ratio, 4) + 0.0:.4f}",  # no −0
            _share(one.position.residual, one.position.distance),
            _share(one.position.bound, one.position.distance),
            _degrees(one.position.angle),
            _degrees(one.position.turn),
        )
        for one in places
    ]


def _place(one: Placed) -> dict[str, object]:
    place = one.position
    return {
        "component": one.component or None,
        "name": one.name,
        "tensors": one.tensors,
        "ratio": _finite(place.ratio),
        "residual": _finite(place.residual),
        "bound": _finite(place.bound),
        "angle": place.angle,
        "turn": place.turn,
        "distance": _finite(place.distance),
        "from_a": _finite(place.from_a),
        "from_b": _finite(place.from_b),
        "mixed": place.mixed,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _share(length: float, distance: float) -> str:
    return percent(length / distance) if distance else "–"


def _degrees(angle: float | None) -> str:
    return "–" if angle is None else f"{angle:.1f}°"
