"""A third model beside two: which of its components are theirs, which are mixed of both, and which are others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from lib_toolkit.analysis.compare.alignment import WEIGHT, Alignment, Row, align, title_of
from lib_toolkit.analysis.compare.measures import Measures, together
from lib_toolkit.analysis.compare.pairs import aligned_bytes, compare, compare_aligned
from lib_toolkit.analysis.compare.places import Placed, Third, position
from lib_toolkit.analysis.compare.results import Comparison, merge_block_order
from lib_toolkit.analysis.compare.third_verdicts import third_verdicts
from lib_toolkit.analysis.compare.verdicts import verdicts
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.progress import SILENT, Portion, Progress

Triple = tuple[Measures, Measures, Measures]
"""A tensor of all three: A to B, A to M, M to B."""

_PAIRS = ((0, 1), (0, 2), (2, 1))
"""The same, by the places of the models."""


def compare_with_third(
    models: tuple[Model, Model, Model],
    found: tuple[Identification, Identification, Identification],
    progress: Progress = SILENT,
    workers: int | None = None,
) -> Comparison:
    """Compare A and B, and say of each component and merge block where the third model's lies; each file is read once,
    A and B once more where M stores in pieces what they store as one.

    The comparison's ``third`` holds the places, its verdicts tell of them. Raises as ``compare`` does.
    """
    aligned, alone = align(models, found), align(models[:2], found[:2])
    if _names(alone) == _names(aligned):
        pair, to_m, m_to_b = compare_aligned(aligned, _PAIRS, progress, workers)
        triples = _triples((pair, to_m, m_to_b))
        pair = replace(pair, verdicts=verdicts(pair))
    else:
        sizes = aligned_bytes(aligned, _PAIRS), aligned_bytes(alone, _PAIRS[:1])
        progress.start("comparing", sum(sizes))
        first, second = (Portion(progress, size) for size in sizes)
        whole, to_m, m_to_b = compare_aligned(aligned, _PAIRS, first, workers)
        triples = _triples((whole, to_m, m_to_b))
        pair = compare(models[:2], found[:2], second, workers=workers)
    third = Third(
        model=models[2],
        found=found[2],
        components=tuple(
            replace(place, component=place.name, name=title_of(place.name))
            for place in _placed(triples, lambda row: row.component)
        ),
        merge_blocks=tuple(
            sorted(_placed(triples, lambda row: row.merge_block), key=lambda place: merge_block_order(place.name))
        ),
    )
    return replace(pair, third=third, verdicts=(*pair.verdicts, *third_verdicts(third, pair, to_m, m_to_b)))


def _names(aligned: Alignment) -> set[tuple[str | None, str]]:
    """The rows of A and B."""
    return {(row.component, row.key) for row in aligned.rows if any(cell is not None for cell in row.cells[:2])}


def _triples(pairs: Sequence[Comparison]) -> list[tuple[Row, Triple]]:
    """The weights that all three have and that are numbers throughout: only those are in one space."""
    by_name = [{(one.row.component, one.row.key): one for one in pair.compared} for pair in pairs]
    found = []
    for name, one in by_name[0].items():
        if one.row.kind != WEIGHT or not all(name in table for table in by_name):
            continue
        first, second, third = (table[name].measures for table in by_name)
        if not (first.left_out or second.left_out or third.left_out):
            found.append((one.row, (first, second, third)))
    return found


def _placed(triples: Sequence[tuple[Row, Triple]], name_of: Callable[[Row], str | None]) -> list[Placed]:
    groups: dict[str, list[Triple]] = {}
    for row, triple in triples:
        name = name_of(row)
        if name is not None:
            groups.setdefault(name, []).append(triple)
    return [_place(name, members) for name, members in groups.items()]


def _place(name: str, members: Sequence[Triple]) -> Placed:
    to_b, to_m, m_to_b = (together(one) for one in zip(*members, strict=True))
    a, b, m = (math.sqrt(square) for square in (to_b.a_rounding, to_b.b_rounding, to_m.b_rounding))
    return Placed("", name, len(members), position(to_b.l2_squared, to_m.l2_squared, m_to_b.l2_squared, (a, b, m)))
