"""Small neighbours are handled as one piece, and every figure is still each tensor's own."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

from lib_toolkit.casting import Cast
from lib_toolkit.dtypes import DType
from lib_toolkit.files import SourceFile
from lib_toolkit.formats.layout import Slot
from lib_toolkit.progress import SILENT
from lib_toolkit.streaming import PIECE, stream
from lib_toolkit.tensors import Stored, nbytes

VALUES = np.random.default_rng(3).standard_normal(PIECE + 5000).astype("<f4")
SIZES = (1, 7, 1000, 0, 64, PIECE - 2000, 3000)


class Counting(SourceFile):
    """Notes what is read of it."""

    def __init__(self, path):
        super().__init__(path)
        self.ranges = []

    def read_at(self, offset, out):
        self.ranges.append((offset, len(out)))
        super().read_at(offset, out)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "values"
    path.write_bytes(VALUES.tobytes())
    with Counting(path) as opened:
        yield opened


def slots_of(file, cast, gap_after=None):
    """Neighbours in the file and in the result; ``gap_after`` leaves bytes of the source out behind a tensor."""
    slots, source, target = [], 0, 100
    for number, size in enumerate(SIZES):
        tensor = Stored(file, source, DType.F32, (size,))
        tensor = Cast(tensor, DType.F16) if cast else tensor
        slots.append(Slot(f"t{number}", tensor, target, nbytes(tensor)))
        source, target = source + 4 * size + (4 if number == gap_after else 0), target + nbytes(tensor)
    return slots


def run(slots, workers=1, by_key=False):
    written = bytearray(slots[-1].offset + nbytes(slots[-1].tensor))

    def sink(offset, data):
        written[offset : offset + len(data)] = data

    return stream(slots, sink, SILENT, workers, by_key), bytes(written)


def expected(slot, kind):
    first = slot.tensor.source if isinstance(slot.tensor, Cast) else slot.tensor
    begin = first.offset // 4
    return VALUES[begin : begin + first.shape[0]].astype(kind).tobytes()


@pytest.mark.parametrize(("cast", "kind"), [(False, "<f4"), (True, "<f2")])
@pytest.mark.parametrize("gap_after", [None, 2])
@pytest.mark.parametrize("workers", [1, 3])
def test_bytes_and_checksums_are_each_tensors_own(file, cast, kind, gap_after, workers):
    slots = slots_of(file, cast, gap_after)
    outcome, written = run(slots, workers, by_key=True)
    joined = run(slots, workers)
    assert joined[1] == written
    for slot in slots:
        data = expected(slot, kind)
        assert written[slot.offset : slot.offset + len(data)] == data
        assert outcome.crcs.get(slot.key, 0) == zlib.crc32(data)
    for tiles in (outcome.tiles, joined[0].tiles):
        position = slots[0].offset
        for tile in tiles:
            assert tile.offset == position
            position += tile.length
            assert tile.crc == zlib.crc32(written[tile.offset : position])
        assert position == len(written)
    assert len(joined[0].tiles) < len(outcome.tiles)


def test_neighbours_are_read_in_one_go_up_to_a_piece(file):
    run(slots_of(file, cast=True))
    assert len(file.ranges) == 2
    assert sum(count for _, count in file.ranges) == 4 * sum(SIZES)


def test_what_is_no_neighbour_is_read_alone(file):
    slots = slots_of(file, cast=False, gap_after=2)
    slots[1] = replace(slots[1], tensor=Cast(slots[1].tensor, DType.F16))
    run(slots)
    assert (0, 4) in file.ranges
    assert (4, 28) in file.ranges


def test_a_loss_is_told_of_the_tensor_that_has_it(tmp_path):
    values = np.ones(30, "<f4")
    values[12], values[25] = 1e-12, np.nan
    path = tmp_path / "values"
    path.write_bytes(values.tobytes())
    with SourceFile(path) as file:
        tensors = [Stored(file, 40 * number, DType.F32, (10,)) for number in range(3)]
        slots = [Slot(f"t{n}", Cast(tensor, DType.F16), 20 * n, 20) for n, tensor in enumerate(tensors)]
        outcome, written = run(slots)
        assert {key: (lost.vanished, lost.nan) for key, lost in outcome.narrowing.items()} == {
            "t1": (1, 0),
            "t2": (0, 1),
        }
        assert written[:50] == values.astype("<f2").tobytes()[:50]
        values[5] = 1e6
        path.write_bytes(values.tobytes())
    with SourceFile(path) as file:
        slots = [
            replace(slot, tensor=Cast(replace(t, source=file), DType.F16))
            for slot, t in zip(slots, tensors, strict=True)
        ]
        assert run(slots)[0].overflowed == {"t0": 1}
