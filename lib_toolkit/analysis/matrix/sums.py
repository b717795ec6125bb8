"""What a sweep adds up: for each group of tensors and each pair of models the sums that all figures come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.matrix.gains import FOR_A_GROUP, MOSTLY, Gain, Gains

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]
    Counts: TypeAlias = npt.NDArray[np.int64]

PAIR_BYTES = (9 + FOR_A_GROUP) * 8
"""Bytes that one pair of models takes in one group at most."""


@dataclass(frozen=True)
class Sums:
    """Sums by group and pair, shape (groups, models, models), or by group and model.

    ``l1`` = Σ|a−b|, ``l2`` = Σ(a−b)², ``squares`` [g, a, b] = Σa² over what a and b were compared in. ``elements`` and
    ``tensors`` were compared, ``changed`` and ``changed_tensors`` of them differ; ``left_out`` of the elements take no
    part in sums, being no finite numbers in one of the two. ``joint`` = Σ(a−b)² without the ``joint_left_out`` elements
    that are no numbers in any model, ``rounding`` the square of the longest error that storing a model can have made
    in the same elements, ``gains`` what these gain without models of which little is a number. ``average`` =
    Σ|a − average of the others| over ``average_elements``. ``nan`` and ``infinite`` count by model alone.
    """

    l1: Floats
    l2: Floats
    joint: Floats
    squares: Floats
    elements: Counts
    tensors: Counts
    changed: Counts
    changed_tensors: Counts
    left_out: Counts
    joint_left_out: Counts
    rounding: Floats
    average: Floats
    average_elements: Counts
    nan: Counts
    infinite: Counts
    gains: Gains = field(default_factory=lambda: Gains(0, 0))

    @classmethod
    def zeros(cls, groups: int, models: int) -> Sums:
        """Nothing added yet."""
        pairs, single = (groups, models, models), (groups, models)

        def floats(shape: tuple[int, ...]) -> Floats:
            return np.zeros(shape, dtype="<f8")

        def counts(shape: tuple[int, ...]) -> Counts:
            return np.zeros(shape, dtype="<i8")

        return cls(
            l1=floats(pairs),
            l2=floats(pairs),
            joint=floats(pairs),
            squares=floats(pairs),
            elements=counts(pairs),
            tensors=counts(pairs),
            changed=counts(pairs),
            changed_tensors=counts(pairs),
            left_out=counts(pairs),
            joint_left_out=counts(single),
            rounding=floats(single),
            average=floats(single),
            average_elements=counts(single),
            nan=counts((models,)),
            infinite=counts((models,)),
            gains=Gains(models, groups * FOR_A_GROUP),
        )

    def arrays(self) -> dict[str, Floats | Counts]:
        """Every array by its name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "gains"}

    def doubtful(self, groups: Sequence[int], places: Sequence[int]) -> list[bool]:
        """For each place whether most of its model was no numbers so far, in any of the groups."""
        return [
            any(self.left_out[group, at, at] > MOSTLY * self.elements[group, at, at] for group in groups)
            for at in places
        ]

    def only(self, models: Sequence[int]) -> Sums:
        """The sums of some of the models."""
        kept = np.asarray(models, dtype=np.intp)
        made = {}
        for name, array in self.arrays().items():
            if array.ndim == 3:
                made[name] = array[:, kept[:, None], kept[None, :]]
            else:
                made[name] = array[..., kept]
        return Sums(**made, gains=self.gains.only(models))  # type: ignore[arg-type]


class RowSums:
    """The sums of one tensor, as ``count`` models have it, block after block."""

    def __init__(self, count: int) -> None:
        self.l1: Floats = np.zeros((count, count))
        self.l2: Floats = np.zeros((count, count))
        self.joint: Floats = np.zeros((count, count))
        self.squares: Floats = np.zeros((count, count))
        self.changed: Counts = np.zeros((count, count), dtype="<i8")
        self.left_out: Counts = np.zeros((count, count), dtype="<i8")
        self.joint_squares: Floats = np.zeros(count)
        self.joint_left_out = 0
        self.average: Floats = np.zeros(count)
        self.average_elements: Counts = np.zeros(count, dtype="<i8")
        self.nan: Counts = np.zeros(count, dtype="<i8")
        self.infinite: Counts = np.zeros(count, dtype="<i8")
        self.bits = [0] * count
        self.gains: dict[frozenset[int], Gain] = {}

    def gain(self, suspects: frozenset[int], at: Sequence[int], gain: Gain) -> None:
        """Add what a block of the models ``at`` gains without the suspects; only so many kinds of these are kept."""
        if suspects in self.gains or len(self.gains) < FOR_A_GROUP:
            own = self.gains.setdefault(suspects, Gain.nothing(len(self.bits)))
            own.add(at, gain)

    def into(
        self,
        sums: Sums,
        groups: Sequence[int],
        places: Sequence[int],
        elements: int,
        rounding: Callable[[Floats, Counts], Floats],
        readable: bool,
    ) -> None:
        """Add the row to its groups. What cannot be read as numbers counts as compared where it is equal.

        ``rounding`` tells the squares of the longest errors of storing elements, by their Σa² and their number.
        """
        at = np.asarray(places, dtype=np.intp)
        square = np.ix_(at, at)
        rounded = rounding(self.joint_squares, np.full(len(self.bits), elements - self.joint_left_out))
        gains = {
            frozenset(places[index] for index in suspects): replace(gain, single=rounding(gain.single, gain.elements))
            for suspects, gain in self.gains.items()
        }
        compared = np.ones(self.l1.shape, dtype=bool) if readable else self.changed == 0
        for group in groups:
            sums.l1[group][square] += self.l1
            sums.l2[group][square] += self.l2
            sums.joint[group][square] += self.joint
            sums.squares[group][square] += np.where(compared, self.squares, 0.0)
            sums.elements[group][square] += np.where(compared, elements, 0)
            sums.tensors[group][square] += compared
            if readable:
                sums.changed[group][square] += self.changed
                sums.changed_tensors[group][square] += self.changed > 0
                sums.left_out[group][square] += self.left_out
            sums.joint_left_out[group][at] += self.joint_left_out
            sums.rounding[group][at] += rounded
            for suspects, gain in gains.items():
                sums.gains.add(group, suspects, places, gain)
            sums.average[group][at] += self.average
            sums.average_elements[group][at] += self.average_elements
        sums.nan[at] += self.nan
        sums.infinite[at] += self.infinite
