"""What one tensor's values tell, gathered while its bytes pass by in any cuts: health, histogram, digests, a sample.

Everything is looked at as FP16: 65,536 patterns, of which a histogram counts each exactly. A figure that is made of
the histogram is therefore exact, and the same in whatever order and by however many threads the values were read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lib_toolkit.analysis.results import TensorHealth
from lib_toolkit.casting import convert, scratch
from lib_toolkit.dtypes import DType
from lib_toolkit.tensors import swap_bytes

if TYPE_CHECKING:
    import numpy.typing as npt

    from lib_toolkit.tensors import Bytes

    Patterns: TypeAlias = npt.NDArray[np.uint16]
    Histogram: TypeAlias = npt.NDArray[np.int64]

BLOCK = 256 << 10
"""Elements that are handled at a time: a histogram of them stays in the cache."""

PATTERNS = 1 << 16
SAMPLES = 64
"""Elements of a tensor that its sample holds at most, at even distances."""

_NAN, _INFINITY, _MAGNITUDE = 0x7E00, 0x7C00, 0x7FFF


@dataclass(frozen=True, slots=True)
class Part:
    """A run of a tensor's elements, [``start``, ``stop``), that is one tensor in canonical form.

    ``key`` and ``shape`` are canonical; ``owner`` says which component asks for it (None: no component).
    ``turned``: the run is the whole tensor, a matrix that is to be transposed.
    """

    key: str
    shape: tuple[int, ...]
    start: int
    stop: int
    turned: bool = False
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a tensor: digests of ``parts``, a ``sample``, its bytes (``keep``, for small ones), and the
    name of the ``figure`` that its histogram adds to."""

    parts: tuple[Part, ...] = ()
    sample: bool = False
    keep: bool = False
    figure: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A canonical tensor as a fingerprint sees it.

    ``type`` and ``digest``: ``F16`` and the sha256 of the values at FP16 (NaN as 0x7e00), or, for types that are no
    plain floats, the stored type and the sha256 of the stored bytes. ``stored`` and ``beyond``: where finite values
    are beyond FP16, the stored type and the sha256 over each of them in order, as its flat index (unsigned 64 bits)
    followed by its stored value, both little-endian.
    """

    part: Part
    type: str
    digest: str
    stored: str = ""
    beyond: str = ""


@dataclass(frozen=True)
class Facts:
    """What was found of one tensor. ``health`` is None for types that are no floats; ``constant``: all its values
    are one; ``sample`` in FP64; ``data`` are its bytes where they were asked for."""

    records: tuple[Record, ...] = ()
    health: TensorHealth | None = None
    constant: bool = False
    sample: tuple[float, ...] = ()
    data: bytes = b""


class Digester:
    """The digest of one canonical tensor of ``dtype``, made of its elements in order."""

    def __init__(self, dtype: DType) -> None:
        self._dtype = dtype
        self._values = hashlib.sha256()
        self._beyond = hashlib.sha256()
        self._any_beyond = False
        self._position = 0

    def add(self, raw: Bytes, bits: Patterns | None, overflowed: bool) -> None:
        """More elements: ``raw`` as stored, ``bits`` at FP16 (None for types that are no plain floats)."""
        if bits is None:
            self._values.update(raw.data)
            return
        self._values.update(bits.data)
        if overflowed:
            where = np.flatnonzero(_beyond(raw, self._dtype, bits))
            stored = np.dtype(f"<u{self._dtype.itemsize}")
            entries = np.empty(where.size, dtype=[("index", "<u8"), ("value", stored)])
            entries["index"] = where + self._position
            entries["value"] = raw.view(stored)[where]
            self._beyond.update(entries.tobytes())
            self._any_beyond = self._any_beyond or where.size > 0
        self._position += bits.size

    def record(self, part: Part) -> Record:
        """The finished record of ``part``."""
        plain = self._dtype.castable
        kind, digest = (DType.F16.name if plain else self._dtype.name), self._values.hexdigest()
        if not self._any_beyond:
            return Record(part, kind, digest)
        return Record(part, kind, digest, self._dtype.name, self._beyond.hexdigest())


class Gatherer:
    """Takes the bytes of one tensor in order, in any cuts, and tells what they hold."""

    def __init__(self, dtype: DType, shape: tuple[int, ...], request: Request) -> None:
        self._dtype = dtype
        self._shape = shape
        self._count = math.prod(shape)
        self._request = request
        self._straight = [(part, Digester(self._dtype)) for part in request.parts if not part.turned]
        self._turned = [part for part in request.parts if part.turned]
        self._positions = _sample_positions(self._count) if request.sample else None
        self._sample: list[float] = []
        self._kept = bytearray()
        self._carry = bytearray()
        self._done = 0
        self._overflowed = self._vanished = 0
        self._largest = 0.0
        self.histogram: Histogram | None = None
        self._counts_values = self._dtype.castable or self._dtype in SMALL_FLOATS

    def feed(self, data: memoryview, big_endian: bool = False) -> None:
        """The next bytes of the tensor."""
        size = self._dtype.itemsize
        if self._carry:
            missing = size - len(self._carry)
            self._carry += data[:missing]
            data = data[missing:]
            if len(self._carry) < size:
                return
            whole, self._carry = self._carry, bytearray()
            self._elements(np.frombuffer(whole, dtype=np.uint8), big_endian)
        cut = len(data) - len(data) % size
        if cut:
            self._elements(np.frombuffer(data[:cut], dtype=np.uint8), big_endian)
        self._carry += data[cut:]

    def _elements(self, raw: Bytes, big_endian: bool) -> None:
        step = BLOCK * self._dtype.itemsize
        for begin in range(0, raw.size, step):
            block = raw[begin : begin + step]
            if not big_endian and block.view(self._dtype.storage).flags.aligned:
                self._block(block)
                continue
            with scratch(block.size) as own:
                own[:] = block
                if big_endian:
                    swap_bytes(own, self._dtype)
                self._block(own)

    def _block(self, raw: Bytes) -> None:
        count = raw.size * 8 // self._dtype.bits
        if self._turned or self._request.keep:
            self._kept += raw.data
        if not self._counts_values:
            self._digest(raw, None, False, count)
        elif self._dtype.castable:
            with scratch(count * 2) as half:
                bits, overflowed = self._at_fp16(raw, half.view("<u2"))
                self._digest(raw, bits, overflowed, count)
                self._take_sample(bits)
        else:
            bits = SMALL_FLOATS[self._dtype][raw]
            self._count_patterns(bits)
            self._digest(raw, None, False, count)
            self._take_sample(bits)
        self._done += count

    def _at_fp16(self, raw: Bytes, half: Patterns) -> tuple[Patterns, bool]:
        """The patterns at FP16 with canonical NaNs, and whether finite values became infinite."""
        if self._dtype is DType.F16:
            bits = raw.view("<u2")
            if self._count_patterns(bits):
                half[:] = bits
                half[(bits & _MAGNITUDE) > _INFINITY] = _NAN
                return half, False
            return bits, False
        lost = convert(raw, self._dtype, half.view(np.uint8), DType.F16)
        self._count_patterns(half)
        self._overflowed += lost.overflowed
        self._vanished += lost.vanished
        if lost.overflowed:
            wide = _as_fp64(raw, self._dtype)
            self._largest = max(self._largest, float(np.abs(wide[np.isfinite(wide)]).max()))
        return half, lost.overflowed > 0

    def _count_patterns(self, bits: Patterns) -> bool:
        """Add to the histogram; True where a NaN is among them."""
        # bincount wants this type; making it here saves fresh memory for every block.
        with scratch(bits.size * 8) as raw:
            wide = raw.view(np.int64)
            np.copyto(wide, bits)
            counts = np.bincount(wide, minlength=PATTERNS)
        if self.histogram is None:
            self.histogram = counts.astype(np.int64, copy=False)
        else:
            self.histogram += counts
        return bool(counts[_INFINITY + 1 : 0x8000].any() or counts[0x8000 + _INFINITY + 1 :].any())

    def _digest(self, raw: Bytes, bits: Patterns | None, overflowed: bool, count: int) -> None:
        dtype = self._dtype
        for part, digester in self._straight:
            first, last = max(part.start, self._done) - self._done, min(part.stop, self._done + count) - self._done
            if first < last:
                piece = raw[dtype.nbytes(first) : dtype.nbytes(last)]
                digester.add(piece, None if bits is None else bits[first:last], overflowed)

    def _take_sample(self, bits: Patterns) -> None:
        if self._positions is not None:
            here = self._positions[(self._positions >= self._done) & (self._positions < self._done + bits.size)]
            self._sample += bits[here - self._done].view("<f2").astype(np.float64).tolist()

    def facts(self) -> Facts:
        """What was found, once all bytes have been given."""
        records = [digester.record(part) for part, digester in self._straight]
        records += [_turned_record(self._kept, self._dtype, self._shape, part) for part in self._turned]
        health, constant = self._health()
        kept = bytes(self._kept) if self._request.keep else b""
        return Facts(tuple(records), health, constant, tuple(self._sample), kept)

    def _health(self) -> tuple[TensorHealth | None, bool]:
        if not self._counts_values:
            return None, False
        counts = self.histogram
        if counts is None:
            return TensorHealth(0), False
        finite = counts[:_INFINITY] + counts[0x8000 : 0x8000 + _INFINITY]
        infinite = int(counts[_INFINITY] + counts[0x8000 + _INFINITY])
        top = int(finite.size - 1 - np.argmax(finite[::-1] > 0))
        largest = float(np.array(top, "<u2").view("<f2")) if finite.any() else 0.0
        health = TensorHealth(
            count=self._count,
            nan=self._count - int(finite.sum()) - infinite,
            infinite=infinite - self._overflowed,
            zero=int(finite[0]) - self._vanished,
            beyond_fp16=self._overflowed,
            largest=max(self._largest, largest),
            below_fp16=self._vanished,
        )
        return health, int(np.count_nonzero(counts)) == 1 and not self._overflowed and not self._vanished


def _turned_record(stored: bytearray, dtype: DType, shape: Sequence[int], part: Part) -> Record:
    unit = np.dtype(dtype.storage)
    turned = np.ascontiguousarray(np.frombuffer(stored, dtype=unit).reshape(tuple(shape)).T)
    flat = Part(part.key, part.shape, 0, math.prod(part.shape), owner=part.owner)
    straight = Gatherer(dtype, part.shape, Request(parts=(flat,)))
    straight.feed(turned.reshape(-1).view(np.uint8).data)
    return straight.facts().records[0]


def _sample_positions(count: int) -> npt.NDArray[np.int64]:
    return np.arange(min(count, SAMPLES), dtype=np.int64) * count // max(1, min(count, SAMPLES))


def _as_fp64(raw: Bytes, dtype: DType) -> npt.NDArray[np.float64]:
    wide = np.empty(raw.size // dtype.itemsize * 8, dtype=np.uint8)
    convert(raw, dtype, wide, DType.F64)
    return wide.view("<f8")


def _beyond(raw: Bytes, dtype: DType, bits: Patterns) -> npt.NDArray[np.bool_]:
    """Which elements are finite as stored and infinite at FP16."""
    infinite: npt.NDArray[np.bool_] = (bits & _MAGNITUDE) == _INFINITY
    return infinite & np.isfinite(_as_fp64(raw, dtype))


def _small_float_patterns(exponent_bits: int, bias: int, has_infinity: bool) -> Patterns:
    """The FP16 pattern of each value of an 8-bit float; FP16 holds all of them."""
    patterns = np.arange(256, dtype=np.int64)
    mantissa_bits = 7 - exponent_bits
    exponent = (patterns >> mantissa_bits) & ((1 << exponent_bits) - 1)
    fraction = (patterns & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    magnitude = np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias))
    if has_infinity:
        top = exponent == (1 << exponent_bits) - 1
        magnitude[top] = np.where(fraction[top] > 0, np.nan, np.inf)
    else:
        magnitude[(patterns & 0x7F) == 0x7F] = np.nan
    bits = np.where(patterns >= 0x80, -magnitude, magnitude).astype("<f2").view("<u2")
    bits[np.isnan(magnitude)] = _NAN
    return bits


SMALL_FLOATS = {
    DType.F8_E4M3: _small_float_patterns(4, 7, has_infinity=False),
    DType.F8_E5M2: _small_float_patterns(5, 15, has_infinity=True),
}
"""Formats: arXiv 2209.05433, table 1. The FNUZ variants and the scale-only types are not read as numbers."""
