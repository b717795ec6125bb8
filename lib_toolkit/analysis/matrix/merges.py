"""Which models are merges of others, told from distances alone, for each component and each block.

M = (1−r)·A + r·B lies on the line from A to B: with a = ‖M−A‖², b = ‖M−B‖², d = ‖A−B‖² the nearest point of the line
has r = (a + d − b) / 2d, and the rest is ‖M − (1−r)A − rB‖² = (1−r)·a + r·b − r(1−r)·d. A model is called a merge
where that residual is explained by rounding and is small beside the way to the nearest parent.

The bound from rounding: each of the three was rounded when it was stored, by at most ρ (see ``compare.rounding``), so
that the residual is at most ρ(M) + (1−r)·ρ(A) + r·ρ(B). To it comes what the sums themselves lose.

All of this holds for distances over the same elements only. What is NaN or infinite in any model is therefore left out
for all of them, save that a model most of which is no numbers is left out itself. A model of which too little remains
is neither a merge nor a part of one, but cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.compare.places import PAIR_SHARE
from lib_toolkit.analysis.compare.rounding import copies, lost
from lib_toolkit.analysis.matrix.gains import MOSTLY
from lib_toolkit.analysis.matrix.hull import affine_weights, nearest_mixture, products

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

    from lib_toolkit.analysis.matrix.results import Flags, GroupResult
    from lib_toolkit.analysis.matrix.sums import Counts, Floats

    Places: TypeAlias = npt.NDArray[np.intp]

_SET_SHARE = 0.05
"""The residual's largest share of the way to the nearest parent, for more than two parents (PAIR_SHARE for two): an
average of many unrelated relatives comes near their common origin by chance, but never this near."""

_CLEARLY, _NO_WORSE = 0.7, 1.005
_LEAST_WEIGHT = 1e-4


@dataclass(frozen=True)
class Share:
    """What a block is made of. ``weights`` as in the merge; None where the parents are equal there."""

    block: str
    weights: tuple[float, ...] | None
    residual: float
    bound: float


@dataclass(frozen=True)
class Merge:
    """``model`` is the sum of ``parents`` × ``weights`` in ``component``; models count by their place in the set.

    ``residual`` = ‖model − mixture‖, ``bound`` the most that rounding explains, ``distance`` the way to the nearest
    parent. ``by_block``: every block has weights of its own; those of the whole are then the best for all at once.
    """

    component: str
    model: int
    parents: tuple[int, ...]
    weights: tuple[float, ...]
    residual: float
    bound: float
    distance: float
    by_block: bool = False
    blocks: tuple[Share, ...] = ()


@dataclass(frozen=True)
class _Space:
    """Squared distances, usable or NaN, each model's rounding and number of values that are no numbers, and which
    models hold the same values, but for the rounding of a coarser copy."""

    squared: Floats
    rounding: Floats
    gaps: Counts
    same: Flags


def find_merges(
    components: Sequence[GroupResult], blocks: Sequence[GroupResult], rank: Sequence[int] = ()
) -> tuple[Merge, ...]:
    """All merges of a set, by component and model. The blocks of the UNet are looked at one by one. Of models that are
    the same in a component, the one with the lowest ``rank`` stands for all.

    Noise schedules are computed, not trained: nothing is said of them.
    """
    found: list[Merge] = []
    for component in components:
        if component.group.id == "schedule":
            continue
        inner = [block for block in blocks if block.group.id != "BASE"] if component.group.id == "unet" else []
        found += _Search(component, inner, rank).merges()
    return tuple(found)


def rounded_copies(group: GroupResult) -> list[tuple[int, ...]]:
    """Models that hold the same values at different precisions, the first of each group among the finest."""
    space = _space(group)
    found = []
    for head in _heads(space, group.present):
        copies = [
            place for place in group.present if space.same[place, head] and _same_gaps(group.left_out, place, head)
        ]
        if any(space.squared[place, head] > 0 for place in copies):
            found.append((head, *(place for place in copies if place != head)))
    return found


def untold(group: GroupResult) -> list[int]:
    """Models of which nothing can be said: too many of their values are no numbers, in them or in others."""
    return [int(place) for place in np.flatnonzero(_blind(group))]


def _blind(group: GroupResult) -> Flags:
    return np.asarray(group.joint_left_out > MOSTLY * group.own_elements)


def _same_gaps(left_out: Counts, a: int, b: int) -> bool:
    """Whether two models have their NaN and infinite values in the same places."""
    return bool(left_out[a, b] == left_out[a, a] == left_out[b, b])


class _Search:
    """The merges of one component."""

    def __init__(self, component: GroupResult, blocks: Sequence[GroupResult], rank: Sequence[int]) -> None:
        self._id = component.group.id
        self._space = _space(component)
        self._blocks = [(block.group.id, _space(block)) for block in blocks]
        self._heads = _heads(self._space, component.present, rank)

    def merges(self) -> list[Merge]:
        pairs = {model: found for model in self._heads if (found := self._pair(model)) is not None}
        rest = [model for model in self._heads if model not in pairs]
        for model, pair in pairs.items():
            more = self._mixture(model, rest)
            # A third parent with a small share may hide behind the rounding of the two.
            if more is not None and more.residual < _CLEARLY * pair.residual - pair.lost:
                pairs[model] = more
        mixed = {model: found for model in rest if (found := self._mixture(model, rest)) is not None}
        # Merges may stand in for one another: what is said of them should be in terms of models that are none.
        origins = [model for model in rest if model not in mixed]
        for model, fit in mixed.items():
            again = self._mixture(model, origins) if set(fit.parents) & mixed.keys() else None
            pairs[model] = again or fit
        for model in rest:
            blockwise = None if model in mixed else self._by_block(model, rest)
            if blockwise is not None:
                pairs[model] = blockwise
        return [self._merge(pairs[model]) for model in sorted(pairs)]

    def _pair(self, model: int) -> _Fit | None:
        """The line on which the model lies; of several the longest, since its ends are no merges themselves."""
        others = np.array([place for place in self._heads if place != model], dtype=np.intp)
        if len(others) < 2:
            return None
        left, right = np.triu_indices(len(others), 1)
        fits, _ = _on_line(self._space, model, others[left], others[right])
        if not fits.any():
            return None
        length = np.where(fits, self._space.squared[others[left], others[right]], -1.0)
        best = int(np.argmax(length))
        return _fit(self._space, model, (int(others[left[best]]), int(others[right[best]])))

    def _mixture(self, model: int, others: Sequence[int]) -> _Fit | None:
        """The fewest of the others whose mixture the model is."""
        squared = self._space.squared
        near = [place for place in others if place != model and np.isfinite(squared[model, place])]
        near = [place for place in near if np.isfinite(squared[place, near]).all()]
        if len(near) < 3:
            return None
        enough = _SET_SHARE * float(np.sqrt(squared[model, near].min()))
        weights = nearest_mixture(products(squared, model, near), enough)
        parents = [place for place, weight in zip(near, weights, strict=True) if weight > _LEAST_WEIGHT]
        found = None
        while len(parents) >= 2:
            fit = _fit(self._space, model, tuple(parents))
            if min(fit.weights) <= 0 or not _explained(fit) or (found and fit.residual > found.residual * _NO_WORSE):
                break
            found = fit
            parents.remove(parents[int(np.argmin(fit.weights))])
        return found

    def _by_block(self, model: int, others: Sequence[int]) -> _Fit | None:
        """Two models out of which every block is mixed, in shares of its own."""
        rest = np.array([place for place in others if place != model], dtype=np.intp)
        left, right = np.triu_indices(len(rest), 1)
        left, right = rest[left], rest[right]
        for _, space in self._blocks:
            fits, ends = _on_line(space, model, left, right)
            kept = fits | ends
            left, right = left[kept], right[kept]
        if not len(left) or len(self._blocks) < 2:
            return None
        best = int(np.argmax(self._space.squared[left, right]))
        return replace(_fit(self._space, model, (int(left[best]), int(right[best]))), by_block=True)

    def _merge(self, fit: _Fit) -> Merge:
        """The merge with what is true of each block."""
        at = np.ix_((fit.model, *fit.parents), (fit.model, *fit.parents))
        shares = []
        for name, space in self._blocks:
            if np.isfinite(space.squared[at]).all():
                own = _fit(space, fit.model, fit.parents)
                alike = bool(space.same[at][1:, 1:].all())
                shares.append(Share(name, None if alike else own.weights, own.residual, own.bound))
        residual, bound = fit.residual, fit.bound
        if fit.by_block:
            residual = float(np.sqrt(sum(share.residual**2 for share in shares)))
            bound = float(np.sqrt(sum(share.bound**2 for share in shares)))
        return Merge(
            self._id, fit.model, fit.parents, fit.weights, residual, bound, fit.distance, fit.by_block, tuple(shares)
        )


@dataclass(frozen=True)
class _Fit:
    """The best weights of some parents (their sum is 1), the residual, the most that rounding explains of it (what
    sums lose, ``lost``, included), and the way to the nearest parent."""

    model: int
    parents: tuple[int, ...]
    weights: tuple[float, ...]
    residual: float
    bound: float
    lost: float
    distance: float
    by_block: bool = False


def _space(group: GroupResult) -> _Space:
    """Only pairs all of whose tensors were compared, and most of them by numbers, are in one space with the others."""
    blind = _blind(group)
    squared = np.where(group.complete & ~blind[:, None] & ~blind[None, :], group.joint**2, np.nan)
    same = (squared == 0) | copies(np.sqrt(squared), group.rounding[:, None], group.rounding[None, :])
    return _Space(squared, group.rounding, np.diag(group.left_out), same)


def _heads(space: _Space, places: Sequence[int], rank: Sequence[int] = ()) -> list[int]:
    """One model for each point of the space: of copies the finest, or else the one with the fewest gaps, or that of
    the lowest rank, or the first."""
    heads: list[int] = []

    def order(place: int) -> tuple[float, int, int, int]:
        return space.rounding[place], space.gaps[place], rank[place] if rank else 0, place

    for place in sorted(places, key=order):
        if not any(space.same[place, head] for head in heads):
            heads.append(place)
    return sorted(heads)


def _on_line(space: _Space, model: int, left: Places, right: Places) -> tuple[Flags, Flags]:
    """For each pair (left, right): whether the model lies between them, and whether it equals one of them."""
    a, b, d = space.squared[model, left], space.squared[model, right], space.squared[left, right]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (a + d - b) / (2 * d)
        inside = (ratio > _LEAST_WEIGHT) & (ratio < 1 - _LEAST_WEIGHT) & (d > 0)
        left_over = np.maximum((1 - ratio) * a + ratio * b - ratio * (1 - ratio) * d, 0.0)
        rounding = space.rounding[model] + (1 - ratio) * space.rounding[left] + ratio * space.rounding[right]
        nearest = np.minimum(a, b)
        small = (left_over <= rounding**2 + lost(nearest, d)) & (left_over <= PAIR_SHARE**2 * nearest)
    ends = space.same[model, left] | space.same[model, right]
    return inside & small & ~ends, ends


def _fit(space: _Space, model: int, parents: tuple[int, ...]) -> _Fit:
    gram = products(space.squared, model, parents)
    if len(parents) == 2:
        a, b, d = gram[0, 0], gram[1, 1], space.squared[parents[0], parents[1]]
        ratio = float((a + d - b) / (2 * d)) if d > 0 else 0.5
        weights = np.array([1 - ratio, ratio])
        square = float((1 - ratio) * a + ratio * b - ratio * (1 - ratio) * d)
    else:
        weights = affine_weights(gram)
        square = float(weights @ gram @ weights)
    rounding = float(space.rounding[model] + np.abs(weights) @ space.rounding[list(parents)])
    near, far = np.diag(gram).min(), np.diag(gram).max()
    unsure = math.sqrt(float(lost(near, far)))
    return _Fit(
        model=model,
        parents=parents,
        weights=tuple(float(weight) for weight in weights),
        residual=math.sqrt(max(0.0, square)),
        bound=math.hypot(rounding, unsure),
        lost=unsure,
        distance=math.sqrt(float(near)),
    )


def _explained(fit: _Fit) -> bool:
    share = PAIR_SHARE if len(fit.parents) == 2 else _SET_SHARE
    return fit.residual <= min(fit.bound, share * fit.distance)
