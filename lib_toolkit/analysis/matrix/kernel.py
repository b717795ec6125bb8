"""All pairs of one block: the same stretch of a tensor, read from several models.

Differences are formed element by element before anything is summed, so that nothing cancels however alike two models
are. Models that hold the same bytes are measured once. Elements that are NaN or infinite on either side take no part
in a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.compare.measures import same_bytes
from lib_toolkit.analysis.compare.reading import inner, total_of
from lib_toolkit.casting import scratch
from lib_toolkit.dtypes import DType

if TYPE_CHECKING:
    import numpy.typing as npt

    from lib_toolkit.analysis.compare.reading import Block
    from lib_toolkit.analysis.matrix.sums import Counts, Floats

_WHOLE = frozenset({"int", "uint", "bool"})
_FEW = 2048
_LEAST, _MOST = 1e-25, 1e36
"""Sums of squares that FP32 holds without loss."""


def representatives(blocks: Sequence[Block]) -> list[int]:
    """For each block the first one that holds the same bytes of the same type: itself where it is the first."""
    found: list[int] = []
    for place, block in enumerate(blocks):
        same = (
            other
            for other in range(place)
            if found[other] == other and blocks[other].dtype is block.dtype and same_bytes(blocks[other].raw, block.raw)
        )
        found.append(next(same, place))
    return found


def distance(a: Block, b: Block) -> tuple[float, float, int]:
    """Σ|a−b|, Σ(a−b)² and how many elements differ as stored (a NaN equals a NaN)."""
    if a.plain and b.plain:
        x, y = a.values.reshape(-1), b.values.reshape(-1)
        with scratch(x.nbytes) as raw:
            delta = raw.view("<f4")
            np.subtract(x, y, out=delta)
            changed = int(np.count_nonzero(np.not_equal(delta, 0)))
            if not changed:
                return 0.0, 0.0, 0
            squares = inner(delta, delta)
            if _LEAST < squares < _MOST:
                np.abs(delta, out=delta)
                return total_of(delta), squares, changed
    return _careful_distance(a, b)


def few(blocks: Sequence[Block]) -> bool:
    """Whether the blocks are so short that many pairs had better be measured at once."""
    return len(blocks) > 2 and blocks[0].values.size <= _FEW and all(block.plain for block in blocks)


def distances_of_few(stacked: npt.NDArray[np.float32], index: int) -> tuple[Floats, Floats, Counts]:
    """What ``distance`` finds, of one block and each that follows it; ``stacked``: shape (blocks, elements)."""
    delta = stacked[index + 1 :] - stacked[index]
    changed = np.count_nonzero(delta, axis=1)
    wide = delta.astype("<f8")
    squares = np.einsum("ij,ij->i", wide, wide)
    np.abs(wide, out=wide)
    return wide.sum(axis=1), squares, np.asarray(changed, dtype="<i8")


def _careful_distance(a: Block, b: Block) -> tuple[float, float, int]:
    x, y = a.wide().reshape(-1), b.wide().reshape(-1)
    if a.dtype.kind in _WHOLE and b.dtype.kind in _WHOLE:
        differ = a.raw.view(a.dtype.storage) != b.raw.view(b.dtype.storage)
    else:
        differ = (x != y) & ~(np.isnan(x) & np.isnan(y))
    good = np.isfinite(x) & np.isfinite(y)
    with np.errstate(over="ignore", invalid="ignore"):
        delta = np.abs(np.where(good, x, 0.0) - np.where(good, y, 0.0))
        return float(delta.sum()), float(np.einsum("i,i->", delta, delta)), int(np.count_nonzero(differ))


def to_average(blocks: Sequence[Block]) -> Callable[[int], tuple[float, int]]:
    """A function that gives, for the block of a number, Σ|x − average of the others| and over how many elements.

    It may be called from any thread; for a single block it finds nothing.
    """
    if len(blocks) < 2:
        return lambda index: (0.0, 0)
    return _plain_average(blocks) if all(block.plain for block in blocks) else _careful_average(blocks)


def _plain_average(blocks: Sequence[Block]) -> Callable[[int], tuple[float, int]]:
    """At FP32, from differences to the first block, so that alike models lose no digits."""
    first, count = blocks[0].values.reshape(-1), len(blocks)
    total, delta = np.zeros(first.shape, dtype="<f4"), np.empty(first.shape, dtype="<f4")
    for block in blocks[1:]:
        np.subtract(block.values.reshape(-1), first, out=delta)
        total += delta

    def apart(index: int) -> tuple[float, int]:
        with scratch(first.nbytes) as raw:
            own = raw.view("<f4")
            np.subtract(blocks[index].values.reshape(-1), first, out=own)
            own *= np.float32(count)
            own -= total
            np.abs(own, out=own)
            return total_of(own) / (count - 1), first.size

    return apart


def _careful_average(blocks: Sequence[Block]) -> Callable[[int], tuple[float, int]]:
    """At FP64, over the elements that are finite in all blocks."""
    count = len(blocks)
    total, good = np.zeros(blocks[0].values.size), np.ones(blocks[0].values.size, dtype=bool)
    for block in blocks:
        wide = block.wide().reshape(-1)
        good &= np.isfinite(wide)
        total += np.where(np.isfinite(wide), wide, 0.0)
    measured = int(np.count_nonzero(good))

    def apart(index: int) -> tuple[float, int]:
        own = count * blocks[index].wide().reshape(-1)[good] - total[good]
        return float(np.abs(own).sum()) / (count - 1), measured

    return apart


def used_bits(block: Block) -> int:
    """All bits of a FP32 block that are set in any finite value: a file of that type may hold rounded numbers."""
    if block.dtype is not DType.F32 or not block.raw.size:
        return 0
    bits = block.raw.view("<u4")
    if not block.finite:
        # A NaN may have any bits set.
        bits = bits[np.isfinite(block.values.reshape(-1))]
    return int(np.bitwise_or.reduce(bits))


def rounding_unit(dtype: DType, bits: int) -> float:
    """The largest relative error of a value that was rounded to the type; ``bits``: of ``used_bits``.

    FP32 numbers whose last 13 or 16 bits are zero throughout were FP16 or BF16 once.
    """
    if dtype is DType.F32 and bits:
        return 2.0**-8 if not bits & 0xFFFF else 2.0**-11 if not bits & 0x1FFF else 2.0**-24
    return _UNITS.get(dtype, 0.0)


_UNITS = {
    DType.F64: 2.0**-53,
    DType.F32: 2.0**-24,
    DType.F16: 2.0**-11,
    DType.BF16: 2.0**-8,
    DType.F8_E4M3: 2.0**-4,
    DType.F8_E4M3FNUZ: 2.0**-4,
    DType.F8_E5M2: 2.0**-3,
    DType.F8_E5M2FNUZ: 2.0**-3,
}
_SMALLEST = {2.0**-11: 2.0**-25, 2.0**-4: 2.0**-10, 2.0**-3: 2.0**-17}
"""Half the spacing of subnormal numbers of FP16 and the 8-bit types, which is an error that no value escapes."""


def rounding_squared(dtype: DType, bits: int, squares: float, elements: int) -> float:
    """The square of the longest error vector that storing ``elements`` values with Σx² = ``squares`` can have made."""
    unit = rounding_unit(dtype, bits)
    return unit**2 * squares + _SMALLEST.get(unit, 0.0) ** 2 * elements


def squares_of(block: Block) -> float:
    """Σx² over the finite elements."""
    return float(block.squares.sum())
