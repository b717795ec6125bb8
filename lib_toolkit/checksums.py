"""The checksums that a container states for its parts, checked while the file passes by."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable

from lib_toolkit.model import Checksum


class ChecksumLane:
    """Computes the CRC-32 of each part; parts do not overlap."""

    def __init__(self, checksums: Iterable[Checksum]) -> None:
        self._sums = sorted(checksums, key=lambda part: part.offset)
        self._begins = [part.offset for part in self._sums]
        self._crcs = [0] * len(self._sums)
        self._first = 0

    def wants(self, begin: int, end: int) -> bool:
        before = bisect_left(self._begins, end)
        return before > 0 and self._sums[before - 1].offset + self._sums[before - 1].length > begin

    def feed(self, offset: int, data: memoryview) -> None:
        while self._first < len(self._sums) and self._end(self._first) <= offset:
            self._first += 1
        for index in range(self._first, bisect_left(self._begins, offset + len(data))):
            piece = data[max(0, self._begins[index] - offset) : self._end(index) - offset]
            self._crcs[index] = zlib.crc32(piece, self._crcs[index])

    def _end(self, index: int) -> int:
        return self._sums[index].offset + self._sums[index].length

    def wrong(self) -> tuple[str, ...]:
        """Names of the parts that are not what they were when they were written; ask after the whole file."""
        return tuple(part.name for part, crc in zip(self._sums, self._crcs, strict=True) if part.crc != crc)
