"""CRC-32 of a whole out of the CRC-32 of its parts, so that ranges can be read in any order by any thread.

The checksum is linear over GF(2): appending n zero bytes to a message multiplies its state by a fixed 32 × 32
bit matrix. Source of the method: the description of crc32_combine in zlib's documentation.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import lru_cache

_POLYNOMIAL = 0xEDB88320


def combine(parts: Iterable[tuple[int, int]]) -> int:
    """The CRC-32 of parts that follow each other, each given as (CRC-32, length in bytes)."""
    total = 0
    for crc, length in parts:
        total = _apply(_zeros(length), total) ^ crc if length else total
    return total


def crc32(data: memoryview, before: int = 0) -> int:
    """The CRC-32 of ``data`` as zip archives use it; ``before``: that of the bytes in front of it."""
    return zlib.crc32(data, before)


def _apply(matrix: tuple[int, ...], vector: int) -> int:
    result, row = 0, 0
    while vector:
        if vector & 1:
            result ^= matrix[row]
        vector >>= 1
        row += 1
    return result


def _times(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_apply(left, column) for column in right)


@lru_cache(maxsize=512)
def _zeros(length: int) -> tuple[int, ...]:
    """The matrix of ``length`` appended zero bytes."""
    if length == 1:
        bit = (_POLYNOMIAL, *(1 << k for k in range(31)))
        two = _times(bit, bit)
        four = _times(two, two)
        return _times(four, four)
    half = _zeros(length // 2)
    square = _times(half, half)
    return _times(square, _zeros(1)) if length % 2 else square
