"""A measured set as matrices: what each sum means, and where there is no figure, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.matrix.gains import MOSTLY
from lib_toolkit.analysis.matrix.sources import Failure
from lib_toolkit.analysis.matrix.sums import Sums
from lib_toolkit.analysis.matrix.tasks import BLOCK, COMPONENT, TOTAL, Group, Work
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

    from lib_toolkit.analysis.matrix.merges import Merge
    from lib_toolkit.analysis.matrix.sums import Counts, Floats

    Flags: TypeAlias = npt.NDArray[np.bool_]

METRICS = ("l0", "l1", "l2", "cosine")
"""What a matrix can hold; the published cosine along dimension 0 is the business of pairs."""

_ENOUGH = 0.5
"""The share of the smaller model's elements that must be comparable for a distance to mean something."""

_LEAST = 1e-300
"""Less than any distance but 0."""

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Member:
    """A model of the set. ``nan`` and ``infinite`` count what was no number in all that was compared."""

    name: str
    path: Path
    size: int
    format: str
    architecture: str
    id: str | None
    nan: int
    infinite: int


@dataclass(frozen=True)
class GroupResult:
    """A group of tensors in all models; models count from 0, NaN stands where there is no figure.

    ``l0``: tensors that differ, ``changed``: elements, ``l1`` = Σ|a−b|, ``l2`` = ‖a−b‖, ``cosine`` of the flattened
    group, ``mean`` = mean |a−b|. ``compared``: tensors. ``complete``: whether that were all tensors of both. ``own``:
    tensors of each model, ``norm``: ‖model‖, ``rounding``: length of the error that storing it can have made.
    ``left_out``: elements of a pair that are no numbers in one of the two. ``joint``: ‖a−b‖ over what is a number in
    all models but the ``holed`` ones, which ``joint_left_out`` of each model's ``own_elements`` are not; ``rounding``
    is about the same.
    ``reasons`` say why pairs have no figure. ``identical``: models that are equal in every tensor. ``to_set``: a
    model's average mean difference to each other one, ``to_average``: its mean difference to the average of the others.
    """

    group: Group
    l0: Floats
    changed: Floats
    l1: Floats
    l2: Floats
    cosine: Floats
    mean: Floats
    compared: Counts
    complete: Flags
    own: Counts
    norm: Floats
    rounding: Floats
    left_out: Counts
    joint: Floats
    joint_left_out: Counts
    own_elements: Counts
    reasons: tuple[tuple[str, Pairs], ...]
    identical: tuple[tuple[int, ...], ...]
    to_set: Floats
    to_average: Floats

    @property
    def present(self) -> list[int]:
        """The models that have the group."""
        return [int(place) for place in np.flatnonzero(self.own)]

    @property
    def holed(self) -> list[int]:
        """The models most of whose values are no numbers: what is said of several models is said without them."""
        return _holed(self.left_out, self.own_elements)

    def figures(self, metric: str) -> Floats:
        """The matrix of one of METRICS."""
        if metric == "l0":
            return self.l0
        return self.told({"l1": self.l1, "l2": self.l2, "cosine": self.cosine}[metric])

    @property
    def silent(self) -> Flags:
        """Pairs that differ, but in no number: the 0 of what was measured is not that of equal models."""
        return np.asarray((self.changed > 0) & (self.l2 == 0))

    def told(self, figures: Floats) -> Floats:
        """Distances or cosines without those that would make silent pairs look equal."""
        return np.where(self.silent, np.nan, figures)

    def nearest(self) -> list[tuple[int, int, float]]:
        """For each model that can be compared its nearest other one and the distance (l2), NaN for a silent pair."""
        others = self.l2.copy()
        np.fill_diagonal(others, np.nan)
        places = [int(place) for place in np.flatnonzero(~np.isnan(others).all(axis=1))]
        # Of equally near ones those that are equal come before those that only measure so.
        nearest = [int(np.nanargmin(others[place] + self.silent[place] * _LEAST)) for place in places]
        told = self.told(others)
        return [(place, near, float(told[place, near])) for place, near in zip(places, nearest, strict=True)]


@dataclass(frozen=True)
class SetResult:
    """Everything about a set. ``total``: all weights; ``merges``: models that others explain."""

    members: tuple[Member, ...]
    failures: tuple[Failure, ...]
    total: GroupResult
    components: tuple[GroupResult, ...]
    blocks: tuple[GroupResult, ...]
    merges: tuple[Merge, ...] = ()

    def component(self, identity: str) -> GroupResult | None:
        """The component of an id such as "unet"."""
        return next((one for one in self.components if one.group.id == identity), None)


def members(
    models: Sequence[Model], found: Sequence[Identification], names: Sequence[str], sums: Sums
) -> tuple[Member, ...]:
    """The models as results tell of them."""
    return tuple(
        Member(
            name=name,
            path=model.origin.path,
            size=model.origin.size,
            format=model.origin.format,
            architecture=what.name,
            id=what.id,
            nan=int(sums.nan[place]),
            infinite=int(sums.infinite[place]),
        )
        for place, (model, what, name) in enumerate(zip(models, found, names, strict=True))
    )


def group_results(work: Work, sums: Sums, living: Sequence[int]) -> dict[str, list[GroupResult]]:
    """The matrices by kind of group, over the models of ``living``; ``sums`` hold these alone."""
    kept = np.asarray(living, dtype=np.intp)
    found: dict[str, list[GroupResult]] = {TOTAL: [], COMPONENT: [], BLOCK: []}
    for index, group in enumerate(work.groups):
        own = work.own[index][kept]
        elements = work.own_elements[index][kept]
        both = work.both[index][kept[:, None], kept[None, :]]
        if np.count_nonzero(own):
            found[group.kind].append(_group_result(group, index, sums, own, elements, both))
    return found


def _group_result(group: Group, index: int, sums: Sums, own: Counts, own_elements: Counts, both: Counts) -> GroupResult:
    tensors, elements = sums.tensors[index].copy(), sums.elements[index].copy()
    # A model is not measured against itself: all of it would be compared.
    np.fill_diagonal(tensors, own)
    np.fill_diagonal(elements, own_elements)
    smaller = np.minimum(own_elements[:, None], own_elements[None, :])
    changed, left_out = sums.changed[index], sums.left_out[index]
    # Of two models without a number in common only equal ones have a distance.
    numbers = (changed == 0) | (left_out < elements)
    fits = (tensors > 0) & (elements >= _ENOUGH * smaller) & numbers
    complete = fits & (tensors == own[:, None]) & (tensors == own[None, :])
    gap = np.where(fits, 0.0, np.nan)
    mean = sums.l1[index] / np.maximum(elements - left_out, 1) + gap
    silent = fits & (changed > 0) & (sums.l2[index] == 0)
    holed = _holed(left_out, own_elements)
    gain = sums.gains.without(index, holed)
    norm = np.sqrt(sums.squares[index].max(axis=1, initial=0.0))
    return GroupResult(
        group=group,
        l0=sums.changed_tensors[index] + gap,
        changed=changed + gap,
        l1=sums.l1[index] + gap,
        l2=np.sqrt(sums.l2[index]) + gap,
        cosine=_cosine(index, sums, changed) + gap,
        mean=mean,
        compared=tensors,
        complete=complete,
        own=own,
        norm=norm,
        rounding=np.sqrt(np.maximum(sums.rounding[index] + gain.single, 0.0)),
        left_out=left_out,
        joint=np.sqrt(np.maximum(sums.joint[index] + gain.joint, 0.0)) + gap,
        joint_left_out=sums.joint_left_out[index] - gain.elements,
        own_elements=own_elements,
        reasons=(*_reasons(own, both, tensors, fits, numbers), *_silences(silent, changed, left_out)),
        identical=_identical(complete & (changed == 0)),
        to_set=_unless_silent(silent, _to_set(mean)),
        to_average=_unless_silent(silent, _ratio(sums.average[index], sums.average_elements[index])),
    )


def _holed(left_out: Counts, own_elements: Counts) -> list[int]:
    return [int(place) for place in np.flatnonzero(np.diag(left_out) > MOSTLY * own_elements)]


def _cosine(index: int, sums: Sums, changed: Counts) -> Floats:
    """2ab = a² + b² − (a−b)² loses least where vectors are alike, which models are; NaN beside a zero vector."""
    a = sums.squares[index]
    b = a.T
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (a + b - sums.l2[index]) / 2 / np.sqrt(a) / np.sqrt(b)
    cosine = np.clip(cosine, -1.0, 1.0)
    return np.where((changed == 0) & ((a > 0) | np.eye(len(a), dtype=bool)), 1.0, cosine)


def _to_set(mean: Floats) -> Floats:
    others = mean.copy()
    np.fill_diagonal(others, np.nan)
    known = ~np.isnan(others)
    return _ratio(np.where(known, others, 0.0).sum(axis=1), np.count_nonzero(known, axis=1))


def _unless_silent(silent: Flags, mean: Floats) -> Floats:
    """Means, but not 0 for a model that differs from another one in what is no number."""
    return np.where(silent.any(axis=1) & (mean == 0), np.nan, mean)


def _ratio(total: Floats, count: Counts) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _reasons(own: Counts, both: Counts, tensors: Counts, fits: Flags, numbers: Flags) -> tuple[tuple[str, Pairs], ...]:
    """Why pairs have no figure, save where one of the two lacks the group altogether."""
    found: dict[str, list[tuple[int, int]]] = {}
    for a, b in np.argwhere(np.triu(~fits, 1)):
        if own[a] and own[b]:
            common, fitting = int(both[a, b]), int(tensors[a, b])
            if not common:
                why = "no tensor is in both"
            elif not fitting:
                why = f"none of {common:,} tensors fits: shapes or types differ"
            elif not numbers[a, b]:
                why = "no value is a finite number in both"
            else:
                most = max(int(own[a]), int(own[b]))
                why = f"only {fitting:,} of {most:,} tensors fit, too little for a distance"
            found.setdefault(why, []).append((int(a), int(b)))
    return tuple((why, tuple(pairs)) for why, pairs in found.items())


def _silences(silent: Flags, changed: Counts, left_out: Counts) -> tuple[tuple[str, Pairs], ...]:
    """Why silent pairs have no figure."""
    found: dict[str, list[tuple[int, int]]] = {}
    for a, b in np.argwhere(np.triu(silent, 1)):
        if not left_out[a, b]:
            why = "their values differ by less than can be measured"
        else:
            count = int(changed[a, b])
            what = "1 value that differs is" if count == 1 else f"{count:,} values that differ are"
            why = f"{what} NaN or infinite in one of the two, and all others are equal"
        found.setdefault(why, []).append((int(a), int(b)))
    return tuple((why, tuple(pairs)) for why, pairs in found.items())


def _identical(equal: Flags) -> tuple[tuple[int, ...], ...]:
    """Groups of two or more models that are equal, by their first model."""
    found: dict[int, list[int]] = {}
    for place in range(len(equal)):
        if equal[place, place]:
            first = int(np.flatnonzero(equal[place])[0])
            found.setdefault(first, []).append(place)
    return tuple(tuple(group) for group in found.values() if len(group) > 1)
