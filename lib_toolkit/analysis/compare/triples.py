"""Where a third model lies as seen from two: on the line between them (a mix), at which ratio, or off it.

Everything follows from the three distances of a component, by the law of cosines. With d = ‖B−A‖ and M the third:
ratio r = (‖M−A‖² + d² − ‖M−B‖²) / 2d², residual ‖M−A−r(B−A)‖ = √(‖M−A‖² − r²d²).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lib_toolkit.analysis.compare.pairs import compare_pairs
from lib_toolkit.analysis.compare.results import Comparison
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.progress import SILENT, Progress

_ON_THE_LINE = 0.05
"""Residual, as a share of d, up to which a model is called a mix; unrelated ones are off by about d."""

_CLEARLY = 0.005
"""Ratios nearer to 0 or 1 than this are the parent itself, as far as a sentence goes."""


@dataclass(frozen=True, slots=True)
class Position:
    """M as seen from A and B. ``ratio``: 0 at A, 1 at B; ``residual``: distance from the line, as a share of ‖B−A‖;
    ``angle`` in degrees between the steps A→M and M→B (0: straight on), None where one of them is none."""

    ratio: float
    residual: float
    angle: float | None

    @property
    def mixed(self) -> bool:
        """Whether M is made of both."""
        return self.residual <= _ON_THE_LINE and _CLEARLY < self.ratio < 1 - _CLEARLY


def position(to_b: float, to_m: float, m_to_b: float) -> Position | None:
    """The position from the squared distances ‖B−A‖², ‖M−A‖² and ‖M−B‖²; None where A and B are one."""
    if not to_b:
        return None
    ratio = (to_m + to_b - m_to_b) / (2 * to_b)
    residual = math.sqrt(max(0.0, to_m - ratio * ratio * to_b) / to_b)
    angle = None
    if to_m and m_to_b:
        cosine = (to_b - to_m - m_to_b) / (2 * math.sqrt(to_m) * math.sqrt(m_to_b))
        angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    return Position(ratio, residual, angle)


def compare_with_third(
    models: tuple[Model, Model, Model],
    found: tuple[Identification, Identification, Identification],
    progress: Progress = SILENT,
    workers: int | None = None,
) -> tuple[Comparison, Mapping[str, Position]]:
    """Compare A and B, and say of each component where the third model's lies; each file is read once.

    The verdicts of the comparison tell of mixes. Raises as ``compare_pairs`` does.
    """
    pair, to_m, m_to_b = compare_pairs(models, found, ((0, 1), (0, 2), (2, 1)), progress, workers)
    squares = [
        {group.component: group.measures.l2_squared for group in one.by_component()} for one in (pair, to_m, m_to_b)
    ]
    titles = {group.component: group.name for group in pair.by_component()}
    places = {
        name: place
        for name in titles
        if name in squares[1]
        and name in squares[2]
        and (place := position(*(one[name] for one in squares))) is not None
    }
    sentences = [_sentence(titles[name], place, models[2].name) for name, place in places.items()]
    return replace(pair, verdicts=(*pair.verdicts, *sentences)), places


def _sentence(title: str, place: Position, name: str) -> str:
    if place.mixed:
        return (
            f"The {title} of {name} is mixed of A's and B's: {100 * place.ratio:.1f} % of B "
            f"(off the line by {100 * place.residual:.2g} % of ‖A−B‖)."
        )
    if place.residual <= _ON_THE_LINE:
        for parent, at in (("A", 0.0), ("B", 1.0)):
            if abs(place.ratio - at) <= _CLEARLY:
                return f"The {title} of {name} is that of {parent}."
        return f"The {title} of {name} lies on the line of A's and B's, beyond them (ratio {place.ratio:.3f})."
    off = f"{100 * place.residual:.0f} % of ‖A−B‖"
    return f"The {title} of {name} is no mix of A's and B's: it is off their line by {off}."
