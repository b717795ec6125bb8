"""Casts against independent ones: NumPy's own, PyTorch's, and exact arithmetic."""

from __future__ import annotations

import itertools
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from lib_toolkit.casting import Cast, Narrowing, convert
from lib_toolkit.dtypes import DType
from lib_toolkit.tensors import Filled

FLOATS = (DType.F64, DType.F32, DType.F16, DType.BF16)
ALL_16_BITS = np.arange(65536, dtype="<u2")


def cast(data: np.ndarray, kind: DType, target: DType) -> tuple[np.ndarray, Narrowing]:
    raw = np.frombuffer(bytearray(data.tobytes()), dtype=np.uint8)
    out = np.empty(raw.size // kind.itemsize * target.itemsize, dtype=np.uint8)
    return out, convert(raw, kind, out, target)


def bf16_to_f32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype("<u4") << 16).view("<f4")


def interesting_f32() -> np.ndarray:
    """Every pair of exponent and the mantissa bits around all rounding borders, both signs, and random patterns."""
    exponents = np.arange(256, dtype="<u4") << 23
    mantissas = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0x18000,
                          0x7FFFFF, 0x7FE000, 0x7FF000, 0x7FEFFF], dtype="<u4")  # fmt: skip
    grid = (exponents[:, None] | mantissas[None, :]).ravel()
    random = np.random.default_rng(7).integers(0, 2**32, 300_000, dtype="<u4")
    return np.concatenate([grid, grid | 0x80000000, random]).view("<f4")


def test_f32_to_f16_is_numpys_with_one_nan():
    source = interesting_f32()
    out, lost = cast(source, DType.F32, DType.F16)
    with np.errstate(all="ignore"):
        expected = source.astype("<f2")
    bits = expected.view("<u2").copy()
    bits[np.isnan(source)] = 0x7E00
    assert np.array_equal(out.view("<u2"), bits)
    finite = np.isfinite(source)
    assert lost.overflowed == np.count_nonzero(finite & np.isinf(expected))
    assert lost.vanished == np.count_nonzero((source != 0) & (expected == 0))
    assert lost.nan == np.count_nonzero(np.isnan(source))


@pytest.mark.parametrize("bits", [0x3F808000, 0x3F818000, 0x3F80FFFF, 0x7F7FFFFF, 0x00008000, 0x80018000, 0x3F800001])
def test_f32_to_bf16_rounds_to_nearest_even(bits):
    """Against exact fractions: the nearest of the two neighbours, the even one at a tie."""
    value = np.array([bits], dtype="<u4").view("<f4")
    out, _ = cast(value, DType.F32, DType.BF16)
    low = bits >> 16
    if (bits & 0x7F800000) == 0x7F000000 and (low + 1) & 0x7F80 == 0x7F80:
        assert out.view("<u2")[0] == low + 1  # beyond the largest BF16: infinity
        return
    exact = Fraction(float(value[0]))
    distance = [abs(Fraction(float(bf16_to_f32(np.array([c], "<u2"))[0])) - exact) for c in (low, low + 1)]
    expected = low if distance[0] < distance[1] or (distance[0] == distance[1] and low % 2 == 0) else low + 1
    assert out.view("<u2")[0] == expected


@pytest.mark.parametrize("kind", [DType.F16, DType.BF16])
def test_every_16_bit_pattern_survives_the_way_through_f32(kind):
    wide, _ = cast(ALL_16_BITS, kind, DType.F32)
    back, lost = cast(wide.view("<f4"), DType.F32, kind)
    magnitude = ALL_16_BITS & 0x7FFF
    nan = magnitude > (0x7C00 if kind is DType.F16 else 0x7F80)
    assert np.array_equal(back.view("<u2")[~nan], ALL_16_BITS[~nan])
    assert set(back.view("<u2")[nan].tolist()) == {0x7E00 if kind is DType.F16 else 0x7FC0}
    assert (lost.overflowed, lost.vanished, lost.nan) == (0, 0, np.count_nonzero(nan))


def test_bf16_to_f16_counts_what_does_not_fit():
    values = np.array([1.0, 1e6, -1e6, 1e-12, 0.0, np.inf, np.nan], "<f4")
    bits = (values.view("<u4") >> 16).astype("<u2")
    out, lost = cast(bits, DType.BF16, DType.F16)
    assert lost == Narrowing(overflowed=2, vanished=1, nan=1, zeros=1)
    assert out.view("<u2").tolist() == [0x3C00, 0x7C00, 0xFC00, 0, 0, 0x7C00, 0x7E00]


def test_f64_to_f16_rounds_once():
    value = np.array([1 + 2**-11 + 2**-40])  # through FP32 this would be a tie and round down
    out, _ = cast(value, DType.F64, DType.F16)
    assert out.view("<f2")[0] == np.float16(1 + 2**-10)


def test_torch_gives_the_same_bits():
    """In a process of its own, since this one may or may not have PyTorch loaded."""
    code = """
import sys, numpy as np
sys.path[:0] = {paths!r}
import test_casting as t
from lib_toolkit.dtypes import DType
sources = {{DType.F32: t.interesting_f32(), DType.F16: t.ALL_16_BITS, DType.BF16: t.ALL_16_BITS}}
pairs = [(a, b) for a in sources for b in t.FLOATS if a is not b]
assert "torch" not in sys.modules
plain = [t.cast(sources[a], a, b) for a, b in pairs]
import torch
for pair, (bits, lost), (with_torch, lost_too) in zip(pairs, plain, [t.cast(sources[a], a, b) for a, b in pairs]):
    assert lost == lost_too, pair
    assert np.array_equal(bits, with_torch), pair
""".format(paths=[str(p) for p in (__import__("pathlib").Path(__file__).parent, __import__("pathlib").Path.cwd())])
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kind", "target"), list(itertools.permutations(FLOATS, 2)))
def test_cast_of_a_range_is_the_range_of_the_cast(kind, target):
    values = np.random.default_rng(1).standard_normal(1000)
    data, _ = cast(values, DType.F64, kind)
    whole, _ = cast(data.view(kind.storage), kind, target)
    tensor = Cast(Filled(data.tobytes(), kind, (10, 100)), target)
    out = np.empty(target.itemsize * 333, dtype=np.uint8)
    tensor.read_into(41, 374, out)
    assert np.array_equal(out, whole[41 * target.itemsize : 374 * target.itemsize])
    assert tensor.shape == (10, 100)
