"""What is gathered of one tensor: health and digests against plain NumPy and PyTorch, in any cuts of its bytes."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_toolkit.analysis.values import BLOCK, Gatherer, Part, Request
from lib_toolkit.dtypes import DType

SPECIAL = [0.0, -0.0, 1e-9, 65504.0, 65519.0, 65520.0, -1e9, np.inf, -np.inf, np.nan, 1.5, 6e-8]
NUMPY = {DType.F64: "<f8", DType.F32: "<f4", DType.F16: "<f2"}


def gather(dtype, data: bytes, count: int, cuts=(), request=None):
    whole = Part("k", (count,), 0, count)
    gatherer = Gatherer(dtype, (count,), request or Request(parts=(whole,)))
    borders = [0, *sorted(cuts), len(data)]
    for begin, end in itertools.pairwise(borders):
        if begin < end:
            # A buffer of its own, at an odd address: files need not be aligned.
            own = bytearray(1 + end - begin)
            own[1:] = data[begin:end]
            gatherer.feed(memoryview(own)[1:])
    return gatherer.facts()


@given(
    dtype=st.sampled_from(sorted(NUMPY, key=str)),
    values=st.lists(st.sampled_from(SPECIAL) | st.floats(width=32), min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 320), max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_health_and_digest_in_any_cuts(dtype, values, cuts):
    with np.errstate(over="ignore"):
        array = np.array(values).astype(NUMPY[dtype])
        half = array.astype("<f2")
    data = array.tobytes()
    facts = gather(dtype, data, array.size, [cut for cut in cuts if cut < len(data)])
    health = facts.health
    beyond = np.isfinite(array) & np.isinf(half)
    assert health.count == array.size
    assert health.nan == int(np.isnan(array).sum())
    assert health.infinite == int(np.isinf(array).sum())
    assert health.zero == int((array == 0).sum())
    assert health.beyond_fp16 == int(beyond.sum())
    finite = np.abs(array[np.isfinite(array)]).astype("<f8")
    largest = finite.max(initial=0.0)
    expected = largest if beyond.any() else float(np.abs(half[np.isfinite(half)]).max(initial=0))
    assert health.largest == expected
    half = np.where(np.isnan(half), np.array(0x7E00, "<u2").view("<f2"), half)
    (record,) = facts.records
    assert (record.type, record.digest) == ("F16", hashlib.sha256(half.tobytes()).hexdigest())
    assert bool(record.beyond) == bool(beyond.any())


@pytest.mark.parametrize(("dtype", "kind"), [(DType.F8_E4M3, "float8_e4m3fn"), (DType.F8_E5M2, "float8_e5m2")])
def test_8_bit_floats_are_read_as_pytorch_reads_them(dtype, kind):
    data = bytes(range(256))
    values = torch.frombuffer(bytearray(data), dtype=getattr(torch, kind)).to(torch.float64).numpy()
    facts = gather(dtype, data, 256)
    assert facts.health.nan == int(np.isnan(values).sum())
    assert facts.health.infinite == int(np.isinf(values).sum())
    assert facts.health.zero == 2
    assert facts.health.largest == np.abs(values[np.isfinite(values)]).max()
    gatherer = Gatherer(dtype, (256,), Request())
    gatherer.feed(memoryview(bytearray(data)))
    patterns = values.astype("<f2")
    patterns = np.where(np.isnan(patterns), np.array(0x7E00, "<u2").view("<f2"), patterns)
    expected = np.bincount(patterns.view("<u2"), minlength=65536)
    assert (gatherer.histogram == expected).all()


def test_bf16_and_several_blocks():
    """More than one block, cut anywhere: the histogram is that of the values at FP16."""
    values = np.random.default_rng(5).standard_normal(2 * BLOCK + 77).astype("<f4")
    stored = (values.view("<u4") >> 16).astype("<u2")
    facts = gather(DType.BF16, stored.tobytes(), stored.size, [3, 2 * BLOCK + 1])
    exact = (stored.astype("<u4") << 16).view("<f4").astype("<f2")
    assert facts.records[0].digest == hashlib.sha256(exact.tobytes()).hexdigest()


def test_parts_rows_and_turns():
    """Runs across blocks, and a transposed matrix, with a value beyond FP16 counted at its place in the part."""
    array = np.random.default_rng(6).standard_normal((600, 900)).astype("<f4")
    array[450, 7] = 1e6
    rows = Part("rows", (200, 900), 400 * 900, 600 * 900)
    turned = Part("turned", (900, 600), 0, array.size, turned=True)
    gatherer = Gatherer(DType.F32, array.shape, Request(parts=(rows, turned)))
    gatherer.feed(memoryview(bytearray(array.tobytes())))
    found = {record.part.key: record for record in gatherer.facts().records}
    for key, own in (("rows", array[400:]), ("turned", np.ascontiguousarray(array.T))):
        with np.errstate(over="ignore"):
            assert found[key].digest == hashlib.sha256(own.astype("<f2").tobytes()).hexdigest()
        place = int(np.flatnonzero(own.ravel() == 1e6)[0])
        entry = place.to_bytes(8, "little") + np.float32(1e6).tobytes()
        assert (found[key].stored, found[key].beyond) == ("F32", hashlib.sha256(entry).hexdigest())


def test_big_endian_values_are_turned():
    array = np.arange(100, dtype=">f4")
    gatherer = Gatherer(DType.F32, (100,), Request(parts=(Part("k", (100,), 0, 100),), keep=True))
    for begin in range(0, 400, 7):
        gatherer.feed(memoryview(bytearray(array.tobytes()[begin : begin + 7])), big_endian=True)
    facts = gatherer.facts()
    assert facts.data == array.astype("<f4").tobytes()
    assert facts.records[0].digest == hashlib.sha256(array.astype("<f2").tobytes()).hexdigest()


def test_samples_are_even_and_the_same_in_all_cuts():
    array = np.arange(1000, dtype="<f2")
    one = gather(DType.F16, array.tobytes(), 1000, request=Request(sample=True)).sample
    assert one == gather(DType.F16, array.tobytes(), 1000, [1, 3, 999], Request(sample=True)).sample
    assert len(one) == 64 and list(one) == sorted(set(one)) and one[0] == 0
    assert gather(DType.F16, array[:5].tobytes(), 5, request=Request(sample=True)).sample == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("values", "constant"), [([0, 0], True), ([1, 1], True), ([1, 2], False), ([0, 1e-9], False), ([0, -0.0], False)]
)
def test_constant_tensors(values, constant):
    array = np.array(values, "<f4")
    assert gather(DType.F32, array.tobytes(), array.size).constant is constant


def test_tensors_without_numbers_have_no_health():
    facts = gather(DType.I64, bytes(80), 10)
    assert facts.health is None
    assert facts.records[0].type == "I64"
    assert gather(DType.F32, b"", 0).health.count == 0
