"""What NaN and infinite values leave out of the sums of a block.

The figures of a pair leave out what is no number in one of the two. Whether a model is a merge follows from several
distances at once, which must then be about the same elements: for these there are joint sums, which leave out what is
no number in any of the models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.matrix.kernel import squares_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from lib_toolkit.analysis.compare.reading import Block
    from lib_toolkit.analysis.matrix.sums import Counts, Floats


@dataclass(frozen=True)
class Gaps:
    """Sums of one block of several models: ``squares`` [a, b] = Σa² over what is finite in both, of which
    ``left_out`` elements are not; ``joint`` = Σ(a−b)² and ``joint_squares`` = Σa² over what is finite in all, which
    ``joint_left_out`` elements are not."""

    left_out: Counts
    squares: Floats
    joint: Floats
    joint_squares: Floats
    joint_left_out: int

    def spread(self, at: Sequence[int]) -> Gaps:
        """The same for blocks of which some are equal: ``at`` says for each which one stands for it."""
        square = np.ix_(at, at)
        return Gaps(
            self.left_out[square],
            self.squares[square],
            self.joint[square],
            self.joint_squares[list(at)],
            self.joint_left_out,
        )


def gaps_of(
    blocks: Sequence[Block], l2: Floats, each: Callable[[int, Callable[[int], None]], None], check: Callable[[], None]
) -> Gaps:
    """The gaps of blocks whose pairs have the sums ``l2``.

    ``each`` calls a function with 0 … count - 1, on any thread; ``check`` is called for each pair, and may raise.
    """
    count = len(blocks)
    squares = np.array([squares_of(block) for block in blocks])
    left_out = np.zeros((count, count), dtype="<i8")
    beside = np.repeat(squares[:, None], count, axis=1)
    holed = [index for index, block in enumerate(blocks) if not block.finite]
    if not holed:
        return Gaps(left_out, beside, l2, squares, 0)
    common = _finite(blocks[holed[0]])
    for index in holed[1:]:
        common &= _finite(blocks[index])
    joint, joint_squares = np.zeros((count, count)), np.zeros(count)

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
        wide = own[common].astype("<f8")
        joint_squares[index] = _squares(wide)
        for other in range(index + 1, count):
            joint[index, other] = _squares(wide - blocks[other].values.reshape(-1)[common])
            check()

    each(count, look)
    return Gaps(left_out, beside, joint + joint.T, joint_squares, common.size - int(np.count_nonzero(common)))


def _finite(block: Block) -> npt.NDArray[np.bool_]:
    return np.isfinite(block.values.reshape(-1))


def _squares(values: Floats) -> float:
    with np.errstate(over="ignore"):
        return float(np.einsum("i,i->", values, values))
