"""One pass over bytes for several lanes: order, sharing, errors and cancelling, with any number of workers."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

from lib_toolkit import sweep as sweeping
from lib_toolkit.checksums import ChecksumLane
from lib_toolkit.errors import CancelledError, FormatError
from lib_toolkit.model import Checksum
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.sweep import EveryByte, merged, sweep

DATA = bytes(range(251)) * 40_000
SIZE = len(DATA)


class Source:
    def __init__(self, data=DATA, fail_at=None):
        self.data, self.fail_at, self.reads = data, fail_at, []

    def read_at(self, offset, out):
        if self.fail_at is not None and offset >= self.fail_at:
            raise FormatError("it is gone")
        self.reads.append((offset, len(out)))
        out[:] = self.data[offset : offset + len(out)]


class Slow:
    """Takes its time, notes what came, and that no two workers came at once."""

    def __init__(self, begin=0, end=SIZE, wait=0.0):
        self.begin, self.end, self.wait = begin, end, wait
        self.taken, self.threads, self.inside = [], set(), threading.Lock()

    def wants(self, begin, end):
        return begin < self.end and end > self.begin

    def feed(self, offset, data):
        assert self.inside.acquire(blocking=False)
        self.threads.add(threading.current_thread())
        time.sleep(self.wait)
        self.taken.append((offset, bytes(data)))
        self.inside.release()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_lane_gets_every_byte_in_order_and_each_is_read_once(workers):
    source, lanes = Source(), [Slow(), Slow(wait=0.001), Slow(3_000_000, 3_000_001)]
    sweep(source, [(0, SIZE)], lanes, SILENT, workers)
    assert sorted(source.reads) == source.reads
    assert b"".join(data for _, data in lanes[0].taken) == DATA
    assert b"".join(data for _, data in lanes[1].taken) == DATA
    (part,) = lanes[2].taken
    assert part[0] <= 3_000_000 < part[0] + len(part[1])
    assert sum(length for _, length in source.reads) == SIZE


def test_a_slow_lane_holds_up_reading():
    """No more than the stated number of buffers is ever filled and not taken."""
    most = 0
    source, slow = Source(), Slow(wait=0.004)

    class Watch(Slow):
        def feed(self, offset, data):
            nonlocal most
            super().feed(offset, data)
            most = max(most, len(source.reads) - len(slow.taken))

    sweep(source, [(0, SIZE)], [slow, Watch()], SILENT, 3)
    assert 1 < most <= sweeping.BUFFERS


def test_only_the_ranges_are_read():
    source, lane = Source(), Slow()
    ranges = merged([(5_000_000, 5_000_100), (10, 20), (15, 30), (30, 31), (40, 40), (7, 7)])
    assert ranges == [(10, 31), (5_000_000, 5_000_100)]
    sweep(source, ranges, [lane], SILENT, 2)
    assert source.reads == [(10, 21), (5_000_000, 100)]
    assert [data for _, data in lane.taken] == [DATA[10:31], DATA[5_000_000:5_000_100]]


@pytest.mark.parametrize("workers", [1, 4])
def test_errors_of_reading_and_of_lanes_come_out(workers):
    with pytest.raises(FormatError, match="gone"):
        sweep(Source(fail_at=2_000_000), [(0, SIZE)], [Slow()], SILENT, workers)

    def refuse(offset, data):
        raise ValueError("too much")

    with pytest.raises(ValueError, match="too much"):
        sweep(Source(), [(0, SIZE)], [Slow(), EveryByte(refuse)], SILENT, workers)
    assert threading.active_count() < 8


@pytest.mark.parametrize("workers", [1, 4])
def test_cancel_ends_soon(workers):
    source = Source()
    progress = Progress(cancelled=lambda: len(source.reads) >= 3)
    progress.start("reading", SIZE)
    with pytest.raises(CancelledError):
        sweep(source, [(0, SIZE)], [Slow(), Slow()], progress, workers)
    assert len(source.reads) <= 3


def test_progress_counts_the_bytes():
    seen = []
    progress = Progress(lambda status: seen.append(status.done))
    progress.start("reading", SIZE)
    sweep(Source(), [(0, SIZE)], [Slow()], progress, 2)
    assert seen[-1] == SIZE


def test_checksums_of_parts_anywhere():
    """CRC-32 of 'the' parts is computed here bit by bit, as the standard defines it."""

    def crc(data: bytes) -> int:
        value = 0xFFFFFFFF
        for byte in data:
            value ^= byte
            for _ in range(8):
                value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        return value ^ 0xFFFFFFFF

    border = sweeping.CHUNK
    spans = [(5, 100), (border - 50, 100), (2 * border - 3, 3), (2 * border, 7)]
    right = [Checksum(f"p{i}", at, n, crc(DATA[at : at + n])) for i, (at, n) in enumerate(spans)]
    lane = ChecksumLane(right[::-1])
    sweep(Source(), [(0, SIZE)], [lane], SILENT, 2)
    assert lane.wrong() == ()
    damaged = bytearray(DATA)
    damaged[border] ^= 1
    lane = ChecksumLane(right)
    sweep(Source(bytes(damaged)), [(0, SIZE)], [lane], SILENT, 2)
    assert lane.wrong() == ("p1",)


def test_lanes_may_hash():
    whole = hashlib.sha256()
    sweep(Source(), [(0, SIZE)], [EveryByte(lambda _, data: whole.update(data))], SILENT, 4)
    assert whole.digest() == hashlib.sha256(DATA).digest()
