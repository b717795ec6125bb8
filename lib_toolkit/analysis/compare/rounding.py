"""What storing numbers in a type can have changed of them, and what sums lose.

A value that was rounded when it was stored is off by at most u·|x| (u = 2⁻¹¹ for FP16, 2⁻⁸ for BF16, 2⁻²⁴ for FP32;
half the smallest step for subnormal numbers), so that a model's rounding ρ is the root of the sum of those squares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.dtypes import DType

if TYPE_CHECKING:
    from lib_toolkit.analysis.compare.reading import Block, Flags, Sums

_SUM_ERROR = 1e-8
"""Relative error of a sum of squares, generously."""

_COPY_SHARE = 0.6
"""A copy at a coarser type is this much of its largest possible error away from the original, or less."""


def used_bits(block: Block) -> int:
    """All bits of a FP32 block that are set in any finite value: a file of that type may hold rounded numbers."""
    if block.dtype is not DType.F32 or not block.raw.size:
        return 0
    bits = block.raw.view("<u4")
    if not block.finite:
        # A NaN may have any bits set.
        bits = bits[np.isfinite(block.values.reshape(-1))]
    return int(np.bitwise_or.reduce(bits))


def finest(bits: int) -> bool:
    """Whether FP32 numbers that use these bits were never FP16 nor BF16: looking at more of them tells nothing new."""
    return bool(bits & 0x1FFF)


def rounding_unit(dtype: DType, bits: int) -> float:
    """The largest relative error of a value that was rounded to the type; ``bits``: of ``used_bits``.

    FP32 numbers whose last 13 or 16 bits are zero throughout were FP16 or BF16 once.
    """
    if dtype is DType.F32 and bits:
        return 2.0**-24 if finest(bits) else 2.0**-11 if bits & 0xFFFF else 2.0**-8
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


def copies(distance: Sums, rounding_a: Sums, rounding_b: Sums) -> Flags:
    """Whether models at these distances hold the same values, but for the rounding of the one at the coarser type."""
    coarser = np.maximum(rounding_a, rounding_b)
    finer = np.minimum(rounding_a, rounding_b)
    found: Flags = (distance <= _COPY_SHARE * coarser) & (finer < coarser / 4)
    return found


def lost(nearest: Sums, longest: Sums) -> Sums:
    """What a squared residual loses in rounded sums; both are squared distances."""
    found: Sums = _SUM_ERROR * (nearest + np.sqrt(nearest * longest))
    return found
