"""The one pass over a layout: workers read ranges of tensors, cast them, and write them at known offsets."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from lib_toolkit.casting import NOTHING_LOST, Cast, Narrowing, scratch
from lib_toolkit.crc import combine, crc32
from lib_toolkit.errors import FormatError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats.layout import Slot
from lib_toolkit.model import Checksum
from lib_toolkit.progress import Progress
from lib_toolkit.tensors import Stored, Tensor, numel

PIECE = 256 << 10
"""Elements of a tensor that are handled at a time: large enough for the disk, small enough for the cache."""

WRITE = 512 << 10
"""Bytes of one write; larger ones run on fresh memory pages and are slower."""

MOST_WORKERS = 32
"""Threads that a user may wish for: each holds files open, of which some systems give a program no more than 256."""

Sink = Callable[[int, memoryview], None]


@dataclass
class Outcome:
    """What a pass found. ``tiles``: the CRC-32 of every range of the result that was written, in order, each named
    after the first tensor in it; ``narrowing``: what casts lost, by key."""

    tiles: tuple[Checksum, ...] = ()
    narrowing: dict[str, Narrowing] = field(default_factory=dict)

    @property
    def crcs(self) -> dict[str, int]:
        """The CRC-32 of each tensor's bytes by key, after a pass that went ``by_key``; empty tensors have none."""
        return {
            key: combine((tile.crc, tile.length) for tile in tiles)
            for key, tiles in groupby(self.tiles, key=lambda tile: tile.name)
        }

    @property
    def overflowed(self) -> dict[str, int]:
        """Keys of tensors with values that the new type cannot hold, and how many."""
        return {key: lost.overflowed for key, lost in self.narrowing.items() if lost.overflowed}


def default_workers() -> int:
    """Threads for one pass: as many as there are processors, up to four."""
    return max(1, min(4, os.cpu_count() or 1))


def stream(
    slots: Iterable[Slot],
    sink: Sink | None,
    progress: Progress,
    workers: int | None = None,
    by_key: bool = False,
    with_crcs: bool = True,
) -> Outcome:
    """Read every slot's tensor once and hand its bytes to ``sink`` (None: only look at what casts lose).

    As soon as a cast overflows or empties its tensor, nothing more is written, and only the remaining casts are looked
    at: the caller has to change its plan anyway. Small tensors that follow each other are handled as one, unless
    ``by_key`` asks for the checksum of each. Without ``with_crcs`` no checksums of the output are taken. Raises what
    reading or writing raises, and CancelledError.
    """
    work = _Work(list(slots), sink, progress, by_key, with_crcs or by_key)
    threads = [threading.Thread(target=work.run, daemon=True) for _ in range((workers or default_workers()) - 1)]
    for thread in threads:
        thread.start()
    try:
        work.run()
    finally:
        work.stopped = work.stopped or work.error is not None
        for thread in threads:
            thread.join()
    if work.error is not None:
        raise work.error
    return work.outcome()


@dataclass(frozen=True)
class _Piece:
    """Elements [start, stop) of ``tensor``, whose first one comes to lie at ``offset`` of the result.

    ``slots``: the numbers of those that the tensor stands for; more than one where small neighbours are
    handled as one, since a file of thousands of small tensors would else cost thousands of tiny steps.
    """

    slots: range
    tensor: Tensor
    offset: int
    start: int
    stop: int


def _pieces(slots: list[Slot], joining: bool) -> Iterator[_Piece]:
    index = 0
    while index < len(slots):
        end = _end_of_run(slots, index) if joining else index + 1
        first, numbers = slots[index], range(index, end)
        if len(numbers) > 1:
            tensor = _joined(slots[index:end])
            yield _Piece(numbers, tensor, first.offset, 0, numel(tensor))
        else:
            count = numel(first.tensor)
            step = count if first.tensor.whole else PIECE
            for start in range(0, count, max(1, step)):
                yield _Piece(numbers, first.tensor, first.offset, start, min(start + step, count))
        index = end


def _end_of_run(slots: list[Slot], begin: int) -> int:
    """The end of the run of slots from ``begin`` that follow each other in the source as in the result, of one type,
    and are one piece together."""
    first = slots[begin]
    dtype, is_cast = first.tensor.dtype, isinstance(first.tensor, Cast)
    source = _stored(first.tensor)
    if source is None or first.size > (most := dtype.nbytes(PIECE)):
        return begin + 1
    file, kind = source.source, source.dtype
    place, inner = first.offset + first.size, source.offset + first.size * kind.bits // dtype.bits
    for end in range(begin + 1, len(slots)):
        slot = slots[end]
        tensor = slot.tensor
        following = _stored(tensor)
        if (
            following is None
            or slot.offset != place
            or following.offset != inner
            or place + slot.size - first.offset > most
            or following.source is not file
            or following.dtype is not kind
            or tensor.dtype is not dtype
            or isinstance(tensor, Cast) is not is_cast
        ):
            return end
        place += slot.size
        inner += slot.size * kind.bits // dtype.bits
    return len(slots)


def _stored(tensor: Tensor) -> Stored | None:
    """The bytes behind a tensor where they can be handled together with their neighbours'."""
    inner = tensor.source if isinstance(tensor, Cast) else tensor
    return inner if isinstance(inner, Stored) and not inner.big_endian and inner.dtype.bits >= 8 else None


def _joined(slots: list[Slot]) -> Tensor:
    first = slots[0].tensor
    stored = _stored(first)
    assert stored is not None
    count = sum(slot.size for slot in slots) // first.dtype.itemsize
    joined = Stored(stored.source, stored.offset, stored.dtype, (count,))
    return Cast(joined, first.dtype) if isinstance(first, Cast) else joined


class _Work:
    """The pieces still to do and the results so far, shared by the workers."""

    def __init__(self, slots: list[Slot], sink: Sink | None, progress: Progress, by_key: bool, with_crcs: bool) -> None:
        self.slots = slots
        self.with_crcs = with_crcs
        self.sink = sink
        self.progress = progress
        self.error: BaseException | None = None
        self.stopped = False
        self.only_looking = sink is None
        self._pieces = _pieces(slots, joining=not by_key)
        self._lock = threading.Lock()
        self._one_large = threading.Lock()
        self._tiles: list[Checksum] = []
        self._narrowing: dict[int, Narrowing] = {}

    def run(self) -> None:
        """Do pieces until none is left, another worker failed, or the user cancelled."""
        try:
            while True:
                with self._lock:
                    piece = None if self.stopped else next(self._pieces, None)
                if piece is None:
                    return
                self._do(piece)
        except BaseException as error:
            with self._lock:
                self.stopped = True
                self.error = self.error or error

    def _do(self, piece: _Piece) -> None:
        tensor = piece.tensor
        if not self.only_looking or isinstance(tensor, Cast):
            if tensor.whole:
                with self._one_large:
                    self._read_and_write(piece)
            else:
                self._read_and_write(piece)
        source = tensor.source if isinstance(tensor, Cast) else tensor
        self.progress.advance(source.dtype.nbytes(piece.stop - piece.start))

    def _read_and_write(self, piece: _Piece) -> None:
        tensor, start, stop = piece.tensor, piece.start, piece.stop
        with scratch(tensor.dtype.nbytes(stop - start)) as out:
            lost = NOTHING_LOST
            if isinstance(tensor, Cast):
                lost = tensor.read_counted(start, stop, out)
                if lost and len(piece.slots) > 1:
                    self._one_by_one(piece)  # whose loss it is must be known
                    return
            else:
                tensor.read_into(start, stop, out)
            data = out.data
            offset = piece.offset + tensor.dtype.nbytes(start)
            self._note(piece, offset, data, lost)
            if self.sink is not None and not self.only_looking:
                for position in range(0, len(data), WRITE):
                    self.sink(offset + position, data[position : position + WRITE])

    def _one_by_one(self, piece: _Piece) -> None:
        for index in piece.slots:
            slot = self.slots[index]
            self._read_and_write(_Piece(range(index, index + 1), slot.tensor, slot.offset, 0, numel(slot.tensor)))

    def _note(self, piece: _Piece, offset: int, data: memoryview, lost: Narrowing) -> None:
        """Keep the checksum of a piece's bytes, and what a cast of it lost."""
        first = piece.slots[0]
        tile = Checksum(self.slots[first].key, offset, len(data), crc32(data)) if self.with_crcs and data else None
        with self._lock:
            if tile is not None:
                self._tiles.append(tile)
            if lost or (lost.zeros and len(piece.slots) == 1):
                whole = self._narrowing[first] = self._narrowing.get(first, NOTHING_LOST) + lost
                count = numel(self.slots[first].tensor)
                sure = lost.overflowed or 2 * whole.vanished > count
                self.only_looking = self.only_looking or bool(sure)

    def outcome(self) -> Outcome:
        narrowing = {self.slots[index].key: lost for index, lost in sorted(self._narrowing.items()) if lost}
        return Outcome(tuple(sorted(self._tiles, key=lambda tile: tile.offset)), narrowing)


def source_bytes(slots: Iterable[Slot]) -> int:
    """Bytes that a pass over the slots reads from its sources."""
    return sum(
        slot.size * slot.tensor.source.dtype.bits // slot.tensor.dtype.bits
        if isinstance(slot.tensor, Cast)
        else slot.size
        for slot in slots
    )


class _Ledger:
    """CRC-32 of everything that was read from the parts of a container that state one."""

    def __init__(self, file: SourceFile, checksums: Iterable[Checksum]) -> None:
        self._file = file
        self._sums = sorted(checksums, key=lambda c: c.offset)
        self._starts = [c.offset for c in self._sums]
        self._read: list[dict[tuple[int, int], int]] = [{} for _ in self._sums]

    def record(self, offset: int, data: memoryview) -> None:
        index = bisect_right(self._starts, offset) - 1
        if index >= 0 and offset + len(data) <= self._sums[index].offset + self._sums[index].length:
            self._read[index][offset, len(data)] = crc32(data)

    def verify(self) -> None:
        for checksum, parts in zip(self._sums, self._read, strict=True):
            if parts and self._crc(checksum, parts) != checksum.crc:
                raise FormatError(
                    f"{self._file.path} is damaged: the checksum of {checksum.name!r} in it does not fit; get it again."
                )

    def _crc(self, checksum: Checksum, parts: dict[tuple[int, int], int]) -> int:
        position, tiles = checksum.offset, []
        for (offset, length), crc in sorted(parts.items()):
            if offset != position:
                break
            tiles.append((crc, length))
            position += length
        else:
            if position == checksum.offset + checksum.length:
                return combine(tiles)
        return self._read_whole(checksum)

    def _read_whole(self, checksum: Checksum) -> int:
        """A view used only a part of it, or overlapping parts."""
        tiles = []
        with scratch(WRITE) as buffer:
            for begin in range(0, checksum.length, WRITE):
                data = buffer.data[: min(WRITE, checksum.length - begin)]
                self._file.read_at(checksum.offset + begin, data)
                tiles.append((crc32(data), len(data)))
        return combine(tiles)


@contextmanager
def verified_reads(file: SourceFile | None, checksums: Iterable[Checksum]) -> Iterator[Callable[[], None]]:
    """While open, note the checksums of what is read; the function it gives raises FormatError where one is wrong.

    Parts of which nothing was read are not looked at.
    """
    if file is None or not (sums := list(checksums)):
        yield lambda: None
        return
    ledger = _Ledger(file, sums)

    def verify() -> None:
        file.observer = None
        ledger.verify()

    file.observer = ledger.record
    try:
        yield verify
    finally:
        file.observer = None
