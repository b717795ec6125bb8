"""What a model's flat array is: ``F.npy`` with all elements, and ``F.npy.json``, which says what they were.

The array has the elements of every tensor in file order, each in C order: float32, or float64 where a floating tensor
is F64. Beside it stands a JSON object: ``schema``, ``source`` (name, format), ``dtype`` and ``count`` of the array,
``metadata``, ``values`` (plain values of a checkpoint), and ``tensors``: in order ``key``, ``dtype``, ``shape``,
``offset`` (in elements) and, where a tensor's bits would not survive the trip, ``bits``: its stored bytes in base64.
That is so for whole numbers too large for the array's type, NaNs with a payload, and types that are no numbers (their
elements are 0 in the array). Format of .npy: numpy.lib.format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.values import SMALL_FLOATS
from lib_toolkit.casting import convert, scratch
from lib_toolkit.dtypes import DType

if TYPE_CHECKING:
    from lib_toolkit.tensors import Bytes, Tensor

SCHEMA = 1
SUFFIX = ".json"
"""What the description is called: the array's name and this."""

STEP = 256 << 10
"""Elements that are handled at a time."""

WIDTHS: Mapping[str, DType] = {"<f4": DType.F32, "<f8": DType.F64}
"""Types of the array by their name in .npy files."""

_WHOLE = frozenset({"int", "uint", "bool"})
_LARGEST_WHOLE = {DType.F32: 1 << 24, DType.F64: 1 << 53}
_FLOATS = (DType.F64, DType.F32, DType.F16, DType.BF16)

# FP16 holds every value of the small floats; of several NaNs the last one stands for all.
_BACK = {dtype: np.zeros(1 << 16, dtype=np.uint8) for dtype in SMALL_FLOATS}
for _dtype, _patterns in SMALL_FLOATS.items():
    _BACK[_dtype][_patterns] = np.arange(256, dtype=np.uint8)


def array_type(tensors: Mapping[str, Tensor]) -> DType:
    """F64 where a tensor is, F32 otherwise."""
    return DType.F64 if any(tensor.dtype is DType.F64 for tensor in tensors.values()) else DType.F32


def to_array(raw: Bytes, kind: DType, out: Bytes, wide: DType) -> bool:
    """Stored bytes as elements of the array; False where ``from_array`` would not give the same bytes back."""
    if kind in _FLOATS:
        convert(raw, kind, out, wide)
    elif kind in SMALL_FLOATS:
        with scratch(raw.size * 2) as half:
            half.view("<u2")[:] = SMALL_FLOATS[kind][raw]
            convert(half, DType.F16, out, wide)
    elif kind.kind in _WHOLE:
        return _whole_to_array(raw, kind, out, wide)
    else:
        out[:] = 0
        return False
    with scratch(raw.size) as again:
        from_array(out, wide, again, kind)
        return np.array_equal(raw, again)


def _whole_to_array(raw: Bytes, kind: DType, out: Bytes, wide: DType) -> bool:
    values = raw.view(kind.storage)
    np.copyto(out.view(wide.storage), values, casting="unsafe")
    if kind is DType.BOOL:
        return not values.size or int(raw.max()) <= 1
    limit = _LARGEST_WHOLE[wide]
    return not values.size or (int(values.max()) <= limit and int(values.min()) >= -limit)


def from_array(flat: Bytes, wide: DType, out: Bytes, kind: DType) -> None:
    """Elements of the array as stored bytes of ``kind``."""
    if kind in _FLOATS:
        convert(flat, wide, out, kind)
    elif kind in SMALL_FLOATS:
        with scratch(out.size * 2) as half:
            convert(flat, wide, half, DType.F16)
            np.take(_BACK[kind], half.view("<u2"), out=out, mode="clip")
    elif kind.kind in _WHOLE:
        with np.errstate(invalid="ignore"):
            np.copyto(out.view(kind.storage), flat.view(wide.storage), casting="unsafe")
    else:
        out[:] = 0
