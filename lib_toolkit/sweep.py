"""One pass over a file, in order, for several consumers at once: each byte is read once and stays in the cache.

A few buffers go round: a worker fills one, every lane that wants it takes it in its turn, then it is free again. A
lane is fed in the order of the file and by one worker at a time, so that a hash can run in it; which worker does what
changes nothing in the result.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from lib_toolkit.files import ByteSource
from lib_toolkit.progress import Progress

CHUNK = 512 << 10
"""Bytes that are read at a time: all lanes find them in the cache."""

BUFFERS = 16
"""Chunks in memory at most."""


class Lane(Protocol):
    """A consumer of the bytes of a file."""

    def wants(self, begin: int, end: int) -> bool:
        """Whether any of the bytes [begin, end) of the file matter to it."""
        ...

    def feed(self, offset: int, data: memoryview) -> None:
        """Take the bytes from ``offset`` on; they are valid only during the call."""
        ...


@dataclass(frozen=True)
class EveryByte:
    """A lane that hands all bytes to a function."""

    take: Callable[[int, memoryview], None]

    def wants(self, begin: int, end: int) -> bool:
        return True

    def feed(self, offset: int, data: memoryview) -> None:
        self.take(offset, data)


@dataclass
class _Chunk:
    """A filled buffer; ``waiting`` lanes have still to take it."""

    offset: int
    data: memoryview
    buffer: memoryview
    number: int
    waiting: int = 0


def sweep(
    source: ByteSource,
    ranges: Iterable[tuple[int, int]],
    lanes: Sequence[Lane],
    progress: Progress,
    workers: int = 1,
) -> None:
    """Read the bytes [begin, end) of each of the ascending ``ranges`` once and feed them to the lanes.

    Counts the bytes in ``progress``. Raises what reading or a lane raises, and CancelledError.
    """
    if workers == 1:
        _feed_in_turn(source, ranges, lanes, progress)
        return
    work = _Sweep(source, ranges, lanes, progress)
    threads = [threading.Thread(target=work.run, daemon=True) for _ in range(workers - 1)]
    for thread in threads:
        thread.start()
    work.run()
    for thread in threads:
        thread.join()
    if work.error is not None:
        raise work.error


def _feed_in_turn(
    source: ByteSource, ranges: Iterable[tuple[int, int]], lanes: Sequence[Lane], progress: Progress
) -> None:
    buffer = memoryview(bytearray(CHUNK))
    for offset, length in _pieces(ranges):
        data = buffer[:length]
        source.read_at(offset, data)
        progress.advance(length)
        for lane in lanes:
            if lane.wants(offset, offset + length):
                lane.feed(offset, data)


class _Sweep:
    """What is still to be read and fed, shared by the workers."""

    def __init__(
        self, source: ByteSource, ranges: Iterable[tuple[int, int]], lanes: Sequence[Lane], progress: Progress
    ) -> None:
        self.error: BaseException | None = None
        self._source = source
        self._pieces = _pieces(ranges)
        self._lanes = lanes
        self._progress = progress
        self._queues: list[deque[_Chunk]] = [deque() for _ in lanes]
        self._busy = [False] * len(lanes)
        self._free: list[memoryview] = []
        self._made = self._read = 0
        self._reading = self._at_end = False
        self._changed = threading.Condition()

    def run(self) -> None:
        """Do what there is to do until all is done or something failed."""
        try:
            while (job := self._next_job()) is not None:
                job()
        except BaseException as error:
            with self._changed:
                self.error = self.error or error
                self._changed.notify_all()

    def _next_job(self) -> Callable[[], None] | None:
        with self._changed:
            while self.error is None:
                lane = self._oldest()
                if lane is not None:
                    self._busy[lane] = True
                    return partial(self._feed, lane)
                if not self._reading and not self._at_end and (self._free or self._made < BUFFERS):
                    self._reading = True
                    return self._fill
                if self._at_end and not any(self._queues):
                    return None
                self._changed.wait()
            return None

    def _oldest(self) -> int | None:
        """The idle lane whose next chunk is the oldest: that one keeps a buffer from going round."""
        ready = [i for i, queue in enumerate(self._queues) if queue and not self._busy[i]]
        return min(ready, key=lambda i: self._queues[i][0].number, default=None)

    def _fill(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            with self._changed:
                self._reading, self._at_end = False, True
                self._changed.notify_all()
            return
        offset, length = piece
        with self._changed:
            if not self._free:
                self._free.append(memoryview(bytearray(CHUNK)))
                self._made += 1
            buffer = self._free.pop()
        data = buffer[:length]
        self._source.read_at(offset, data)
        self._progress.advance(length)
        self._hand_out(_Chunk(offset, data, buffer, self._read))

    def _hand_out(self, chunk: _Chunk) -> None:
        end = chunk.offset + len(chunk.data)
        with self._changed:
            for lane, queue in zip(self._lanes, self._queues, strict=True):
                if lane.wants(chunk.offset, end):
                    queue.append(chunk)
                    chunk.waiting += 1
            if not chunk.waiting:
                self._free.append(chunk.buffer)
            self._read += 1
            self._reading = False
            self._changed.notify_all()

    def _feed(self, lane: int) -> None:
        chunk = self._queues[lane].popleft()
        self._lanes[lane].feed(chunk.offset, chunk.data)
        with self._changed:
            self._busy[lane] = False
            chunk.waiting -= 1
            if not chunk.waiting:
                self._free.append(chunk.buffer)
            self._changed.notify_all()


def _pieces(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges as (offset, length), cut at CHUNK bytes."""
    for begin, end in ranges:
        for offset in range(begin, end, CHUNK):
            yield offset, min(CHUNK, end - offset)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in ascending order, those that touch or overlap joined, empty ones left out."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if begin >= end:
            continue
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined
