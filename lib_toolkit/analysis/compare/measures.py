"""How far apart two tensors are: all figures at once, out of one look at each block of both.

Differences are formed element by element before anything is summed, so that nothing cancels. Elements that are NaN
or infinite on either side are counted and left out of every sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.compare.cosines import Cosines
from lib_toolkit.analysis.compare.reading import Block, Width, inner, products, total_of, width_of
from lib_toolkit.analysis.compare.rounding import finest, rounding_squared, used_bits
from lib_toolkit.casting import convert, scratch
from lib_toolkit.dtypes import DType

if TYPE_CHECKING:
    from lib_toolkit.analysis.compare.reading import Flags, Numbers, Sums
    from lib_toolkit.tensors import Bytes


METRICS = ("l0", "l1", "l2", "cossim", "cosine")
"""What can be asked for: the published figures, and ``cosine``, that of the flattened tensors."""

PRECISIONS = (DType.F64, DType.F32, DType.F16, DType.BF16)
"""Float types from the finest to the coarsest."""

_ROUGHLY, _NEARLY_ZERO = 2.0**-7, 2.0**-23


@dataclass(frozen=True, slots=True)
class Measures:
    """The distance of B from A over ``elements`` of them.

    ``changed`` differ as stored, ``changed_single`` (l0 of the published tool) at FP32. ``l1`` = Σ|a−b|,
    ``l2_squared`` = Σ(a−b)², ``largest`` = max|a−b|, ``a_squared`` = Σa², ``product`` = Σab. ``cossim``: mean of the
    cosines along dimension 0, one for each index of the others (None: no elements, or a sum of several tensors).
    ``nan_a`` … count elements that are no numbers; ``left_out`` are so on either side and are in none of the sums, not
    in those of the other side either. ``a_rounding``: the square of the longest error that storing A can have made.
    ``same_when_lowered``: whether
    both are one once they are cast to the coarser of their types (FP16 for two wider ones); None: no question.
    """

    elements: int = 0
    changed: int = 0
    changed_single: int = 0
    l1: float = 0.0
    l2_squared: float = 0.0
    largest: float = 0.0
    a_squared: float = 0.0
    b_squared: float = 0.0
    product: float = 0.0
    a_rounding: float = 0.0
    b_rounding: float = 0.0
    cossim: float | None = None
    nan_a: int = 0
    nan_b: int = 0
    infinite_a: int = 0
    infinite_b: int = 0
    left_out: int = 0
    same_when_lowered: bool | None = None

    @property
    def identical(self) -> bool:
        return not self.changed

    @property
    def l2(self) -> float:
        """‖a−b‖."""
        return math.sqrt(self.l2_squared)

    @property
    def measured(self) -> int:
        """Elements that are finite numbers on both sides."""
        return self.elements - self.left_out

    @property
    def mean(self) -> float | None:
        """Mean of |a−b|."""
        return self.l1 / self.measured if self.measured else None

    @property
    def rms(self) -> float | None:
        """Root of the mean of (a−b)²."""
        return math.sqrt(self.l2_squared / self.measured) if self.measured else None

    @property
    def relative(self) -> float | None:
        """‖a−b‖ / ‖a‖; None where a is zero and b is not."""
        if not self.l2_squared:
            return 0.0
        return self.l2 / math.sqrt(self.a_squared) if self.a_squared else None

    @property
    def changed_share(self) -> float:
        """Changed elements, 0 to 1."""
        return self.changed / self.elements if self.elements else 0.0

    @property
    def cosine(self) -> float | None:
        """Cosine of the two as flat vectors; None where one is zero."""
        if not self.a_squared or not self.b_squared:
            return None
        return max(-1.0, min(1.0, self.product / math.sqrt(self.a_squared) / math.sqrt(self.b_squared)))

    def figure(self, metric: str) -> float | None:
        """The figure of one tensor by a metric of METRICS."""
        if metric == "l0":
            return float(self.changed_single)
        return {"l1": self.l1, "l2": self.l2, "cossim": self.cossim, "cosine": self.cosine}[metric]


def together(parts: Iterable[Measures]) -> Measures:
    """The measures of all parts as one vector; the order of the parts means nothing."""
    every = list(parts)

    def count(values: Iterable[int]) -> int:
        return sum(values)

    lowered = [part.same_when_lowered for part in every if part.changed]
    return Measures(
        elements=count(part.elements for part in every),
        changed=count(part.changed for part in every),
        changed_single=count(part.changed_single for part in every),
        l1=math.fsum(part.l1 for part in every),
        l2_squared=math.fsum(part.l2_squared for part in every),
        largest=max((part.largest for part in every), default=0.0),
        a_squared=math.fsum(part.a_squared for part in every),
        b_squared=math.fsum(part.b_squared for part in every),
        product=math.fsum(part.product for part in every),
        a_rounding=math.fsum(part.a_rounding for part in every),
        b_rounding=math.fsum(part.b_rounding for part in every),
        nan_a=count(part.nan_a for part in every),
        nan_b=count(part.nan_b for part in every),
        infinite_a=count(part.infinite_a for part in every),
        infinite_b=count(part.infinite_b for part in every),
        left_out=count(part.left_out for part in every),
        same_when_lowered=all(lowered) if any(one is not None for one in lowered) else None,
    )


def lower_type(a: DType, b: DType) -> DType | None:
    """The coarser of two float types; None where one is no plain float, or where both are the same 16-bit type."""
    if a not in PRECISIONS or b not in PRECISIONS:
        return None
    lower = max(a, b, key=PRECISIONS.index)
    if a is b:
        return DType.F16 if lower.bits > 16 else None
    return lower


class OwnSums:
    """What one tensor adds to every pair that it is in: its squares by column, what is no number, and the bits that
    its values use."""

    def __init__(self) -> None:
        self.columns: Sums | None = None
        self.nan = self.infinite = self.bits = 0

    def add(self, block: Block) -> None:
        """The next block."""
        if self.columns is None:
            self.columns = block.squares.copy()
        else:
            self.columns += block.squares
        self.nan += block.nan
        self.infinite += block.infinite
        if not finest(self.bits):
            self.bits |= used_bits(block)

    def end_columns(self) -> None:
        """What comes next has other columns."""
        self.columns = None


class PairSums:
    """The sums of one pair of tensors, block after block, in the order of the blocks.

    ``cosines``: keep sums by column for ``cossim``; without them a pair takes next to no memory.
    """

    def __init__(self, a: DType, b: DType, cosines: bool = True) -> None:
        self._width = max(width_of(a), width_of(b), key=[Width.SINGLE, Width.DOUBLE, Width.BYTES].index)
        self._types = (a, b)
        self._lower = lower_type(a, b)
        self._same_lowered = self._lower is not None
        self._changed = self._single = self._elements = self._left_out = 0
        self._cosines = Cosines() if cosines else None
        self._l1 = self._l2 = self._product = 0.0
        self._a_squared = self._b_squared = 0.0
        self._largest = 0.0

    @property
    def readable(self) -> bool:
        """Whether the values are numbers to us, not bytes alone."""
        return self._width is not Width.BYTES

    def add(self, a: Block, b: Block, own: tuple[OwnSums, OwnSums]) -> None:
        """The next block of both; ``own``: what either has added before it."""
        self._elements += a.raw.size * 8 // a.dtype.bits
        alike = a.dtype is b.dtype and same_bytes(a.raw, b.raw)
        if not self.readable:
            self._changed += 0 if alike else int(np.count_nonzero(a.raw != b.raw))
        elif alike and a.finite:
            self._sums(0.0, 0.0, a.squares, a.squares, a.squares)
        elif a.plain and b.plain:
            self._singles(a, b, own)
        else:
            self._doubles(a, b, own)

    def _singles(self, a: Block, b: Block, own: tuple[OwnSums, OwnSums]) -> None:
        x, y = a.values, b.values
        with scratch(x.nbytes) as raw:
            delta = raw.view("<f4").reshape(x.shape)
            np.subtract(x, y, out=delta)
            changed = int(np.count_nonzero(np.not_equal(delta, 0)))
            if changed:
                np.abs(delta, out=delta)
                largest = float(delta.max())
                flat = delta.reshape(-1)
                if not 1e-15 < largest < 1e18:
                    self._doubles(a, b, own)
                    return
                self._look_lowered(a, b, delta)
                self._largest = max(self._largest, largest)
                self._sums(total_of(flat), inner(flat, flat), products(x, y), a.squares, b.squares)
            else:
                self._sums(0.0, 0.0, products(x, y), a.squares, b.squares)
        self._changed += changed
        self._single += changed

    def _doubles(self, a: Block, b: Block, own: tuple[OwnSums, OwnSums]) -> None:
        """The same with every precaution: exact comparison, FP64, and without what is no number."""
        x, y = a.wide(), b.wide()
        good = np.isfinite(x) & np.isfinite(y)
        differ = _differ(a, b, x, y)
        if differ.any():
            self._look_lowered(a, b, None)
        with np.errstate(over="ignore", invalid="ignore"):
            self._single += int(np.count_nonzero(_differ_at_single(x, y)))
            left_out = not good.all()
            if left_out:
                self._left_out += int(good.size - np.count_nonzero(good))
                x[~good] = 0.0
                y[~good] = 0.0
                if self._cosines is not None:
                    self._cosines.leave_out(~good, *own)
            delta = np.abs(x - y)
            self._largest = max(self._largest, float(delta.max(initial=0.0)))
            squares = np.einsum("ij,ij->", delta, delta)
            product = np.einsum("ij,ij->j", x, y)
            # A block's own squares hold the numbers that stand beside what is none.
            a_squares, b_squares = (np.einsum("ij,ij->j", z, z) for z in (x, y)) if left_out else (a.squares, b.squares)
            self._sums(float(delta.sum()), float(squares), product, a_squares, b_squares)
        self._changed += int(np.count_nonzero(differ))

    def _sums(self, l1: float, l2: float, product: Sums, a_squares: Sums, b_squares: Sums) -> None:
        self._l1 += l1
        self._l2 += l2
        self._product += float(product.sum())
        self._a_squared += float(a_squares.sum())
        self._b_squared += float(b_squares.sum())
        if self._cosines is not None:
            self._cosines.add(product, a_squares, b_squares)

    def _look_lowered(self, a: Block, b: Block, delta: Numbers | None) -> None:
        """Whether the two are still one at the coarser type; the first block that is not ends the looking."""
        if not self._same_lowered or self._lower is None:
            return
        if delta is not None and bool(np.any(delta > np.abs(a.values) * _ROUGHLY + _NEARLY_ZERO)):
            self._same_lowered = False
            return
        size = self._lower.itemsize * (a.raw.size // a.dtype.itemsize)
        with scratch(size) as x, scratch(size) as y:
            convert(a.raw, a.dtype, x, self._lower)
            convert(b.raw, b.dtype, y, self._lower)
            self._same_lowered = _equal_numbers(x, y, self._lower)

    def end_columns(self, a: OwnSums, b: OwnSums) -> None:
        """The columns up to here are complete: take their cosines."""
        if self._cosines is not None:
            self._cosines.end(a, b)

    def measures(self, a: OwnSums, b: OwnSums) -> Measures:
        """All figures, once every block has been given."""
        a_type, b_type = self._types
        return Measures(
            elements=self._elements,
            changed=self._changed,
            changed_single=self._single,
            l1=self._l1,
            l2_squared=self._l2,
            largest=self._largest,
            a_squared=self._a_squared,
            b_squared=self._b_squared,
            product=self._product,
            a_rounding=rounding_squared(a_type, a.bits, self._a_squared, self._elements),
            b_rounding=rounding_squared(b_type, b.bits, self._b_squared, self._elements),
            cossim=None if self._cosines is None else self._cosines.mean,
            nan_a=a.nan,
            nan_b=b.nan,
            infinite_a=a.infinite,
            infinite_b=b.infinite,
            left_out=self._left_out,
            same_when_lowered=self._same_lowered if self._changed and self._lower is not None else None,
        )


def same_bytes(x: Bytes, y: Bytes) -> bool:
    """Whether two stretches of bytes are equal; most that are not show it at once."""
    if x.size != y.size or not np.array_equal(x[:64], y[:64]):
        return False
    cut = x.size - x.size % 8
    return np.array_equal(x[:cut].view("<u8"), y[:cut].view("<u8")) and np.array_equal(x[cut:], y[cut:])


def _differ(a: Block, b: Block, x: Sums, y: Sums) -> Flags:
    """Which elements differ as stored: whole numbers beyond 2^53 too, NaN equal to NaN."""
    whole = {"int", "uint", "bool"}
    if a.dtype.kind in whole and b.dtype.kind in whole:
        stored: Flags = np.not_equal(a.raw.view(a.dtype.storage), b.raw.view(b.dtype.storage))
        return stored.reshape(x.shape)
    other: Flags = (x != y) & ~(np.isnan(x) & np.isnan(y))
    return other


def _differ_at_single(x: Sums, y: Sums) -> Flags:
    """Which elements differ after a cast to FP32, where a NaN differs from everything."""
    other: Flags = np.not_equal(x.astype("<f4"), y.astype("<f4"))
    return other


def _equal_numbers(x: Bytes, y: Bytes, dtype: DType) -> bool:
    """Whether two arrays of bit patterns hold the same numbers: the two zeros are one."""
    bits = np.dtype(f"<u{dtype.itemsize}")
    p, q = x.view(bits), y.view(bits)
    other = p != q
    if not other.any():
        return True
    magnitude = bits.type((1 << (dtype.bits - 1)) - 1)
    return not bool(np.any(other & (((p | q) & magnitude) != 0)))
