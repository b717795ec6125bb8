"""Lazy nodes against NumPy, on random ranges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_toolkit import nodes
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError
from lib_toolkit.nodes import Reshaped, Rows, Stacked, Transposed, reshaped, rows, stacked, transposed
from lib_toolkit.tensors import Filled, Strided, numel, read_all

TYPES = {DType.F16: "<f2", DType.F32: "<f4", DType.F64: "<f8", DType.I64: "<i8", DType.U8: "<u1", DType.C64: "<c8"}
SHAPES = st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple)


def array(shape, dtype=DType.F32, seed=0) -> np.ndarray:
    count = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(count) + 1).astype(TYPES[dtype]).reshape(shape)


def tensor(values: np.ndarray) -> Filled:
    dtype = next(dtype for dtype, name in TYPES.items() if np.dtype(name) == values.dtype)
    return Filled(np.ascontiguousarray(values).tobytes(), dtype, values.shape)


def assert_reads(found, wanted: np.ndarray, data) -> None:
    """The whole, and a random range, equal NumPy's."""
    assert (found.shape, numel(found)) == (wanted.shape, wanted.size)
    assert read_all(found).tobytes() == wanted.tobytes()
    start = data.draw(st.integers(0, wanted.size))
    stop = data.draw(st.integers(start, wanted.size))
    out = np.full((stop - start) * wanted.dtype.itemsize, 0xAA, np.uint8)
    found.read_into(start, stop, out)
    assert out.tobytes() == wanted.reshape(-1)[start:stop].tobytes()


@given(st.data(), SHAPES, st.sampled_from(list(TYPES)))
def test_rows(data, shape, dtype):
    values = array(shape, dtype)
    first = data.draw(st.integers(0, shape[0]))
    last = data.draw(st.integers(first, shape[0]))
    found = rows(tensor(values), first, last)
    assert found.dtype is dtype
    assert_reads(found, values[first:last], data)
    inner = data.draw(st.integers(0, last - first))
    assert_reads(rows(found, inner, last - first), values[first + inner : last], data)


@given(st.data(), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.lists(st.integers(0, 4), max_size=2))
def test_stacked(data, heights, below):
    parts = [array((height, *below), seed=i) for i, height in enumerate(heights)]
    found = stacked([tensor(part) for part in parts])
    wanted = np.concatenate(parts)
    assert_reads(found, wanted, data)
    first = data.draw(st.integers(0, wanted.shape[0]))
    assert_reads(rows(found, first, wanted.shape[0]), wanted[first:], data)


@given(st.data(), st.tuples(st.integers(0, 9), st.integers(0, 9)), st.sampled_from(list(TYPES)))
def test_transposed(data, shape, dtype):
    values = array(shape, dtype)
    found = transposed(tensor(values))
    assert found.whole
    assert_reads(found, np.ascontiguousarray(values.T), data)


@given(st.data(), SHAPES)
def test_reshaped(data, shape):
    values = array(shape)
    found = reshaped(tensor(values), (values.size, 1, 1))
    assert_reads(found, values.reshape(-1, 1, 1), data)
    assert_reads(reshaped(found, (1, values.size)), values.reshape(1, -1), data)


def test_what_is_undone_gives_the_tensor_itself():
    one = tensor(array((6, 4)))
    assert transposed(transposed(one)) is one
    assert rows(one, 0, 6) is one
    assert stacked([rows(one, 0, 2), rows(one, 2, 4), rows(one, 4, 6)]) is one
    assert reshaped(reshaped(one, (6, 4, 1, 1)), (6, 4)) is one
    others = [tensor(array((2, 4), seed=i)) for i in range(3)]
    joined = stacked(others)
    assert [rows(joined, i, i + 2) for i in (0, 2, 4)] == others
    assert rows(rows(one, 1, 6), 1, 3) == Rows(one, 2, 4)
    # Rows that do not follow each other stay apart.
    assert isinstance(stacked([rows(one, 2, 4), rows(one, 0, 2)]), Stacked)


def test_a_range_that_costs_the_whole_is_passed_on():
    class Bytes:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read_at(self, offset: int, out: memoryview) -> None:
            out[:] = self.data[offset : offset + len(out)]

    values = array((4, 6))
    strided = Strided(Bytes(values.tobytes()), 0, DType.F32, (6, 4), (1, 6))
    plain = tensor(array((6, 4), seed=3))
    for node in (rows(strided, 1, 3), stacked([plain, strided]), reshaped(strided, (24,))):
        assert node.whole
    for node in (rows(plain, 1, 3), stacked([plain, plain]), reshaped(plain, (24,))):
        assert not node.whole
    assert read_all(transposed(strided)).tobytes() == values.tobytes()


def test_what_does_not_fit_is_refused():
    one = tensor(array((6, 4)))
    scalar = Filled(bytes(4), DType.F32, ())
    half_bytes = Filled(bytes(6), DType.F4, (4, 3))
    for first, last in ((-1, 2), (3, 2), (0, 7)):
        with pytest.raises(ValueError, match="no rows"):
            rows(one, first, last)
    with pytest.raises(ValueError, match="no rows"):
        rows(scalar, 0, 1)
    with pytest.raises(ValueError, match="whole number of bytes"):
        rows(half_bytes, 1, 3)
    with pytest.raises(ValueError, match="cannot be turned"):
        transposed(half_bytes)
    with pytest.raises(ValueError, match="cannot be turned"):
        transposed(tensor(array((2, 2, 2))))
    for parts in ([], [scalar], [one, tensor(array((6, 5)))], [one, tensor(array((6, 4), DType.F16))]):
        with pytest.raises(ValueError, match="stacked"):
            stacked(parts)
    with pytest.raises(ValueError, match="cannot become"):
        reshaped(one, (5, 5))


def test_a_matrix_beyond_the_cap_is_refused_before_memory_is_taken(monkeypatch):
    monkeypatch.setattr(nodes, "WHOLE_TENSOR_CAP", 95)
    node = transposed(tensor(array((6, 4))))
    with pytest.raises(FormatError, match="96 bytes"):
        read_all(node)


def test_nodes_are_values():
    one = tensor(array((6, 4)))
    assert Transposed(one) == Transposed(one)
    assert Reshaped(one, (24,)) != Reshaped(one, (12, 2))
