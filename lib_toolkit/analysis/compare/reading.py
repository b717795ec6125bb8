"""From stored bytes to numbers that can be subtracted, in blocks of 256 Ki elements.

Floats of up to 32 bits become FP32, which holds all of their values; FP64, integers and booleans become FP64, and
beside them the stored values stay for exact comparison. Other types (4 and 6 bits, scales without mantissa, complex
numbers) are compared as bytes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lib_toolkit.analysis.values import SMALL_FLOATS
from lib_toolkit.dtypes import DType

if TYPE_CHECKING:
    import numpy.typing as npt

    from lib_toolkit.tensors import Bytes

    Numbers: TypeAlias = npt.NDArray[np.floating]
    Sums: TypeAlias = npt.NDArray[np.float64]
    Flags: TypeAlias = npt.NDArray[np.bool_]

BLOCK = 256 << 10
"""Elements that are measured at a time: sums within a block are FP32 over 64 values, FP64 beyond, in the order of
blocks. With smaller blocks threads wait for Python more than they compute."""

_COLUMNS = 64 << 10
"""Columns whose sums are kept at a time."""

_LANES = BLOCK // 64
_HEIGHT = 256
_NO_HALF = 65536.0**2
_WIDEN = np.float32(2.0**112)
_FIELDS = np.int32(0x8FFFE000 - (1 << 32))


class Width(Enum):
    """As what a type is measured."""

    SINGLE = "single"
    DOUBLE = "double"
    BYTES = "bytes"


_SINGLE = frozenset({DType.F32, DType.F16, DType.BF16, *SMALL_FLOATS})
_DOUBLE_KINDS = frozenset({"int", "uint", "bool"})
_SMALL_VALUES = {dtype: patterns.view("<f2").astype("<f4") for dtype, patterns in SMALL_FLOATS.items()}


def width_of(dtype: DType) -> Width:
    """How values of a type are measured."""
    if dtype in _SINGLE:
        return Width.SINGLE
    return Width.DOUBLE if dtype is DType.F64 or dtype.kind in _DOUBLE_KINDS else Width.BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements [``start``, ``stop``) of a tensor, ``rows`` of them below each other; ``fresh``: other columns than
    those of the piece before."""

    start: int
    stop: int
    rows: int
    fresh: bool


def pieces(shape: tuple[int, ...]) -> Iterator[Piece]:
    """A tensor in blocks of at most BLOCK elements, each of whole rows, or a part of one row where rows are long.

    A row is what stands under one index of dimension 0. Parts of long rows come column by column, so that sums over
    dimension 0 need no more memory than a block.
    """
    height = shape[0] if shape else 1
    count = 1
    for size in shape:
        count *= size
    if not count:
        return
    width = count // height
    if width <= _COLUMNS:
        step = BLOCK // width
        for row in range(0, height, step):
            last = min(row + step, height)
            yield Piece(row * width, last * width, last - row, row == 0)
        return
    for left in range(0, width, _COLUMNS):
        right = min(left + _COLUMNS, width)
        for row in range(height):
            yield Piece(row * width + left, row * width + right, 1, row == 0)


class Block:
    """One tensor's elements of a block, with buffers that are used again for the next.

    ``raw`` as stored, ``values`` as FP32 or FP64 in rows, ``squares`` their sums of squares by column (non-finite
    values count as nothing). ``plain``: FP32 sums are good enough; ``finite``: there is no NaN and no infinity.
    """

    __slots__ = ("_numbers", "_store", "dtype", "finite", "infinite", "nan", "plain", "raw", "squares", "values")

    def __init__(self, dtype: DType, size: int = BLOCK) -> None:
        """Room for blocks of up to ``size`` elements."""
        self.dtype = dtype
        self._store: Bytes = np.empty(dtype.nbytes(size), dtype=np.uint8)
        self._numbers: Bytes = np.empty(size * (4 if width_of(dtype) is Width.SINGLE else 8), dtype=np.uint8)
        self.raw = self._store
        self.values: Numbers = self._numbers.view("<f4")
        self.squares: Sums = np.empty(0)
        self.plain = self.finite = True
        self.nan = self.infinite = 0

    def room(self, count: int) -> Bytes:
        """The buffer for the stored bytes of ``count`` elements."""
        self.raw = self._store[: self.dtype.nbytes(count)]
        return self.raw

    def take(self, rows: int) -> None:
        """Work out everything from ``raw``."""
        width = width_of(self.dtype)
        if width is Width.BYTES:
            return
        if width is Width.SINGLE:
            flat = _singles(self.raw, self.dtype, self._numbers.view("<f4"))
        else:
            flat = self._numbers.view("<f8")[: self.raw.size // self.dtype.itemsize]
            np.copyto(flat, self.raw.view(self.dtype.storage), casting="unsafe")
        self.values = flat.reshape(rows, -1)
        self.nan = self.infinite = 0
        self.finite = self.plain = True
        if width is Width.SINGLE:
            with np.errstate(over="ignore", invalid="ignore"):
                self.squares = products(self.values, self.values)
            total = float(self.squares.sum())
            if self.dtype is DType.F16 and total >= _NO_HALF:
                np.copyto(flat, self.raw.view("<f2"))
                total = float("inf")
            # Squares of tiny or huge values leave the range of FP32; NaN makes the total NaN. A total of zero is that
            # of zeros, or of values whose every square is too small for FP32.
            self.plain = not flat.any() if total == 0.0 else 1e-25 < total < float("inf")
        if not self.plain or width is Width.DOUBLE:
            self._look_closely()

    def _look_closely(self) -> None:
        wide = self.wide()
        good = np.isfinite(wide)
        self.finite = bool(good.all())
        if not self.finite:
            self.nan = int(np.count_nonzero(np.isnan(wide)))
            self.infinite = int(good.size - np.count_nonzero(good)) - self.nan
            wide[~good] = 0.0
        self.plain = False
        with np.errstate(over="ignore"):
            self.squares = np.einsum("ij,ij->j", wide, wide)

    def wide(self) -> Sums:
        """The values in FP64."""
        with np.errstate(invalid="ignore"):  # signalling NaNs
            return self.values.astype("<f8")


def products(a: Numbers, b: Numbers) -> Sums:
    """Sums over the rows of a·b, by column: FP32 for some hundred rows, FP64 for what is more."""
    if a.shape[1] == 1:
        return np.array([inner(a.reshape(-1), b.reshape(-1))])
    height, width = a.shape
    cut = height - height % _HEIGHT if height > 2 * _HEIGHT else 0
    sums: Sums = np.einsum("ij,ij->j", a[cut:], b[cut:]).astype("<f8")
    if cut:
        x, y = a[:cut].reshape(-1, _HEIGHT, width), b[:cut].reshape(-1, _HEIGHT, width)
        sums += np.einsum("kij,kij->kj", x, y).sum(axis=0, dtype="<f8")
    return sums


def inner(a: Numbers, b: Numbers) -> float:
    """Sum of a·b over flat arrays: FP32 in lanes, which are added in FP64."""
    cut = a.size - a.size % _LANES
    total = 0.0
    if cut:
        total = float(np.einsum("ij,ij->j", a[:cut].reshape(-1, _LANES), b[:cut].reshape(-1, _LANES)).sum(dtype="<f8"))
    return total + float(np.einsum("i,i->", a[cut:].astype("<f8"), b[cut:].astype("<f8")))


def total_of(a: Numbers) -> float:
    """Sum over a flat array, in the same way."""
    cut = a.size - a.size % _LANES
    lanes = np.add.reduce(a[:cut].reshape(-1, _LANES), axis=0) if cut else a[:0]
    return float(lanes.sum(dtype="<f8")) + float(a[cut:].sum(dtype="<f8"))


def _singles(raw: Bytes, dtype: DType, out: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The values of a float type of up to 32 bits at FP32, exactly."""
    if dtype is DType.F32:
        return raw.view("<f4")
    if dtype in _SMALL_VALUES:
        flat = out[: raw.size]
        np.take(_SMALL_VALUES[dtype], raw, out=flat, mode="clip")
        return flat
    flat = out[: raw.size // 2]
    bits = flat.view("<i4")
    if dtype is DType.BF16:
        np.copyto(bits, raw.view("<i2"))
        np.left_shift(bits, 16, out=bits)
        return flat
    # Sign, exponent and fraction moved into their FP32 places; the product mends the exponent, and turns subnormal
    # halves into what they mean. Many times faster than NumPy's own cast. Infinity and NaN come out as numbers from
    # 65,536 on; ``Block.take`` looks for those.
    np.copyto(bits, raw.view("<i2"))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _FIELDS, out=bits)
    np.multiply(flat, _WIDEN, out=flat)
    return flat
