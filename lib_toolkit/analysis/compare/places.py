"""Where a third model lies as seen from two, by the law of cosines out of three distances.

With a = ‖M−A‖², b = ‖M−B‖² and d = ‖B−A‖² the nearest point of the line through A and B is (1−r)A + rB with
r = (a + d − b) / 2d; what is left, ‖M − (1−r)A − rB‖², is (1−r)·a + r·b − r(1−r)·d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lib_toolkit.analysis.compare.rounding import copies, lost
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model

PAIR_SHARE = 0.25
"""The largest residual of a mix of two, as a share of the way to the nearer: however coarse the type, what is further
off was changed otherwise."""

_NEAR = 0.5
"""The same for what is told as a mix and more."""

_LEAST_RATIO = 1e-4


@dataclass(frozen=True, slots=True)
class Position:
    """M as seen from A and B.

    ``ratio``: 0 at A, 1 at B, None where A and B are one. ``residual``: distance from the line through both (from A,
    where they are one), ``bound`` the most of it that rounding explains; ``distance`` = ‖B−A‖, ``from_a`` = ‖M−A‖,
    ``from_b`` = ‖M−B‖. Angles in degrees, None where a vector is zero: ``angle`` between M−A and B−A, ``turn`` between
    the steps from A to M and from M to B (0: straight on). ``copy_of``: 0 or 1 where M is A or B, but for rounding.
    """

    ratio: float | None
    residual: float
    bound: float
    distance: float
    from_a: float
    from_b: float
    angle: float | None = None
    turn: float | None = None
    copy_of: int | None = None

    @property
    def off(self) -> float | None:
        """The residual as a share of ‖B−A‖."""
        return self.residual / self.distance if self.distance else None

    @property
    def nearest(self) -> float:
        """The way to the nearer of A and B."""
        return min(self.from_a, self.from_b)

    @property
    def exact(self) -> bool:
        """Whether M is A or B in every bit that counts."""
        return self.nearest == 0

    @property
    def between(self) -> bool:
        return self.ratio is not None and _LEAST_RATIO < self.ratio < 1 - _LEAST_RATIO

    @property
    def on_line(self) -> bool:
        """Whether rounding explains why M is not on the line."""
        return self.ratio is not None and self.residual <= min(self.bound, PAIR_SHARE * self.nearest)

    @property
    def mixed(self) -> bool:
        """Whether M is made of both, and of nothing else."""
        return self.copy_of is None and self.between and self.on_line

    @property
    def nearly_mixed(self) -> bool:
        """Whether most of the way from the nearer of A and B to M goes along the line."""
        return self.copy_of is None and self.between and self.residual <= _NEAR * self.nearest


@dataclass(frozen=True)
class Placed:
    """A component, or a merge block, of M. ``tensors``: how many of it are in all three and were measured."""

    component: str
    name: str
    tensors: int
    position: Position


@dataclass(frozen=True)
class Third:
    """The third model, and where its components and its merge blocks lie."""

    model: Model
    found: Identification
    components: tuple[Placed, ...]
    merge_blocks: tuple[Placed, ...]


def position(
    to_b: float, to_m: float, m_to_b: float, rounding: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Position:
    """The position from the squared distances ‖B−A‖², ‖M−A‖² and ‖M−B‖², and the longest errors that storing A, B and
    M can have made."""
    ratio = (to_m + to_b - m_to_b) / (2 * to_b) if to_b else None
    share = ratio or 0.0
    square = (1 - share) * to_m + share * m_to_b - share * (1 - share) * to_b
    stored = rounding[2] + abs(1 - share) * rounding[0] + abs(share) * rounding[1]
    unsure = float(lost(np.float64(min(to_m, m_to_b)), np.float64(max(to_m, m_to_b, to_b))))
    return Position(
        ratio=ratio,
        residual=math.sqrt(max(0.0, square)),
        bound=math.sqrt(stored * stored + unsure),
        distance=math.sqrt(to_b),
        from_a=math.sqrt(to_m),
        from_b=math.sqrt(m_to_b),
        angle=_degrees(to_m, to_b, m_to_b),
        turn=None if (inner := _degrees(to_m, m_to_b, to_b)) is None else 180 - inner,
        copy_of=_copy_of((to_m, m_to_b), rounding),
    )


def _degrees(one: float, other: float, opposite: float) -> float | None:
    """The angle between two sides of a triangle of squared lengths."""
    if not one or not other:
        return None
    cosine = (one + other - opposite) / (2 * math.sqrt(one) * math.sqrt(other))
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


def _copy_of(squares: tuple[float, float], rounding: tuple[float, float, float]) -> int | None:
    """The nearer of the two, where M is the same or a copy at another precision."""
    place = 0 if squares[0] <= squares[1] else 1
    distance, own, other = (np.float64(x) for x in (math.sqrt(squares[place]), rounding[2], rounding[place]))
    return place if not squares[place] or bool(copies(distance, own, other)) else None
