"""What the joint sums gain where models of which little is a number are left out.

A model that is mostly NaN would leave hardly an element to the joint sums of all others. Which models are such is known
only when all of a group was read, and nothing is read twice. So wherever a block holds models that may turn out so (its
suspects), what the joint sums would have been without them is kept beside the sums, by the suspects: at the end it is
added where each of them is left out. Models share suspects by and large, so that a few such sums are enough; where they
are not, elements stay left out, as they would be without any of this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]
    Counts: TypeAlias = npt.NDArray[np.int64]
    Places: TypeAlias = frozenset[int]

FOR_A_GROUP = 3
"""Gains of as many different suspects are kept for a group, on average."""

MOSTLY = 0.5
"""A model of which more than this share is no numbers is left out of the joint sums."""


@dataclass
class Gain:
    """What joint sums gain: Σ(a−b)² by pair, by model Σa² (of one tensor) or the square of the longest error of storing
    it (of a group), and how many elements."""

    joint: Floats
    single: Floats
    elements: Counts

    @classmethod
    def nothing(cls, models: int) -> Gain:
        """Nothing added yet."""
        return cls(np.zeros((models, models)), np.zeros(models), np.zeros(models, dtype="<i8"))

    def add(self, at: Sequence[int], other: Gain) -> None:
        """Add a gain of the models ``at``."""
        places = np.asarray(at, dtype=np.intp)
        self.joint[np.ix_(places, places)] += other.joint
        self.single[places] += other.single
        self.elements[places] += other.elements

    def of(self, models: Sequence[int]) -> Gain:
        """The gain of some of the models, in that order; they may be named more than once."""
        places = np.asarray(models, dtype=np.intp)
        return Gain(self.joint[np.ix_(places, places)], self.single[places], self.elements[places])


@dataclass
class Gains:
    """The gains of a sweep over ``models``, by group and suspects; at most ``limit`` of them."""

    models: int
    limit: int
    kept: dict[tuple[int, Places], Gain] = field(default_factory=dict)

    def add(self, group: int, suspects: Places, at: Sequence[int], gain: Gain) -> None:
        """Add what a tensor gains, over the models ``at``."""
        key = group, suspects
        if key not in self.kept:
            if len(self.kept) >= self.limit:
                return
            self.kept[key] = Gain.nothing(self.models)
        self.kept[key].add(at, gain)

    def without(self, group: int, left_out: Collection[int]) -> Gain:
        """What a group gains where the models ``left_out`` are."""
        total = Gain.nothing(self.models)
        for (own, suspects), gain in self.kept.items():
            if own == group and suspects <= frozenset(left_out):
                total.add(range(self.models), gain)
        return total

    def only(self, models: Sequence[int]) -> Gains:
        """The gains among some of the models; those that are gone are suspects no more."""
        index = {place: number for number, place in enumerate(models)}
        made = Gains(len(models), self.limit)
        for (group, suspects), gain in self.kept.items():
            living = frozenset(index[place] for place in suspects if place in index)
            made.add(group, living, range(len(models)), gain.of(models))
        return made

    def arrays(self) -> dict[str, Floats | Counts]:
        """All sums in the order of ``keys``, to be stored."""
        gains = list(self.kept.values())
        shape = (len(gains), self.models)
        return {
            "gained": np.array([gain.joint for gain in gains]).reshape(*shape, self.models),
            "gained_rounding": np.array([gain.single for gain in gains]).reshape(shape),
            "gained_elements": np.array([gain.elements for gain in gains], dtype="<i8").reshape(shape),
        }

    def keys(self) -> list[tuple[int, list[int]]]:
        """Groups and suspects, to be stored as JSON."""
        return [(group, sorted(suspects)) for group, suspects in self.kept]

    def take_up(self, keys: Sequence[tuple[int, Sequence[int]]], arrays: Mapping[str, Floats | Counts]) -> None:
        """Become what was stored. Raises ValueError where parts of it do not belong together."""
        own = self.arrays()
        for name, array in own.items():
            if arrays[name].shape != (len(keys), *array.shape[1:]) or arrays[name].dtype != array.dtype:
                raise ValueError("sums of another set")
        joint, rounding, elements = (arrays[name] for name in own)
        self.kept = {
            (int(group), frozenset(suspects)): Gain(joint[row].copy(), rounding[row].copy(), elements[row].copy())
            for row, (group, suspects) in enumerate(keys)
        }
