"""Strided views against NumPy's own, on any range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError
from lib_toolkit.files import SourceFile
from lib_toolkit.tensors import Stored, Strided, nbytes, numel, read_all, stored_view


class Memory:
    """A ByteSource over bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, out: memoryview) -> None:
        assert offset + len(out) <= len(self.data)
        out[:] = self.data[offset : offset + len(out)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_view_and_any_range(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), max_size=4)))
    stride = tuple(data.draw(st.integers(0, 7)) for _ in shape)
    begin = data.draw(st.integers(0, 5))
    span = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    storage = np.arange(begin + span, dtype="<i4")
    expected = np.lib.stride_tricks.as_strided(storage[begin:], shape, tuple(4 * s for s in stride)).ravel()
    tensor = stored_view(Memory(b"head" + storage.tobytes()), 4, DType.I32, shape, stride, begin)
    assert read_all(tensor).view("<i4").tolist() == expected.tolist()
    start = data.draw(st.integers(0, expected.size))
    stop = data.draw(st.integers(start, expected.size))
    out = np.empty((stop - start) * 4, np.uint8)
    tensor.read_into(start, stop, out)
    assert out.view("<i4").tolist() == expected[start:stop].tolist()


def test_dense_views_are_read_in_ranges_and_others_whole():
    source = Memory(bytes(1000))
    assert isinstance(stored_view(source, 0, DType.F32, (3, 4), (4, 1), 2), Stored)
    assert isinstance(stored_view(source, 0, DType.F32, (3, 1, 4), (4, 99, 1)), Stored)
    assert isinstance(stored_view(source, 0, DType.F32, (0, 4), (1, 7)), Stored)
    transposed = stored_view(source, 0, DType.F32, (4, 3), (1, 4))
    assert isinstance(transposed, Strided)
    assert transposed.whole


def test_a_view_beyond_the_cap_is_refused():
    tensor = Strided(Memory(b""), 0, DType.F32, (2, 1 << 31), (1 << 31, 1))
    with pytest.raises(FormatError, match="contiguous"):
        tensor.read_into(0, 8, np.empty(32, np.uint8))


@pytest.mark.parametrize("dtype", [DType.F16, DType.F32, DType.F64, DType.I64, DType.C64, DType.U8])
def test_big_endian_values_are_swapped(dtype):
    values = np.arange(6).astype(dtype.storage)
    raw = values.astype(values.dtype.newbyteorder(">")).tobytes()
    tensor = Stored(Memory(raw), 0, dtype, (2, 3), big_endian=True)
    assert read_all(tensor).tobytes() == values.tobytes()


def test_sizes_below_a_byte():
    assert nbytes(Stored(Memory(b""), 0, DType.F4, (3, 2))) == 3
    assert nbytes(Stored(Memory(b""), 0, DType.F6_E2M3, (4,))) == 3
    with pytest.raises(ValueError, match="whole number of bytes"):
        DType.F4.nbytes(3)
    assert numel(Stored(Memory(b""), 0, DType.F4, ())) == 1


def test_a_file_that_is_replaced_or_shrinks_is_noticed(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100))
    with SourceFile(path) as file:
        assert file.read(90, 10) == bytes(10)
        with pytest.raises(FormatError, match="incomplete"):
            file.read(95, 10)
        path.write_bytes(bytes(50))
        with pytest.raises(FormatError, match="changed"):
            file.check_unchanged()
        with pytest.raises(FormatError, match="shorter"):
            file.read(90, 10)
        with pytest.raises(FormatError, match="changed"):
            file.reopen()
