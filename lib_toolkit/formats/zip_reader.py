"""The directory of a zip archive, read so strictly that every other reader must see the same files.

Scanners and loaders disagree about archives that say one thing in two places: two entries of one name, a
local header unlike its central one, two directories. Such archives are refused. No name found in an archive
ever touches the file system; an entry is a place in the file and nothing more.

Format facts: PKWARE APPNOTE 6.3.10, sections 4.3 (records), 4.4 (fields) and 4.5 (extra fields). Writers of
PyTorch set flag bit 3 and leave the local sizes at zero, pad with a local extra field, and always add a
zip64 end record; all of that is valid and read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from lib_toolkit.errors import FormatError, IncompleteError
from lib_toolkit.files import SourceFile

STORED, DEFLATED = 0, 8
MAX_DIRECTORY = 128 << 20
"""Bytes of the largest central directory that is read; about 1.5 million entries."""

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_LOCATOR_MARK, _END64_MARK, _DESCRIPTOR_MARK = b"PK\6\7", b"PK\6\6", b"PK\7\x08"
_MAX_COMMENT = 0xFFFF
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _HAS_DESCRIPTOR, _STRONG, _UTF8, _MASKED = 1 << 0, 1 << 3, 1 << 6, 1 << 11, 1 << 13
_EXTRA_ZIP64, _EXTRA_OTHER_NAME = 0x0001, 0x7075


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One file of an archive. ``data_offset`` is where its bytes begin; ``size`` counts them unpacked."""

    name: str
    method: int
    data_offset: int
    compressed_size: int
    size: int
    crc: int

    @property
    def stored(self) -> bool:
        """Whether the bytes lie in the file as they are."""
        return self.method == STORED


@dataclass(frozen=True, slots=True)
class _Central:
    """What the central directory says of an entry; ``offset`` is that of its local header."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    crc: int
    compressed_size: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Directory:
    offset: int
    size: int
    count: int


def read_directory(file: SourceFile) -> tuple[ZipEntry, ...]:
    """All entries of the archive, in directory order.

    Raises FormatError where the archive is damaged, incomplete, encrypted, in several parts, or ambiguous:
    whatever two readers could understand differently.
    """
    directory = _find_directory(file)
    centrals = list(_read_centrals(file, directory))
    _check_names(file, centrals)
    spans: list[tuple[int, int, str]] = []
    entries: list[ZipEntry] = []
    for central in centrals:
        start = _check_local(file, central, directory.offset)
        stop = start + central.compressed_size
        if central.flags & _HAS_DESCRIPTOR:
            stop += _descriptor_length(file, central, stop, directory.offset)
        spans.append((central.offset, stop, central.name))
        entries.append(
            ZipEntry(central.name, central.method, start, central.compressed_size, central.size, central.crc)
        )
    _check_disjoint(file, spans)
    return tuple(entries)


def _refuse(file: SourceFile, what: str) -> FormatError:
    return FormatError(f"{file.path} is a damaged or misleading zip archive: {what}; get the file again.")


def _find_directory(file: SourceFile) -> _Directory:
    """The central directory's place, agreed on by all end records."""
    position, end = _find_end(file)
    _, disk, first_disk, count_here, count, size, offset, _ = end
    directory = _Directory(offset, size, count)
    limit = position
    locator = file.read(position - _LOCATOR.size, _LOCATOR.size) if position >= _LOCATOR.size else b""
    if locator.startswith(_LOCATOR_MARK):
        limit, directory = _read_zip64_end(file, position - _LOCATOR.size, locator)
        for old, new, full in ((count, directory.count, _FULL16), (size, directory.size, _FULL32)):
            if old not in (new, full):
                raise _refuse(file, "its two end records disagree")
        if offset not in (directory.offset, _FULL32):
            raise _refuse(file, "its two end records disagree")
    if (disk, first_disk) not in ((0, 0), (_FULL16, _FULL16)) or count_here != count:
        raise _refuse(file, "it is one part of an archive in several parts")
    if directory.offset + directory.size != limit:
        raise _refuse(file, "its directory is not where its end record says")
    if directory.size > MAX_DIRECTORY or directory.count * _CENTRAL.size > directory.size:
        raise _refuse(file, f"it claims {directory.count:,} entries in {directory.size:,} bytes")
    return directory


def _find_end(file: SourceFile) -> tuple[int, tuple[int, ...]]:
    """Position and fields of the only end record. Nothing but its comment may follow it."""
    if file.size < _END.size:
        raise IncompleteError(f"{file.path} is an incomplete zip archive; it was cut off, get it again.")
    count = min(file.size, _END.size + _MAX_COMMENT)
    tail = file.read(file.size - count, count)
    found = tail.rfind(_END_MARK)
    if found < 0:
        raise IncompleteError(
            f"{file.path} is an incomplete zip archive without a directory; it was cut off, get it again."
        )
    if found + _END.size > len(tail):
        raise _refuse(file, "its end record is cut off")
    fields = _END.unpack_from(tail, found)
    if found + _END.size + fields[7] != len(tail):
        raise _refuse(file, "something follows its end, or its comment holds a second end record")
    return file.size - count + found, fields


def _read_zip64_end(file: SourceFile, locator_at: int, locator: bytes) -> tuple[int, _Directory]:
    """Where the zip64 end record begins, and the directory that it states."""
    _, disk, position, disks = _LOCATOR.unpack(locator)
    if disk != 0 or disks > 1:
        raise _refuse(file, "it is one part of an archive in several parts")
    if position + _END64.size > locator_at:
        raise _refuse(file, "its zip64 end record is not where it should be")
    mark, length, _, _, here, first, count_here, count, size, offset = _END64.unpack(file.read(position, _END64.size))
    if mark != _END64_MARK or position + 12 + length != locator_at:
        raise _refuse(file, "its zip64 end record is not where it should be")
    if here or first or count_here != count:
        raise _refuse(file, "it is one part of an archive in several parts")
    return position, _Directory(offset, size, count)


def _read_centrals(file: SourceFile, directory: _Directory) -> Iterator[_Central]:
    data = file.read(directory.offset, directory.size)
    position = 0
    for _ in range(directory.count):
        if position + _CENTRAL.size > len(data) or not data.startswith(_CENTRAL_MARK, position):
            raise _refuse(file, "its directory is cut off")
        fields = _CENTRAL.unpack_from(data, position)
        name_at = position + _CENTRAL.size
        extra_at = name_at + fields[10]
        position = extra_at + fields[11] + fields[12]
        if position > len(data):
            raise _refuse(file, "its directory is cut off")
        yield _central(file, fields, data[name_at:extra_at], data[extra_at : extra_at + fields[11]])
    if position != len(data):
        raise _refuse(file, "its directory holds more than the entries it counts")


def _central(file: SourceFile, fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> _Central:
    """An entry of the directory, with 64-bit values taken from its zip64 extra field where they are needed."""
    _, _, _, flags, method, _, _, crc, packed, size, _, _, _, disk, _, _, offset = fields
    try:
        name = raw_name.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        raise _refuse(file, "the name of an entry is not text") from None
    if not name or "\0" in name:
        raise _refuse(file, "the name of an entry is empty or holds a zero byte")
    if flags & (_ENCRYPTED | _STRONG | _MASKED):
        raise FormatError(f"{file.path} is an encrypted zip archive; unpack it with its password first.")
    size, packed, offset, disk = _widened(file, extra, size, packed, offset, disk)
    if disk:
        raise _refuse(file, "it is one part of an archive in several parts")
    if method not in (STORED, DEFLATED):
        raise _refuse(file, f"{name[:80]!r} is packed with method {method}, which checkpoints never use")
    if method == STORED and packed != size:
        raise _refuse(file, f"{name[:80]!r} has two different sizes")
    return _Central(raw_name, name, flags, method, crc, packed, size, offset)


def _widened(file: SourceFile, extra: bytes, size: int, packed: int, offset: int, disk: int) -> tuple[int, ...]:
    """The four values, those that are full (all bits set) replaced by their zip64 ones."""
    values = [size, packed, offset, disk]
    full = [index for index, most in enumerate((_FULL32, _FULL32, _FULL32, _FULL16)) if values[index] == most]
    found = _extra_fields(file, extra)
    if _EXTRA_OTHER_NAME in found:
        raise _refuse(file, "an entry has two names")
    if not full:
        return tuple(values)
    wide, position = found.get(_EXTRA_ZIP64, b""), 0
    for index in full:
        width = 4 if index == 3 else 8
        if position + width > len(wide):
            raise _refuse(file, "the size of an entry is missing")
        values[index] = int.from_bytes(wide[position : position + width], "little")
        position += width
    return tuple(values)


def _extra_fields(file: SourceFile, extra: bytes) -> dict[int, bytes]:
    """Extra fields by number. Fewer than four trailing bytes are padding."""
    fields: dict[int, bytes] = {}
    position = 0
    while position + 4 <= len(extra):
        number, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if position + length > len(extra) or number in fields:
            raise _refuse(file, "the extra fields of an entry are damaged")
        fields[number] = extra[position : position + length]
        position += length
    return fields


def _check_names(file: SourceFile, centrals: list[_Central]) -> None:
    seen: set[str] = set()
    for central in centrals:
        folded = central.name.casefold()
        if folded in seen:
            raise _refuse(file, f"two entries are called {central.name[:80]!r}")
        seen.add(folded)


def _check_local(file: SourceFile, central: _Central, limit: int) -> int:
    """Where the entry's data begin, once its local header is known to say the same as the directory."""
    name = central.name[:80]
    head = central.offset + _LOCAL.size
    if head + len(central.raw_name) > limit:
        raise _refuse(file, f"{name!r} lies outside of the archive")
    data = file.read(central.offset, _LOCAL.size + len(central.raw_name))
    fields: tuple[int, ...] = _LOCAL.unpack_from(data)
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = fields
    if (
        not data.startswith(_LOCAL_MARK)
        or name_length != len(central.raw_name)
        or data[_LOCAL.size :] != central.raw_name
    ):
        raise _refuse(file, f"{name!r} has another name where its data begin")
    if flags != central.flags or method != central.method:
        raise _refuse(file, f"{name!r} is described in two different ways")
    start = head + name_length + extra_length
    if start + central.compressed_size > limit:
        raise _refuse(file, f"{name!r} lies outside of the archive")
    if _FULL32 in (packed, size):
        extra = file.read(head + name_length, extra_length)
        size, packed, _, _ = _widened(file, extra, size, packed, 0, 0)
    stated, expected = (crc, packed, size), (central.crc, central.compressed_size, central.size)
    deferred = flags & _HAS_DESCRIPTOR
    for value, wanted in zip(stated, expected, strict=True):
        if value != wanted and not (deferred and value == 0):
            raise _refuse(file, f"{name!r} is described in two different ways")
    return start


def _descriptor_length(file: SourceFile, central: _Central, position: int, limit: int) -> int:
    """Length of the data descriptor behind an entry: 12 to 24 bytes, with or without a mark, narrow or wide."""
    data = file.read(position, min(24, limit - position))
    narrow = max(central.size, central.compressed_size) <= _FULL32
    for lead in (_DESCRIPTOR_MARK, b""):
        for layout in ("<3L", "<L2Q") if narrow else ("<L2Q",):
            wanted = lead + struct.pack(layout, central.crc, central.compressed_size, central.size)
            if data.startswith(wanted):
                return len(wanted)
    raise _refuse(file, f"{central.name[:80]!r} is described in two different ways")


def _check_disjoint(file: SourceFile, spans: list[tuple[int, int, str]]) -> None:
    spans.sort()
    for (_, stop, first), (start, _, second) in pairwise(spans):
        if start < stop:
            raise _refuse(file, f"{first[:80]!r} and {second[:80]!r} share bytes")
