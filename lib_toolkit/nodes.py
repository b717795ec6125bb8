"""Lazy tensors made of others: a range of rows, several stacked, a matrix turned, the same values in another shape.

Each fills a buffer with any range of its values by reading just the ranges of its inputs that are needed; a turned
matrix alone has to be read as a whole. The functions ``rows``, ``stacked``, ``transposed`` and ``reshaped`` are how
they are made: they check the shapes, and undo what would only be done to be undone (turning twice, stacking all the
rows of one tensor), so that a conversion there and back gives the very tensors it began with.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError
from lib_toolkit.tensors import WHOLE_TENSOR_CAP, Tensor, nbytes, numel

if TYPE_CHECKING:
    from lib_toolkit.tensors import Bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows [``first``, ``last``) of a tensor's dimension 0; made by ``rows``."""

    source: Tensor
    first: int
    last: int

    @property
    def dtype(self) -> DType:
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.last - self.first, *self.source.shape[1:])

    @property
    def whole(self) -> bool:
        return self.source.whole

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        shift = self.first * math.prod(self.source.shape[1:])
        self.source.read_into(start + shift, stop + shift, out)


@dataclass(frozen=True, slots=True)
class Stacked:
    """Tensors of one type one after another along dimension 0; made by ``stacked``."""

    parts: tuple[Tensor, ...]

    @property
    def dtype(self) -> DType:
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def whole(self) -> bool:
        return any(part.whole for part in self.parts)

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        ends = list(accumulate(numel(part) for part in self.parts))
        index, position = bisect_right(ends, start), start
        while position < stop:
            begin = ends[index - 1] if index else 0
            until = min(stop, ends[index])
            piece = out[self.dtype.nbytes(position - start) : self.dtype.nbytes(until - start)]
            self.parts[index].read_into(position - begin, until - begin, piece)
            index, position = index + 1, until


@dataclass(frozen=True, slots=True)
class Transposed:
    """A matrix with rows and columns exchanged; made by ``transposed``.

    Every read copies the whole matrix into memory, up to WHOLE_TENSOR_CAP bytes; a larger one raises FormatError.
    """

    source: Tensor

    @property
    def dtype(self) -> DType:
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape[::-1]

    @property
    def whole(self) -> bool:
        return True

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        import numpy as np

        if stop <= start:
            return
        size = nbytes(self.source)
        if size > WHOLE_TENSOR_CAP:
            raise FormatError(
                f"A matrix of {size:,} bytes would have to be turned, which is more than the {WHOLE_TENSOR_CAP:,} "
                "bytes that are copied into memory at once; keep the layout that the model has."
            )
        raw = np.empty(size, dtype=np.uint8)
        self.source.read_into(0, numel(self.source), raw)
        unit = np.dtype(self.dtype.storage)
        turned = raw.view(unit).reshape(self.source.shape).T
        # Only the rows that the range touches are gathered into C order.
        width = self.shape[1]
        top = start // width
        gathered = np.ascontiguousarray(turned[top : -(-stop // width)]).reshape(-1)
        out.view(unit)[:] = gathered[start - top * width : stop - top * width]


@dataclass(frozen=True, slots=True)
class Reshaped:
    """The same values in the same flat order under another shape; made by ``reshaped``."""

    source: Tensor
    shape: tuple[int, ...]

    @property
    def dtype(self) -> DType:
        return self.source.dtype

    @property
    def whole(self) -> bool:
        return self.source.whole

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        self.source.read_into(start, stop, out)


def rows(source: Tensor, first: int, last: int) -> Tensor:
    """Rows [``first``, ``last``) of ``source``. Raises ValueError for a range that it does not have.

    Types below 8 bits can only be cut between whole bytes; other cuts of them raise ValueError too.
    """
    if not source.shape or not 0 <= first <= last <= source.shape[0]:
        raise ValueError(f"no rows {first} to {last} in a tensor of shape {source.shape}")
    if (first, last) == (0, source.shape[0]):
        return source
    source.dtype.nbytes(first * math.prod(source.shape[1:]))
    if isinstance(source, Rows):
        return rows(source.source, source.first + first, source.first + last)
    if isinstance(source, Stacked):
        ends = list(accumulate(part.shape[0] for part in source.parts))
        for part, end in zip(source.parts, ends, strict=True):
            if end - part.shape[0] <= first and last <= end:
                return rows(part, first - end + part.shape[0], last - end + part.shape[0])
    return Rows(source, first, last)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """The ``parts`` on top of each other. Raises ValueError where types or shapes (but for dimension 0) differ."""
    if not parts or any(not part.shape for part in parts):
        raise ValueError("only tensors with rows can be stacked")
    if len({(part.dtype, part.shape[1:]) for part in parts}) > 1:
        raise ValueError("tensors of different types or widths cannot be stacked")
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Stacked) else (part,))]
    for part in flat[:-1]:
        part.dtype.nbytes(numel(part))
    joined: list[Tensor] = []
    for part in flat:
        last = joined[-1] if joined else None
        if isinstance(last, Rows) and isinstance(part, Rows) and part.source is last.source and part.first == last.last:
            joined[-1] = rows(part.source, last.first, part.last)
        else:
            joined.append(part)
    return joined[0] if len(joined) == 1 else Stacked(tuple(joined))


def transposed(source: Tensor) -> Tensor:
    """The matrix ``source`` turned. Raises ValueError for other than two dimensions or types below 8 bits."""
    if len(source.shape) != 2 or source.dtype.bits < 8:
        raise ValueError(f"a tensor of shape {source.shape} and type {source.dtype.name} cannot be turned")
    return source.source if isinstance(source, Transposed) else Transposed(source)


def reshaped(source: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``source`` under another shape. Raises ValueError where the number of elements differs."""
    if math.prod(shape) != numel(source):
        raise ValueError(f"a tensor of shape {source.shape} cannot become {shape}")
    if isinstance(source, Reshaped):
        return reshaped(source.source, shape)
    return source if source.shape == shape else Reshaped(source, shape)
