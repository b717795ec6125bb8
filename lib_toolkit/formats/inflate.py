"""The bytes of zip entries: small ones at once, packed tensors one at a time, always to exactly the stated size."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass, field

from lib_toolkit.errors import FormatError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats.zip_reader import ZipEntry
from lib_toolkit.tensors import WHOLE_TENSOR_CAP

MAX_RATIO = 100
"""Unpacked bytes for each packed one; real weights do not even reach 2."""
FREE_SIZE = 64 << 20
"""Bytes up to which an entry may unpack at any ratio: a buffer of zeros is harmless."""
_PIECE = 1 << 20


def read_entry(file: SourceFile, entry: ZipEntry, most: int) -> bytes:
    """All bytes of an entry, checked against its CRC. Raises FormatError when damaged or larger than ``most``."""
    if entry.size > most:
        raise FormatError(
            f"{file.path} is not a usual checkpoint: {entry.name[:80]!r} in it has {entry.size:,} bytes "
            f"where at most {most:,} are expected; save the model as safetensors where it was made."
        )
    data = file.read(entry.data_offset, entry.size) if entry.stored else _inflate(file, entry)
    if zlib.crc32(data) != entry.crc:
        raise FormatError(f"{file.path} is damaged: {entry.name[:80]!r} in it fails its checksum; get it again.")
    return bytes(data)


def check_ratio(file: SourceFile, entry: ZipEntry) -> None:
    """Raise FormatError for an entry that would unpack to far more than weights can."""
    if entry.size > max(FREE_SIZE, MAX_RATIO * entry.compressed_size) or entry.size > WHOLE_TENSOR_CAP:
        raise FormatError(
            f"{file.path} is not a usual checkpoint: {entry.name[:80]!r} in it would unpack from "
            f"{entry.compressed_size:,} to {entry.size:,} bytes; save the model as safetensors where it was made."
        )


def _inflate(file: SourceFile, entry: ZipEntry) -> bytearray:
    """Exactly ``entry.size`` bytes; memory and time are bounded by that number. The CRC is not looked at."""
    data = bytearray()
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    position, stop = entry.data_offset, entry.data_offset + entry.compressed_size
    packed = b""
    try:
        while not unpack.eof and len(data) <= entry.size:
            if not packed:
                packed = file.read(position, min(_PIECE, stop - position))
                position += len(packed)
            # One byte more than is left shows a stream that is too long without unpacking it.
            piece = unpack.decompress(packed, min(_PIECE, entry.size - len(data) + 1))
            data += piece
            packed = unpack.unconsumed_tail
            if not piece and not packed and position == stop:
                break
    except zlib.error:
        data.clear()
    if len(data) != entry.size or not unpack.eof or unpack.unused_data or position != stop:
        raise FormatError(f"{file.path} is damaged: {entry.name[:80]!r} in it does not unpack; get it again.")
    return data


@dataclass
class _Shelf:
    """Holds the last unpacked entry of an archive, so that memory never holds two."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    entry: ZipEntry | None = None
    data: bytes = b""


class Inflater:
    """Makes byte sources for packed entries of one file; together they keep one unpacked entry in memory."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._shelf = _Shelf()

    def source(self, entry: ZipEntry) -> InflatedEntry:
        """A source whose offset 0 is the entry's first unpacked byte. Raises FormatError for absurd ratios."""
        check_ratio(self._file, entry)
        return InflatedEntry(self._file, entry, self._shelf)


@dataclass(frozen=True, slots=True)
class InflatedEntry:
    """A packed entry as a ByteSource. Its CRC is checked whenever it is unpacked."""

    file: SourceFile
    entry: ZipEntry
    shelf: _Shelf = field(repr=False)

    def read_at(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``offset`` of the unpacked bytes. Raises FormatError past their end or when damaged."""
        view = out.cast("B") if out.format != "B" or out.ndim != 1 else out
        if offset < 0 or offset + len(view) > self.entry.size:
            raise FormatError(f"{self.file.path} ends inside of {self.entry.name[:80]!r}; get it again.")
        with self.shelf.lock:
            if self.shelf.entry != self.entry:
                self.shelf.entry, self.shelf.data = None, b""
                self.shelf.data = read_entry(self.file, self.entry, self.entry.size)
                self.shelf.entry = self.entry
            view[:] = memoryview(self.shelf.data)[offset : offset + len(view)]
