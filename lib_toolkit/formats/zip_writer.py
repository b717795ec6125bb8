"""The records of a zip archive whose entries are stored: headers in front of aligned data, and the directory.

Format facts: PKWARE APPNOTE 6.3.10. Padding goes into a local extra field called "FB", as PyTorch does it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64
"""Data of each entry begin at a multiple of this."""

_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_UTF8 = 1 << 11
_VERSION, _VERSION_64 = 20, 45
_TIME, _DATE = 0, 1 << 5 | 1  # midnight of 1 January 1980, the first moment that zip knows
_PADDING, _ZIP64 = 0x4246, 0x0001


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry lies: its header at ``offset``, its ``size`` bytes at ``data_offset``."""

    name: bytes
    offset: int
    data_offset: int
    size: int

    @property
    def end(self) -> int:
        """The byte behind the data, where the next header may begin."""
        return self.data_offset + self.size


def place(name: str, offset: int, size: int) -> Place:
    """Place an entry of ``size`` bytes whose header begins at ``offset``."""
    raw = name.encode("utf-8")
    least = offset + 30 + len(raw) + (20 if size >= _FULL32 else 0) + 4
    return Place(raw, offset, -(-least // ALIGNMENT) * ALIGNMENT, size)


def local_header(where: Place, crc: int) -> bytes:
    """All that stands between ``where.offset`` and ``where.data_offset``."""
    large = where.size >= _FULL32
    wide = struct.pack("<2H2Q", _ZIP64, 16, where.size, where.size) if large else b""
    size = _FULL32 if large else where.size
    fill = where.data_offset - where.offset - 30 - len(where.name) - len(wide) - 4
    extra = wide + struct.pack("<2H", _PADDING, fill) + b"Z" * fill
    version = _VERSION_64 if large else _VERSION
    lengths = len(where.name), len(extra)
    head = struct.pack("<4s5H3L2H", b"PK\3\4", version, _UTF8, 0, _TIME, _DATE, crc, size, size, *lengths)
    return head + where.name + extra


def directory_size(places: Sequence[Place]) -> int:
    """Bytes of all that follows the last entry."""
    return len(directory(places, [0] * len(places)))


def directory(places: Sequence[Place], crcs: Sequence[int]) -> bytes:
    """The central directory and the end records of an archive that ends with the last of ``places``."""
    start = max(where.end for where in places)
    records = b"".join(_central(where, crc) for where, crc in zip(places, crcs, strict=True))
    count, size = len(places), len(records)
    tail = b""
    if count >= _FULL16 or size >= _FULL32 or start >= _FULL32:
        versions = _VERSION_64, _VERSION_64
        tail = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, *versions, 0, 0, count, count, size, start)
        tail += struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    narrow = min(count, _FULL16)
    sizes = min(size, _FULL32), min(start, _FULL32)
    return records + tail + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, narrow, narrow, *sizes, 0)


def _central(where: Place, crc: int) -> bytes:
    values = [value for value in (where.size, where.size, where.offset) if value >= _FULL32]
    extra = struct.pack(f"<2H{len(values)}Q", _ZIP64, 8 * len(values), *values) if values else b""
    version = _VERSION_64 if values else _VERSION
    size, offset = min(where.size, _FULL32), min(where.offset, _FULL32)
    lengths = len(where.name), len(extra), 0
    head = ("<4s6H3L5H2L", b"PK\1\2", version, version, _UTF8, 0, _TIME, _DATE, crc, size, size, *lengths, 0, 0, 0)
    return struct.pack(*head, offset) + where.name + extra
