"""Merges found out of distances: ratios of known mixtures, by component and block, and none where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lib_toolkit.analysis.compare.rounding import rounding_squared, rounding_unit
from lib_toolkit.analysis.matrix.hull import affine_weights, nearest_mixture, products
from lib_toolkit.analysis.matrix.merges import find_merges, rounded_copies
from lib_toolkit.analysis.matrix.results import GroupResult
from lib_toolkit.analysis.matrix.tasks import BLOCK, COMPONENT, Group
from lib_toolkit.analysis.matrix.whole import measure_set
from lib_toolkit.dtypes import DType
from tests.analysis.samples import demo, half, part, save

UNET = "model.diffusion_model."
KINDS = {"F32": ("<f4", 2.0**-24), "F16": ("<f2", 2.0**-11)}


def vectors(count: int, size: int = 20_000, seed: int = 0, spread: float = 0.02) -> list[np.ndarray]:
    """Relatives: a common origin, each moved its own way."""
    rng = np.random.default_rng(seed)
    origin = rng.standard_normal(size) * 0.05
    return [origin + rng.standard_normal(size) * spread for _ in range(count)]


def group_of(models, kind=COMPONENT, name="vae", unit=2.0**-24) -> GroupResult:
    """What a sweep finds of vectors, computed in FP64 and without it."""
    stack = np.array([model.astype("<f8") for model in models])
    count, size = stack.shape
    apart = np.linalg.norm(stack[:, None] - stack[None], axis=2)
    full, every = np.zeros((count, count)), np.ones((count, count), dtype=bool)
    norm = np.linalg.norm(stack, axis=1)
    return GroupResult(
        group=Group(kind, name),
        l0=full,
        changed=(apart > 0) * float(size),
        l1=full,
        l2=apart,
        cosine=full,
        mean=full,
        compared=np.ones((count, count), dtype="<i8"),
        complete=every,
        own=np.ones(count, dtype="<i8"),
        norm=norm,
        rounding=unit * norm,
        left_out=np.zeros((count, count), dtype="<i8"),
        joint=apart,
        joint_left_out=np.zeros(count, dtype="<i8"),
        own_elements=np.full(count, size),
        reasons=(),
        identical=(),
        to_set=norm,
        to_average=norm,
    )


def stored(models, kind: str):
    return [model.astype(KINDS[kind][0]) for model in models]


def found(models, kind: str = "F32"):
    return {merge.model: merge for merge in find_merges([group_of(stored(models, kind), unit=KINDS[kind][1])], [])}


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 1e-6), ("F16", 1e-3)])
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 0.95])
def test_the_ratio_of_a_merge_is_found(kind, tolerance, ratio):
    a, b, stranger = vectors(3)
    merges = found([a, b, stranger, (1 - ratio) * a + ratio * b], kind)
    assert list(merges) == [3]
    assert merges[3].parents == (0, 1)
    assert merges[3].weights[1] == pytest.approx(ratio, abs=tolerance)
    assert sum(merges[3].weights) == pytest.approx(1)
    assert merges[3].residual <= merges[3].bound


def test_a_series_of_merges_is_told_by_its_two_ends():
    a, b = vectors(2)
    ratios = [0.4 + 0.05 * step for step in range(12)]
    merges = found([*[(1 - r) * a + r * b for r in ratios], a, b], "F16")
    assert sorted(merges) == list(range(12))
    for place, ratio in enumerate(ratios):
        assert merges[place].parents == (12, 13)
        assert merges[place].weights[1] == pytest.approx(ratio, abs=1e-3)


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_recipes_of_three_and_four_are_found_without_strangers(kind):
    a, b, c, d, stranger = vectors(5)
    three, four = 0.5 * a + 0.3 * b + 0.2 * c, 0.4 * a + 0.3 * b + 0.2 * c + 0.1 * d
    merges = found([stranger, a, b, c, d, three, four], kind)
    assert set(merges) == {5, 6}
    assert merges[5].parents == (1, 2, 3)
    assert merges[5].weights == pytest.approx((0.5, 0.3, 0.2), abs=1e-3)
    assert merges[6].parents == (1, 2, 3, 4)
    assert merges[6].weights == pytest.approx((0.4, 0.3, 0.2, 0.1), abs=1e-3)


def test_a_small_third_share_does_not_hide_behind_rounding():
    a, b, c = vectors(3)
    merges = found([a, b, c, 0.59 * a + 0.4 * b + 0.01 * c], "F16")
    assert merges[3].parents == (0, 1, 2)
    assert merges[3].weights == pytest.approx((0.59, 0.4, 0.01), abs=1e-3)


def test_a_copy_and_a_half_of_a_parent_change_nothing():
    a, b = (model.astype("<f4") for model in vectors(2))
    models = [a, b, a.copy(), a.astype("<f2"), np.float32(0.75) * a + np.float32(0.25) * b]
    group = group_of(models)
    group.rounding[3] = 2.0**-11 * group.norm[3]
    assert rounded_copies(group) == [(0, 2, 3)]
    assert rounded_copies(group_of([a, b, a.copy()])) == []
    (merge,) = find_merges([group], [])
    assert (merge.model, merge.parents) == (4, (0, 1))
    assert merge.weights[1] == pytest.approx(0.25, abs=1e-6)
    (merge,) = find_merges([group], [], rank=[9, 5, 4, 1, 9])
    assert merge.parents == (1, 2), "of equal copies the one of the lowest rank, though not one that was rounded"


@pytest.mark.parametrize("kind", ["F32", "F16"])
@pytest.mark.parametrize("spread", [0.05, 0.02, 0.0005])
def test_relatives_give_no_recipe(kind, spread):
    # The last spread is near the rounding of FP16, which alone would explain any residual.
    assert found(vectors(12, spread=spread), kind) == {}


def test_the_origin_of_many_is_no_merge_of_them():
    rng = np.random.default_rng(1)
    origin = rng.standard_normal(20_000) * 0.05
    tuned = [origin + rng.standard_normal(20_000) * 0.001 for _ in range(40)]
    assert found([origin, *tuned], "F16") == {}


def test_a_merge_that_was_trained_on_is_none():
    a, b = vectors(2)
    trained = 0.5 * a + 0.5 * b + np.random.default_rng(3).standard_normal(a.size) * 0.0005
    assert found([a, b, trained], "F32") == {}


def test_blocks_have_ratios_of_their_own():
    ratios = {"IN00": 0.0, "IN01": 0.25, "M00": 0.6, "OUT00": 1.0}
    pairs = {name: vectors(3, 5000, seed) for seed, name in enumerate(ratios)}
    models = {
        name: stored([a, b, stranger, (1 - ratios[name]) * a + ratios[name] * b], "F32")
        for name, (a, b, stranger) in pairs.items()
    }
    whole = [np.concatenate([models[name][place] for name in ratios]) for place in range(4)]
    blocks = [group_of(models[name], BLOCK, name) for name in ratios]
    (merge,) = find_merges([group_of(whole, COMPONENT, "unet")], blocks)
    assert (merge.model, merge.parents, merge.by_block) == (3, (0, 1), True)
    shares = {share.block: share.weights[1] for share in merge.blocks}
    assert shares == pytest.approx(ratios, abs=1e-6)
    assert merge.residual <= merge.bound


def test_the_bound_is_that_of_the_rounding():
    assert rounding_unit(DType.F16, 0) == 2.0**-11
    assert rounding_unit(DType.BF16, 0) == 2.0**-8
    assert rounding_unit(DType.F32, 0xFFFFFFFF) == 2.0**-24
    assert rounding_unit(DType.F32, 0xFFFFE000) == 2.0**-11
    assert rounding_unit(DType.F32, 0xFFFF0000) == 2.0**-8
    for exponent in (-3, -20, -26):
        values = np.random.default_rng(0).standard_normal(50_000).astype("<f4") * np.float32(2.0**exponent)
        error = np.linalg.norm(values.astype("<f2").astype("<f8") - values)
        bound = math.sqrt(rounding_squared(DType.F16, 0, float((values.astype("<f8") ** 2).sum()), values.size))
        assert error <= bound < 10 * error


def test_merges_in_files_are_found_by_component_and_block(tmp_path):
    whole = demo()
    keys = [key for key in whole if key.startswith((UNET, "first_stage_model."))]

    def moved(seed):
        rng = np.random.default_rng(seed)
        return {key: whole[key] + (rng.standard_normal(whole[key].shape) * 0.01).astype("<f4") for key in keys}

    a, b, c = moved(1), moved(2), moved(3)

    def merged(ratio):
        return {key: (1 - np.float32(ratio(key))) * a[key] + np.float32(ratio(key)) * b[key] for key in keys}

    models = {
        "a": a,
        "b": b,
        "c": c,
        "plain": merged(lambda key: 0.4),
        "vae-only": {**c, **part_of(merged(lambda key: 0.4), "first_stage_model.")},
        "blocks": merged(lambda key: 0.75 if key.startswith(f"{UNET}out") else 0.25),
    }
    result = measure_set([save(tmp_path / f"{name}.safetensors", half(model)) for name, model in models.items()])
    told = {(merge.component, result.members[merge.model].name.partition(".")[0]): merge for merge in result.merges}
    assert set(told) == {("unet", "plain"), ("unet", "blocks"), ("vae", "plain"), ("vae", "blocks")}
    for component in ("unet", "vae"):
        assert told[component, "plain"].parents == (0, 1)
        assert told[component, "plain"].weights[1] == pytest.approx(0.4, abs=1e-3)
    assert result.component("vae").identical == ((3, 4),)
    assert told["vae", "blocks"].weights[1] == pytest.approx(0.25, abs=1e-3)
    assert not told["unet", "plain"].by_block and told["unet", "blocks"].by_block
    for share in told["unet", "plain"].blocks:
        assert share.weights[1] == pytest.approx(0.4, abs=1e-3), share.block
    for share in told["unet", "blocks"].blocks:
        wanted = 0.75 if share.block.startswith("OUT") else 0.25
        assert share.weights[1] == pytest.approx(wanted, abs=1e-3), share.block


@pytest.mark.parametrize("ratio", [0.4, 0.65, 0.95])
def test_a_merge_stored_at_single_has_its_ratio_to_six_digits_in_every_block(tmp_path, ratio):
    whole = {key: a for key, a in demo().items() if key.startswith((UNET, "first_stage_model."))}

    def moved(seed):
        rng = np.random.default_rng(seed)
        return {key: a + (rng.standard_normal(a.shape) * 0.01).astype("<f4") for key, a in whole.items()}

    a, b = moved(1), moved(2)
    exact = {key: (1 - ratio) * a[key].astype("<f8") + ratio * b[key].astype("<f8") for key in whole}
    models = {"a": a, "b": b, "m": {key: value.astype("<f4") for key, value in exact.items()}}
    result = measure_set([save(tmp_path / f"{name}.safetensors", model) for name, model in models.items()])
    assert [(merge.component, merge.model, merge.parents) for merge in result.merges] == [
        ("unet", 2, (0, 1)),
        ("vae", 2, (0, 1)),
    ]
    for merge in result.merges:
        assert merge.weights[1] == pytest.approx(ratio, abs=1e-6)
        assert not merge.by_block
    shares = result.merges[0].blocks
    assert len(shares) == 25
    for share in shares:
        assert share.weights[1] == pytest.approx(ratio, abs=1e-6), share.block


def part_of(arrays, prefix: str):
    return {f"{prefix}{key}": array for key, array in part(arrays, prefix).items()}


def test_the_nearest_mixture_is_that_of_a_brute_search():
    points = np.array([[2.0, 1.0], [3.0, -1.0], [1.5, 4.0], [5.0, 5.0]])
    weights = nearest_mixture(points @ points.T)
    steps = [i / 400 for i in range(401)]
    best = min(np.linalg.norm((1 - t) * points[i] + t * points[j]) for t in steps for i in range(4) for j in range(i))
    assert np.linalg.norm(weights @ points) == pytest.approx(best, rel=1e-4)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    inside = np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert np.linalg.norm(nearest_mixture(inside @ inside.T) @ inside) == pytest.approx(0, abs=1e-9)


def test_products_come_from_distances_alone():
    points = np.random.default_rng(0).standard_normal((4, 6))
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    seen = points[1:] - points[0]
    assert products(squared, 0, [1, 2, 3]) == pytest.approx(seen @ seen.T)
    assert affine_weights(np.diag([1.0, 1.0, 2.0])) == pytest.approx([0.4, 0.4, 0.2])
