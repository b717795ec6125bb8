"""Trees out of distances: the minimum spanning tree, and the dendrogram by average linkage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Floats


@dataclass(frozen=True, slots=True)
class Edge:
    """Two models and their distance."""

    a: int
    b: int
    length: float


@dataclass(frozen=True, slots=True)
class Join:
    """Two branches become one at ``height``. Branches below the number of models are models, others earlier joins."""

    left: int
    right: int
    height: float


def families(distances: Floats) -> list[list[int]]:
    """Models that can be compared with each other, directly or by way of others; the largest family first.

    ``distances``: symmetric, NaN where there is none, also on the diagonal of models that take no part.
    """
    left = [place for place in range(len(distances)) if not np.isnan(distances[place, place])]
    found = []
    while left:
        family, waiting = {left[0]}, [left[0]]
        while waiting:
            place = waiting.pop()
            new = [other for other in left if other not in family and not np.isnan(distances[place, other])]
            family.update(new)
            waiting += new
        found.append(sorted(family))
        left = [place for place in left if place not in family]
    return sorted(found, key=lambda family: (-len(family), family[0]))


def filled(distances: Floats, family: Sequence[int]) -> Floats:
    """The distances of a family; two members that cannot be compared count as far apart as the farthest."""
    own: Floats = distances[np.ix_(family, family)].copy()
    own[np.isnan(own)] = np.nanmax(own, initial=0.0)
    return own


def spanning_tree(distances: Floats) -> list[Edge]:
    """The edges of least total length that join all (Prim's method), the shortest first."""
    count = len(distances)
    if not count:
        return []
    parent = np.zeros(count, dtype=np.intp)
    reach = distances[0].copy()
    waiting = np.ones(count, dtype=bool)
    waiting[0] = False
    edges = []
    while waiting.any():
        place = int(np.argmin(np.where(waiting, reach, np.inf)))
        edges.append(Edge(int(parent[place]), place, float(reach[place])))
        waiting[place] = False
        closer = distances[place] < reach
        reach[closer] = distances[place][closer]
        parent[closer] = place
    return sorted(edges, key=lambda edge: (edge.length, edge.a, edge.b))


def dendrogram(distances: Floats) -> list[Join]:
    """The joins of average linkage, the lowest first: branches whose models are nearest on average become one."""
    count = len(distances)
    apart = distances.astype("<f8")
    np.fill_diagonal(apart, np.inf)
    sizes = np.ones(count)
    names = list(range(count))
    joins = []
    for step in range(count - 1):
        a, b = sorted(int(one) for one in np.unravel_index(int(np.argmin(apart)), apart.shape))
        joins.append(Join(names[a], names[b], float(apart[a, b])))
        together = (sizes[a] * apart[a] + sizes[b] * apart[b]) / (sizes[a] + sizes[b])
        apart[a], apart[:, a] = together, together
        apart[a, a] = np.inf
        apart[b], apart[:, b] = np.inf, np.inf
        sizes[a] += sizes[b]
        names[a] = count + step
    return joins


def leaves(joins: Sequence[Join], count: int) -> list[int]:
    """The models from one end of the dendrogram to the other, so that branches do not cross."""
    below: list[list[int]] = [[place] for place in range(count)]
    for join in joins:
        below.append(below[join.left] + below[join.right])
    return below[-1] if below else []
