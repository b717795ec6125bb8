"""What NaN and infinite values leave out of the sums of a block.

The figures of a pair leave out what is no number in one of the two. Whether a model is a merge follows from several
distances at once, which must then be about the same elements: for these there are joint sums, which leave out what is
no number in any of the models, and what they gain without models of which little is a number (see ``gains``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.matrix.gains import MOSTLY, Gain
from lib_toolkit.analysis.matrix.kernel import squares_of

if TYPE_CHECKING:
    from lib_toolkit.analysis.compare.reading import Block, Flags
    from lib_toolkit.analysis.matrix.sums import Counts, Floats


@dataclass(frozen=True)
class Gaps:
    """Sums of one block of several models: ``squares`` [a, b] = Σa² over what is finite in both, of which
    ``left_out`` elements are not; ``joint`` = Σ(a−b)² and ``joint_squares`` = Σa² over what is finite in all, which
    ``joint_left_out`` elements are not, and which ``gain`` says more of without the ``suspects``."""

    left_out: Counts
    squares: Floats
    joint: Floats
    joint_squares: Floats
    joint_left_out: int
    suspects: tuple[int, ...] = ()
    gain: Gain | None = None

    def spread(self, at: Sequence[int]) -> Gaps:
        """The same for blocks of which some are equal: ``at`` says for each which one stands for it."""
        square = np.ix_(at, at)
        return Gaps(
            self.left_out[square],
            self.squares[square],
            self.joint[square],
            self.joint_squares[list(at)],
            self.joint_left_out,
            tuple(place for place, stands in enumerate(at) if stands in self.suspects),
            None if self.gain is None else self.gain.of(at),
        )


def gaps_of(
    blocks: Sequence[Block],
    l2: Floats,
    doubtful: Sequence[bool],
    each: Callable[[int, Callable[[int], None]], None],
    check: Callable[[], None],
) -> Gaps:
    """The gaps of blocks whose pairs have the sums ``l2``. Suspects are models of whose block little is a number, and
    those that are ``doubtful`` for what was read before.

    ``each`` calls a function with 0 … count - 1, on any thread; ``check`` is called for each pair, and may raise.
    """
    count = len(blocks)
    squares = np.array([squares_of(block) for block in blocks])
    left_out = np.zeros((count, count), dtype="<i8")
    beside = np.repeat(squares[:, None], count, axis=1)
    holed = [index for index, block in enumerate(blocks) if not block.finite]
    if not holed:
        return Gaps(left_out, beside, l2, squares, 0)
    common = _common([blocks[index] for index in holed])

    def look(index: int) -> None:
        block = blocks[index]
        own = block.values.reshape(-1)
        for other in range(count) if not block.finite else holed:
            good = _finite(block)
            if other != index:
                good &= _finite(blocks[other])
            left_out[index, other] = good.size - int(np.count_nonzero(good))
            if not blocks[other].finite:
                beside[index, other] = _squares(own[good].astype("<f8"))
            check()

    each(count, look)
    joint, joint_squares = _joint(blocks, range(count), common, each, check)
    remain = int(np.count_nonzero(common))
    few = [
        index for index in holed if doubtful[index] or blocks[index].nan + blocks[index].infinite > MOSTLY * common.size
    ]
    found = Gaps(left_out, beside, joint, joint_squares, common.size - remain)
    rest = [index for index in range(count) if index not in few]
    if not few or len(rest) < 2:
        return found
    more, more_squares, more_remain = l2, squares, common.size
    if any(index not in few for index in holed):
        common = _common([blocks[index] for index in holed if index not in few])
        more, more_squares = _joint(blocks, rest, common, each, check)
        more_remain = int(np.count_nonzero(common))
    gain = Gain.nothing(count)
    at = np.ix_(rest, rest)
    fresh = np.full(len(rest), more_remain - remain)
    gain.add(rest, Gain(more[at] - joint[at], more_squares[rest] - joint_squares[rest], fresh))
    return replace(found, suspects=tuple(few), gain=gain)


def _joint(
    blocks: Sequence[Block],
    places: Sequence[int],
    common: Flags,
    each: Callable[[int, Callable[[int], None]], None],
    check: Callable[[], None],
) -> tuple[Floats, Floats]:
    """Σ(a−b)² and Σa² over the ``common`` elements of the blocks at ``places``, 0 for the others."""
    joint, squares = np.zeros((len(blocks), len(blocks))), np.zeros(len(blocks))

    def look(number: int) -> None:
        index = places[number]
        wide = blocks[index].values.reshape(-1)[common].astype("<f8")
        squares[index] = _squares(wide)
        for other in places[number + 1 :]:
            joint[index, other] = _squares(wide - blocks[other].values.reshape(-1)[common])
            check()

    each(len(places), look)
    return joint + joint.T, squares


def _common(blocks: Sequence[Block]) -> Flags:
    """What is a number in all of the blocks."""
    common = _finite(blocks[0])
    for block in blocks[1:]:
        common &= _finite(block)
    return common


def _finite(block: Block) -> Flags:
    return np.isfinite(block.values.reshape(-1))


def _squares(values: Floats) -> float:
    with np.errstate(over="ignore"):
        return float(np.einsum("i,i->", values, values))
