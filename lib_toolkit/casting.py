"""Casts between floating-point types, and the lazy tensor that casts what it reads.

NumPy does the work, or PyTorch where the process has already loaded it: its casts are about ten times faster
and the bits are the same (tested). Every NaN that passes a cast becomes the canonical one (0x7e00 in F16).
Rounding is to nearest, ties to even. BF16 has no NumPy type and is made from FP32 by bit arithmetic; FP64
to BF16 rounds to FP32 first.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.dtypes import DType

if TYPE_CHECKING:
    import numpy.typing as npt

    from lib_toolkit.tensors import Bytes, Tensor

_NAN = {DType.F64: 0x7FF8000000000000, DType.F32: 0x7FC00000, DType.F16: 0x7E00, DType.BF16: 0x7FC0}
_INFINITY = {DType.F64: 0x7FF0000000000000, DType.F32: 0x7F800000, DType.F16: 0x7C00, DType.BF16: 0x7F80}
_BITS = {DType.F64: "<u8", DType.F32: "<u4", DType.F16: "<u2", DType.BF16: "<u2"}


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a cast could not keep, in numbers of elements.

    ``overflowed``: finite before, infinite after. ``vanished``: not zero before, zero after. ``nan``: NaN before
    (and after). ``zeros``: zero before, which is no loss, but tells how many others there are. Counts of several
    ranges add up.
    """

    overflowed: int = 0
    vanished: int = 0
    nan: int = 0
    zeros: int = 0

    def __add__(self, other: Narrowing) -> Narrowing:
        return Narrowing(
            self.overflowed + other.overflowed,
            self.vanished + other.vanished,
            self.nan + other.nan,
            self.zeros + other.zeros,
        )

    def __bool__(self) -> bool:
        return bool(self.overflowed or self.vanished or self.nan)

    def empties(self, count: int) -> bool:
        """Whether of a tensor of ``count`` elements most would be gone: of those that are not zero, more than half."""
        return 2 * self.vanished > count - self.zeros


NOTHING_LOST = Narrowing()


class _Spare(threading.local):
    def __init__(self) -> None:
        self.buffers: list[Bytes] = []


_SPARE = _Spare()


@contextmanager
def scratch(size: int) -> Iterator[Bytes]:
    """A buffer of ``size`` bytes of this thread's own, used again and again: fresh memory costs more than a cast."""
    buffer = _SPARE.buffers.pop() if _SPARE.buffers else np.empty(0, dtype=np.uint8)
    if len(buffer) < size:
        buffer = np.empty(size, dtype=np.uint8)
    try:
        yield buffer[:size]
    finally:
        if len(buffer) <= _KEEP and len(_SPARE.buffers) < _KEEP_COUNT:
            _SPARE.buffers.append(buffer)


_KEEP = 8 << 20
_KEEP_COUNT = 6


@dataclass(frozen=True, slots=True)
class Cast:
    """A tensor at another precision: both types are among F64, F32, F16 and BF16."""

    source: Tensor
    dtype: DType

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def whole(self) -> bool:
        return self.source.whole

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        self.read_counted(start, stop, out)

    def read_counted(self, start: int, stop: int, out: Bytes) -> Narrowing:
        """As ``read_into``, and says what the cast lost in this range."""
        kind = self.source.dtype
        with scratch(kind.nbytes(stop - start)) as raw:
            self.source.read_into(start, stop, raw)
            return convert(raw, kind, out, self.dtype)


def cast(tensor: Tensor, dtype: DType) -> Tensor:
    """``tensor`` at another precision. A cast of a cast goes back to its source, so that nothing is rounded twice."""
    source = tensor.source if isinstance(tensor, Cast) else tensor
    return source if source.dtype is dtype else Cast(source, dtype)


def losses(narrowing: Mapping[str, Narrowing], tensors: Mapping[str, Tensor]) -> Narrowing:
    """What casts lost in all of the tensors together, as they are now: one that kept its type has lost nothing."""
    total = sum(narrowing.values(), NOTHING_LOST)
    kept = sum((lost for key, lost in narrowing.items() if not isinstance(tensors.get(key), Cast)), NOTHING_LOST)
    return Narrowing(total.overflowed - kept.overflowed, total.vanished - kept.vanished, total.nan)


def convert(data: Bytes, kind: DType, out: Bytes, target: DType) -> Narrowing:
    """Cast ``data`` (elements of ``kind``, as bytes) into ``out`` (as many elements of ``target``)."""
    if kind is target:
        out[:] = data
        return NOTHING_LOST
    torch = sys.modules.get("torch")
    if torch is not None and DType.F64 not in (kind, target):
        _cast_torch(torch, data, kind, out, target)
    else:
        _cast_numpy(data, kind, out, target)
    return _settle(data, kind, out, target)


def _cast_torch(torch: ModuleType, data: Bytes, kind: DType, out: Bytes, target: DType) -> None:
    def view(raw: Bytes, dtype: DType) -> object:
        if dtype is DType.BF16:
            return torch.from_numpy(raw.view("<i2")).view(torch.bfloat16)
        return torch.from_numpy(raw.view(dtype.storage))

    view(out, target).copy_(view(data, kind))  # type: ignore[attr-defined]


def _cast_numpy(data: Bytes, kind: DType, out: Bytes, target: DType) -> None:
    with np.errstate(all="ignore"):
        if kind is DType.BF16:
            with scratch(len(data) * 2) as wide:
                np.left_shift(data.view("<u2"), 16, out=wide.view("<u4"), dtype="<u4", casting="unsafe")
                _cast_ieee(wide.view("<f4"), out, target)
        else:
            _cast_ieee(data.view(kind.storage), out, target)


def _cast_ieee(values: npt.NDArray[np.floating], out: Bytes, target: DType) -> None:
    if target is not DType.BF16:
        np.copyto(out.view(target.storage), values, casting="unsafe")
        return
    if values.dtype == np.float32:
        _round_to_bf16(values.view("<u4"), out.view("<u2"))
        return
    with scratch(values.size * 4) as single:
        np.copyto(single.view("<f4"), values, casting="unsafe")
        _round_to_bf16(single.view("<u4"), out.view("<u2"))


def _round_to_bf16(bits: npt.NDArray[np.uint32], out: npt.NDArray[np.uint16]) -> None:
    """Keep the upper half of each FP32 pattern, rounded to nearest even; NaNs must not round into infinity."""
    with scratch(bits.size * 4) as raw:
        work = raw.view("<u4")
        np.right_shift(bits, 16, out=work)
        np.bitwise_and(work, 1, out=work)
        np.add(work, 0x7FFF, out=work)
        np.add(work, bits, out=work)
        np.right_shift(work, 16, out=work)
        np.copyto(out, work, casting="unsafe")
    nan = np.isnan(bits.view("<f4"))
    if nan.any():
        out[nan] = _NAN[DType.BF16]


def _settle(data: Bytes, kind: DType, out: Bytes, target: DType) -> Narrowing:
    """Make NaNs canonical and count the losses; the common case, where nothing is special, costs two quick looks."""
    bits = out.view(_BITS[target])
    sign = bits.dtype.type(1 << (bits.dtype.itemsize * 8 - 1))
    infinity = bits.dtype.type(_INFINITY[target])
    overflowed = nan = vanished = before = 0
    with scratch(out.nbytes) as raw:
        magnitude = np.bitwise_and(bits, ~sign, out=raw.view(bits.dtype))
        if magnitude.size and magnitude.max() >= infinity:
            is_nan = magnitude > infinity
            nan = int(np.count_nonzero(is_nan))
            bits[is_nan] = _NAN[target]
            overflowed = int(np.count_nonzero(magnitude == infinity)) - _count_special(data, kind, infinite=True)
        if target.bits < kind.bits or (kind, target) in _SHORTER_RANGE:
            zeros = magnitude.size - int(np.count_nonzero(magnitude))
            if zeros:
                before = _count_special(data, kind, infinite=False)
                vanished = zeros - before
    return Narrowing(overflowed, vanished, nan, before)


_SHORTER_RANGE = {(DType.BF16, DType.F16)}
"""Casts between types of equal size where small values vanish."""


def _count_special(data: Bytes, kind: DType, infinite: bool) -> int:
    """How many infinities, or how many zeros, the source holds."""
    bits = data.view(_BITS[kind])
    sign = bits.dtype.type(1 << (bits.dtype.itemsize * 8 - 1))
    with scratch(data.nbytes) as raw:
        magnitude = np.bitwise_and(bits, ~sign, out=raw.view(bits.dtype))
        if infinite:
            return int(np.count_nonzero(magnitude == bits.dtype.type(_INFINITY[kind])))
        return int(magnitude.size) - int(np.count_nonzero(magnitude))
