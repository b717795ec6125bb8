"""What the nodes of a pickle stand for once their patterns are recognised."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib_toolkit.dtypes import DType
from lib_toolkit.formats.pickle_nodes import Call

MAX_DIMENSIONS = 32
"""NumPy 1 has no arrays with more."""
_LIMIT = 1 << 63


class MalformedError(Exception):
    """A tensor that contradicts itself; the text follows the file's name and "is damaged or forged: "."""


class UnfitError(Exception):
    """A call that does not have the form its name promises, so that it is kept as a name only."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """An object that was not made: only its name is known. ``level`` is "info" for usual things, or "warning"."""

    name: str
    level: str

    def __str__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True, slots=True)
class RefusedTensor:
    """Something with values that no plain tensor can hold, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A call of something unknown. Its arguments and state may still hold tensors."""

    placeholder: Placeholder
    call: Call


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage outside of the pickle: ``numel`` elements under ``key``. ``view``: its part, as (first, count)."""

    key: str
    dtype: DType
    numel: int
    view: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole storage."""
        return self.numel * self.dtype.itemsize

    @property
    def view_offset(self) -> int:
        """Byte of the storage at which the view begins."""
        return self.view[0] * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A view of a storage, proved to lie inside of it. ``offset`` and ``stride`` count elements of ``dtype``."""

    storage: StorageRef
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArrayRef:
    """A NumPy array whose bytes stand in the pickle, proved to be as many as its shape needs."""

    data: bytes
    dtype: DType
    shape: tuple[int, ...]
    fortran: bool
    big_endian: bool


def whole_number(value: object, what: str) -> int:
    """``value`` when it is a number from 0 to 2^63 - 1. Raises MalformedError."""
    if type(value) is not int or not 0 <= value < _LIMIT:
        raise MalformedError(f"the {what} of a tensor is no usable number")
    return value


def whole_numbers(values: object, what: str) -> tuple[int, ...]:
    """The same for a tuple or list of dimensions. Raises MalformedError."""
    if not isinstance(values, (tuple, list)):
        raise MalformedError(f"the {what} of a tensor is missing")
    if len(values) > MAX_DIMENSIONS:
        raise MalformedError(f"a tensor has {len(values):,} dimensions")
    return tuple(whole_number(value, what) for value in values)


def check_view(ref: TensorRef) -> None:
    """Raise MalformedError unless every element of the view lies inside of its storage."""
    if len(ref.shape) != len(ref.stride):
        raise MalformedError("a tensor has more dimensions than strides, or fewer")
    first, count = ref.storage.view
    if first + count > ref.storage.numel:
        raise MalformedError("a part of a storage reaches beyond its end")
    if math.prod(ref.shape) == 0:
        return
    last = ref.offset + sum((size - 1) * step for size, step in zip(ref.shape, ref.stride, strict=True))
    if (last + 1) * ref.dtype.itemsize > count * ref.storage.dtype.itemsize:
        raise MalformedError("a tensor reaches beyond the end of its storage")
