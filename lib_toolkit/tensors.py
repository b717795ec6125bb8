"""Lazy tensors: an element type, a shape, and a way to fill a buffer with any range of the values.

A tensor in a file, a cast of it, a strided view of a storage are all the same kind of thing. Buffers are
NumPy arrays of bytes; nothing here holds values, and every method may be called from any thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError
from lib_toolkit.files import ByteSource

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes: TypeAlias = npt.NDArray[np.uint8]

WHOLE_TENSOR_CAP = 4 << 30
"""Bytes of the largest storage that is copied into memory as a whole, for views that no range read can serve."""


class Tensor(Protocol):
    """What every kind of tensor can do."""

    @property
    def dtype(self) -> DType: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def whole(self) -> bool:
        """True where a range costs as much as the whole tensor, so that it had better be read at once."""
        ...

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        """Fill ``out`` with elements [start, stop) in flat C order.

        ``out`` is a contiguous uint8 array of exactly ``dtype.nbytes(stop - start)`` bytes. For types below
        8 bits the bounds are multiples of 8. Raises FormatError when the bytes behind it cannot be read.
        """
        ...


def numel(tensor: Tensor) -> int:
    """Number of elements; 1 for a scalar."""
    return math.prod(tensor.shape)


def nbytes(tensor: Tensor) -> int:
    """Bytes that the values take when stored densely."""
    return tensor.dtype.nbytes(math.prod(tensor.shape))


def read_all(tensor: Tensor) -> Bytes:
    """The bytes of a whole tensor, for small ones. Shape: (nbytes,)."""
    import numpy as np

    out = np.empty(nbytes(tensor), dtype=np.uint8)
    tensor.read_into(0, numel(tensor), out)
    return out


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor whose values lie densely, in C order, at a known offset of a file."""

    source: ByteSource
    offset: int
    dtype: DType
    shape: tuple[int, ...]
    big_endian: bool = False

    @property
    def whole(self) -> bool:
        return False

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        if stop <= start:
            return
        self.source.read_at(self.offset + self.dtype.nbytes(start), out.data)
        if self.big_endian:
            swap_bytes(out, self.dtype)


@dataclass(frozen=True, slots=True)
class Strided:
    """A view of a storage with strides that are not those of C order (transposed, expanded, sliced).

    ``stride`` and ``storage_offset`` count elements, as PyTorch does; strides are not negative. ``offset``
    is where the storage begins, in bytes. The part of the storage that the view touches is copied into
    memory for each read, up to WHOLE_TENSOR_CAP bytes.
    """

    source: ByteSource
    offset: int
    dtype: DType
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    storage_offset: int = 0
    big_endian: bool = False

    @property
    def whole(self) -> bool:
        return True

    @property
    def span(self) -> int:
        """Elements of the storage between the first and the last one that the view touches."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        import numpy as np
        from numpy.lib.stride_tricks import as_strided

        if stop <= start:
            return
        size = self.span * self.dtype.itemsize
        if size > WHOLE_TENSOR_CAP:
            raise FormatError(
                f"A transposed or sliced tensor of {size:,} bytes is larger than the {WHOLE_TENSOR_CAP:,} bytes "
                "that are copied into memory at once; save the model with contiguous tensors."
            )
        raw = np.empty(size, dtype=np.uint8)
        self.source.read_at(self.offset + self.storage_offset * self.dtype.itemsize, raw.data)
        if self.big_endian:
            swap_bytes(raw, self.dtype)
        unit = np.dtype(self.dtype.storage)
        view = as_strided(raw.view(unit), self.shape, tuple(step * unit.itemsize for step in self.stride))
        if stop - start == view.size:
            np.copyto(out.view(unit).reshape(self.shape), view)
            return
        # Only the outermost rows that the range touches are gathered into C order.
        row = math.prod(self.shape[1:])
        first, last = start // row, -(-stop // row)
        rows = np.ascontiguousarray(view[first:last]).reshape(-1)
        out.view(unit)[:] = rows[start - first * row : stop - first * row]


def stored_view(
    source: ByteSource,
    offset: int,
    dtype: DType,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    storage_offset: int = 0,
    big_endian: bool = False,
) -> Stored | Strided:
    """The simplest tensor for a view of a storage: Stored where the strides are those of C order."""
    dense = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step != dense and 0 not in shape:
            return Strided(source, offset, dtype, shape, stride, storage_offset, big_endian)
        dense *= size
    return Stored(source, offset + dtype.nbytes(storage_offset), dtype, shape, big_endian)


def swap_bytes(data: Bytes, dtype: DType) -> None:
    """Turn big-endian values into little-endian ones, in place."""
    width = 4 if dtype is DType.C64 else dtype.itemsize
    if width > 1:
        data.view(f"u{width}").byteswap(inplace=True)


@dataclass(frozen=True, slots=True)
class Filled:
    """A small tensor whose values are given as bytes in C order, such as rewritten position ids."""

    data: bytes
    dtype: DType
    shape: tuple[int, ...]

    @property
    def whole(self) -> bool:
        return False

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        out.data[:] = self.data[self.dtype.nbytes(start) : self.dtype.nbytes(stop)]
