"""Figures of pairs of tensors against values by hand, against PyTorch, and against plain FP64 arithmetic."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from lib_toolkit.analysis.compare.figures import figure
from lib_toolkit.analysis.compare.measures import together
from lib_toolkit.analysis.compare.reading import BLOCK, Block, pieces
from lib_toolkit.analysis.compare.sweep import Task, measure
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import CancelledError
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.tensors import Filled

TYPES = {"f2": DType.F16, "f4": DType.F32, "f8": DType.F64, "i8": DType.I64, "u1": DType.U8, "b1": DType.BOOL}


def tensor(values, dtype=None) -> Filled:
    array = np.asarray(values)
    kind = dtype or TYPES[array.dtype.str[1:]]
    return Filled(np.ascontiguousarray(array).tobytes(), kind, array.shape)


def bf16(values) -> Filled:
    bits = (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2")
    return tensor(bits, DType.BF16)


def pair(a, b, workers=1):
    return measure([Task({0: a, 1: b}, ((0, 1),))], SILENT, "test", workers)[0][0, 1]


def single(values):
    return tensor(np.array(values, "<f4"))


def test_by_hand():
    found = pair(single([1, 2, 3, 4]), single([1, 2, 3, 5]))
    assert (found.changed_single, found.l1, found.l2, found.largest, found.changed) == (1, 1, 1, 1, 1)
    assert found.cossim == pytest.approx(34 / math.sqrt(30 * 39), rel=1e-7)
    assert f"{found.cossim:.4f}" == "0.9940"
    assert (found.mean, found.rms, found.changed_share) == (0.25, 0.5, 0.25)
    assert found.relative == pytest.approx(1 / math.sqrt(30), rel=1e-7)


def test_cosine_by_column_and_flat():
    a = np.array([[1, 2, 3], [4, 5, 6]], "<f4")
    b = a * np.array([[-1], [1]], "<f4")
    found = pair(tensor(a), tensor(b))
    assert found.cossim == pytest.approx((15 / 17 + 21 / 29 + 27 / 45) / 3, rel=1e-6)
    assert f"{found.cossim:.4f}" == "0.7355"
    assert found.cosine == pytest.approx(63 / 91, rel=1e-6)
    assert f"{found.cosine:.4f}" == "0.6923"


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([0.0, 0.0], [1.0, 2.0], 0),
        (3.0, -0.5, -1),
        (3.0, 9.0, 1),
        ([[1.0, 2.0, -3.0]], [[5.0, -1.0, -1.0]], 1 / 3),
    ],
)
def test_published_cosine_of_odd_shapes(a, b, expected):
    assert pair(single(a), single(b)).cossim == pytest.approx(expected, abs=1e-7)


def test_identical_models_have_the_root_of_the_number_of_tensors():
    values = [pair(single([[1, 2], [3, i + 1]]), single([[1, 2], [3, i + 1]])).cossim for i in range(80)]
    assert values == [1.0] * 80
    assert f"{figure('cossim', values):.4f}" == "8.9443"


def test_figures_of_groups():
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]], "<f4"), np.array([5.0, -6.0, 7.0], "<f4")
    parts = [pair(tensor(a), tensor(a + 0.5)), pair(tensor(b), tensor(b * 2)), pair(tensor(a), tensor(a))]
    delta = np.concatenate([np.full(4, 0.5), b, np.zeros(4)])
    assert figure("l2", [part.l2 for part in parts]) == pytest.approx(np.linalg.norm(delta), rel=1e-12)
    assert figure("l1", [part.l1 for part in parts]) == pytest.approx(np.abs(delta).sum())
    assert figure("l0", [part.changed_single for part in parts]) == 2
    whole = together(parts)
    assert (whole.elements, whole.changed, whole.largest) == (11, 7, 7.0)
    assert whole.l2 == pytest.approx(np.linalg.norm(delta), rel=1e-12)


SHAPES = [(70_001,), (321, 515), (3, 90_000), (40, 33, 3, 3), (1, 77), (7, 3, 1, 1), (2, 2 * BLOCK + 5), (5000, 2), ()]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "kinds", [("f2", "f2"), ("f4", "f4"), ("f2", "f4"), ("bf16", "bf16"), ("f8", "f4"), ("i8", "i8")]
)
def test_against_plain_double_arithmetic(shape, kinds):
    rng = np.random.default_rng(7)
    x = rng.standard_normal(shape) * 0.05
    y = x + rng.standard_normal(shape) * 0.001 * (rng.random(shape) < 0.5)
    tensors, values = [], []
    for kind, array in zip(kinds, (x, y), strict=True):
        if kind == "bf16":
            made = bf16(array)
            value = (np.frombuffer(made.data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
        else:
            value = np.asarray((array * 1000) if kind == "i8" else array).astype(f"<{kind}")
            made = tensor(value)
        tensors.append(made)
        values.append(np.asarray(value, "<f8"))
    a, b = values
    found = pair(*tensors)
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    assert found.elements == a.size
    assert found.changed == np.count_nonzero(a != b)
    assert found.changed_single == np.count_nonzero(a.astype("f4") != b.astype("f4"))
    assert found.l1 == pytest.approx(np.abs(a - b).sum(), rel=2e-6)
    assert found.l2 == pytest.approx(np.linalg.norm(flat_a - flat_b), rel=2e-6)
    assert found.largest == pytest.approx(np.abs(a - b).max(), rel=1e-6)
    assert found.a_squared == pytest.approx((a * a).sum(), rel=2e-6)
    assert found.product == pytest.approx((a * b).sum(), rel=2e-6)
    columns_a, columns_b = (v.reshape(shape[0] if shape else 1, -1) for v in (a, b))
    norms = np.maximum(np.linalg.norm(columns_a, axis=0), 1e-8) * np.maximum(np.linalg.norm(columns_b, axis=0), 1e-8)
    assert found.cossim == pytest.approx(((columns_a * columns_b).sum(axis=0) / norms).mean(), rel=1e-6, abs=1e-9)


def test_published_figures_as_pytorch_computes_them():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    for shape in [(40, 30), (17, 5, 3, 3), (100,), (1, 9), (6, 1, 1, 1)]:
        a, b = rng.standard_normal(shape).astype("<f4"), rng.standard_normal(shape).astype("<f4")
        found = pair(tensor(a), tensor(b))
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        assert found.cossim == pytest.approx(torch.cosine_similarity(x, y, dim=0).mean().item(), abs=2e-6)
        assert found.l1 == pytest.approx(torch.norm(x - y, p=1).item(), rel=1e-5)
        assert found.l2 == pytest.approx(torch.norm(x - y, p=2).item(), rel=1e-5)
        assert found.changed_single == torch.count_nonzero(x - y).item()


def test_every_half_is_read_exactly():
    patterns = np.arange(1 << 16, dtype="<u2")
    block = Block(DType.F16)
    block.room(patterns.size)[:] = patterns.view(np.uint8)
    block.take(256)
    values, expected = block.values.reshape(-1), patterns.view("<f2").astype("<f4")
    assert np.array_equal(values, expected, equal_nan=True)
    assert np.array_equal(np.signbit(values), np.signbit(expected) | (np.isnan(expected) & np.signbit(values)))
    assert (block.nan, block.infinite, block.finite) == (2 * 1023, 2, False)
    finite = patterns[(patterns & 0x7FFF) < 0x7C00]
    block.room(finite.size)[:] = finite.view(np.uint8)
    block.take(1)
    assert np.array_equal(block.values.reshape(-1), finite.view("<f2").astype("<f4"))
    assert block.finite


@pytest.mark.parametrize("kind", [DType.F8_E4M3, DType.F8_E5M2])
def test_small_floats_as_pytorch_reads_them(kind):
    torch = pytest.importorskip("torch")
    raw = np.arange(256, dtype=np.uint8)
    torch_type = {DType.F8_E4M3: torch.float8_e4m3fn, DType.F8_E5M2: torch.float8_e5m2}[kind]
    block = Block(kind)
    block.room(256)[:] = raw
    block.take(1)
    assert np.array_equal(block.values[0], torch.from_numpy(raw).view(torch_type).float().numpy(), equal_nan=True)


def test_not_a_number_is_counted_and_not_spread():
    a = np.array([1, np.nan, 3, np.inf, 5, np.nan], "<f4")
    b = np.array([2, np.nan, 3, 4, np.nan, 7], "<f4")
    found = pair(tensor(a), tensor(b))
    assert (found.nan_a, found.nan_b, found.infinite_a, found.infinite_b, found.left_out) == (2, 2, 1, 0, 4)
    assert (found.l1, found.l2, found.largest, found.mean) == (1, 1, 1, 0.5)
    assert found.changed == 4  # a NaN on both sides is no change
    assert found.cossim is not None and math.isfinite(found.cossim)
    same = pair(tensor(a), tensor(a))
    assert (same.changed, same.l2, same.nan_a, same.measured) == (0, 0, 2, 3)


@pytest.mark.parametrize("shape", [(40, 30), (1, 50), (3, 70_000), (300, 2000)], ids=str)
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_what_stands_beside_a_nan_is_in_no_sum(shape, kind):
    """One huge number beside a NaN must not decide about the cosine, nor how long A is."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal(shape).astype(kind)
    b = a.copy()
    middle = (shape[0] // 2, shape[1] // 2)
    a[middle], b[middle] = 6e4, np.nan
    found = pair(tensor(a), tensor(b))
    assert (found.left_out, found.changed, found.l2, found.relative) == (1, 1, 0, 0)
    assert found.cosine == pytest.approx(1, abs=1e-12)
    assert found.cossim == pytest.approx(1, abs=1e-6)
    rest = np.delete(a.astype("f8").reshape(-1), middle[0] * shape[1] + middle[1])
    assert found.a_squared == pytest.approx((rest * rest).sum(), rel=2e-6)
    assert found.b_squared == pytest.approx((rest * rest).sum(), rel=2e-6)


def test_a_nan_beside_other_changes():
    rng = np.random.default_rng(4)
    a = rng.standard_normal((600, 700)).astype("<f4")
    b = a + (rng.standard_normal(a.shape) * 0.1).astype("<f4")
    a[5, 6], a[7, 8], b[599, 6], b[3, 3] = np.nan, np.inf, np.nan, -np.inf
    good = np.isfinite(a) & np.isfinite(b)
    x, y = np.where(good, a, 0).astype("f8"), np.where(good, b, 0).astype("f8")
    found = pair(tensor(a), tensor(b))
    assert found.left_out == 4
    assert found.relative == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x), rel=2e-6)
    assert found.cosine == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-6)
    columns = (x * y).sum(axis=0) / np.linalg.norm(x, axis=0) / np.linalg.norm(y, axis=0)
    assert found.cossim == pytest.approx(columns.mean(), rel=1e-6)


@pytest.mark.parametrize(("scale", "step"), [(1e30, 1e29), (1e-30, 1e-31), (1.0, 1e-25), (1e-22, 1e-23)])
def test_values_whose_squares_leave_the_range(scale, step):
    a, b = np.full(1000, scale, "<f4"), np.full(1000, scale, "<f4")
    b[10] = np.float32(scale) + np.float32(step)
    if b[10] == a[10]:
        a[10], b[10] = 0, np.float32(step)
    expected = abs(float(a[10]) - float(b[10]))
    found = pair(tensor(a), tensor(b))
    assert found.changed == 1
    assert found.l2 == pytest.approx(expected, rel=1e-6)
    assert found.largest == pytest.approx(expected, rel=1e-6)
    assert found.a_squared == pytest.approx((a.astype("f8") ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-23, 1e-30, 1e-38, 3e-45])
@pytest.mark.parametrize("shape", [(9000,), (60, 150), (5, 7, 3, 3)])
def test_values_so_small_that_every_square_is_zero_at_single(scale, shape):
    rng = np.random.default_rng(0)
    a, b = ((rng.standard_normal(shape) * scale).astype("<f4") for _ in range(2))
    x, y = a.astype("<f8"), b.astype("<f8")
    found = pair(tensor(a), tensor(b))
    assert math.sqrt(found.a_squared) == pytest.approx(np.linalg.norm(x), rel=1e-9, abs=0)
    assert found.relative == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x), rel=1e-9)
    cosine = (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)
    assert found.cosine == pytest.approx(cosine, abs=1e-9)
    assert pair(tensor(a), tensor(np.zeros_like(a))).relative == pytest.approx(1)
    assert pair(tensor(np.zeros_like(a)), tensor(np.zeros_like(a))).a_squared == 0


def test_whole_numbers_are_compared_exactly():
    a = np.array([2**24, 2**53, -1, 2**62], "<i8")
    b = np.array([2**24 + 1, 2**53 + 1, -1, 2**62], "<i8")
    found = pair(tensor(a), tensor(b))
    assert found.changed == 2
    assert found.changed_single == 0  # what the published cast to FP32 sees
    assert pair(tensor(a), tensor(a)).changed == 0
    assert pair(tensor(np.array([0, 1], "<i8")), single([0, 1.5])).l1 == 0.5
    assert pair(tensor(np.array([True, False])), tensor(np.array([True, True]))).changed == 1


def test_packed_types_are_compared_as_bytes():
    a = Filled(bytes(range(32)), DType.F4, (64,))
    assert pair(a, Filled(bytes(range(32)), DType.F4, (64,))).identical
    assert pair(a, Filled(bytes(32), DType.F4, (64,))) is None


def test_empty_tensors_are_equal():
    found = pair(single(np.zeros((0, 4))), single(np.zeros((0, 4))))
    assert (found.elements, found.identical, found.cossim, found.mean) == (0, True, None, None)


@pytest.mark.parametrize("kinds", [("f4", "f2"), ("f2", "f4"), ("f4", "f4")])
def test_equal_under_half_precision(kinds):
    x = (np.random.default_rng(0).standard_normal((200, 700)) * 0.05).astype("<f4")
    half = x.astype("<f2")
    a, b = (half.astype(f"<{kind}") if kind == "f2" or place else x for place, kind in enumerate(kinds))
    if kinds == ("f2", "f4"):
        a, b = half, x
    found = pair(tensor(a), tensor(b))
    assert found.changed > 0.9 * x.size
    assert found.same_when_lowered is True
    b = b.copy()
    b[199, 699] *= np.float32(1.01)
    assert pair(tensor(a), tensor(b)).same_when_lowered is False


def test_the_same_bits_with_any_number_of_workers():
    rng = np.random.default_rng(5)
    tasks = []
    for size in (10, 70_000, 300_000, 5, 131_072, 999):
        arrays = [rng.standard_normal((size // 5, 5)).astype("<f4") for _ in range(3)]
        tasks.append(Task({i: tensor(a) for i, a in enumerate(arrays)}, ((0, 1), (0, 2), (2, 1))))
    one, eight = (measure(tasks, SILENT, "test", workers) for workers in (1, 8))
    assert one == eight
    assert one[2][0, 1] == pair(tasks[2].tensors[0], tasks[2].tensors[1])


@pytest.mark.parametrize("shape", [*SHAPES, (0, 3), (3, 0)], ids=str)
def test_pieces_cover_every_element_once(shape):
    seen = np.zeros(math.prod(shape), dtype=np.int64)
    for piece in pieces(shape):
        assert 0 < piece.stop - piece.start <= BLOCK
        assert (piece.stop - piece.start) % piece.rows == 0
        seen[piece.start : piece.stop] += 1
    assert (seen == 1).all()


class Endless:
    """Zeros of any size, which count how often they are read."""

    def __init__(self, shape):
        self.shape, self.dtype, self.whole, self.read = shape, DType.F16, False, 0

    def read_into(self, start, stop, out):
        out[:] = 0
        out[0] = 1
        self.read += stop - start


@pytest.mark.parametrize("shape", [(64, 1 << 17), (1 << 23,), (2, 1 << 22)])
def test_memory_does_not_depend_on_the_tensor_and_every_element_is_read_once(shape):
    a, b = Endless(shape), Endless(shape)
    tracemalloc.start()
    try:
        measure([Task({0: a, 1: b}, ((0, 1),))], SILENT, "test", 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert a.read == b.read == 1 << 23
    assert peak < 10 << 20  # the tensors would take 32 MiB


def test_cancel_ends_the_pass():
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(CancelledError):
        measure(
            [Task({0: Endless((1 << 22,)), 1: Endless((1 << 22,))}, ((0, 1),))], Progress(None, cancelled), "test", 2
        )
    assert len(asked) < 20


def test_without_cosines_everything_else_is_the_same():
    rng = np.random.default_rng(2)
    a, b = (tensor(rng.standard_normal((30, 500)).astype("<f4")) for _ in range(2))
    found = measure([Task({0: a, 1: b}, ((0, 1),))], SILENT, "test", 1, cosines=False)[0][0, 1]
    assert found.cossim is None
    assert replace(found, cossim=pair(a, b).cossim) == pair(a, b)


def test_progress_counts_every_byte():
    said = []
    a = tensor(np.ones((300, 1000), "<f2"))
    measure([Task({0: a, 1: a, 2: a}, ((0, 1), (1, 2)))], Progress(said.append), "comparing", 1)
    assert (said[-1].done, said[-1].total, said[-1].phase) == (1_800_000, 1_800_000, "comparing")
