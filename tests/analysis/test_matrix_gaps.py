"""NaN and infinite values in a set: distances, identity and merges are said of the numbers that are there."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from lib_toolkit.analysis.matrix.merges import rounded_copies, untold
from lib_toolkit.analysis.matrix.whole import measure_set
from tests.analysis.samples import demo, half, save

UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def whole():
    return {key: a for key, a in demo().items() if key.startswith(UNET)}


def moved(arrays, seed: int):
    rng = np.random.default_rng(seed)
    return {key: a + (rng.standard_normal(a.shape) * 0.01).astype("<f4") for key, a in arrays.items()}


def merged(a, b, ratio: float):
    return {key: ((1 - ratio) * a[key].astype("<f8") + ratio * b[key]).astype("<f4") for key in a}


def holed(arrays, share: float, seed: int = 5, every: int = 1, value: float = np.nan):
    """A copy in every so many of whose tensors a share of the values is no number; a share of 0: one value in all."""
    rng = np.random.default_rng(seed)
    made = {key: a.copy() for key, a in arrays.items()}
    for place, key in enumerate(made):
        if share and place % every == 0:
            made[key][rng.random(made[key].shape) < share] = value
    if not share:
        largest = max(made, key=lambda key: made[key].size)
        made[largest].flat[11] = value
    return made


def measured(folder, workers=None, **models):
    folder.mkdir(exist_ok=True)
    return measure_set(
        [save(folder / f"{name}.safetensors", arrays) for name, arrays in models.items()], workers=workers
    )


def told(result):
    return {(merge.component, result.members[merge.model].name.partition(".")[0]): merge for merge in result.merges}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("sick", ["b", "c", "bc"])
def test_one_value_that_is_no_number_hides_no_merge(tmp_path, whole, sick, value):
    b, c = moved(whole, 1), moved(whole, 2)
    models = {"b": b, "c": c, "bc": merged(b, c, 0.5)}
    key = max(b, key=lambda key: b[key].size)
    models[sick] = {**models[sick], key: models[sick][key].copy()}
    # Where the parents differ most, one element is much more than all rounding.
    models[sick][key].flat[np.argmax(np.abs(b[key] - c[key]))] = value
    merges = told(measured(tmp_path, **models))
    assert list(merges) == [("unet", "bc")]
    assert merges["unet", "bc"].parents == (0, 1)
    assert merges["unet", "bc"].weights[1] == pytest.approx(0.5, abs=1e-6)
    for share in merges["unet", "bc"].blocks:
        assert share.weights[1] == pytest.approx(0.5, abs=1e-5), share.block


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("sick", ["p", "m", "other"])
def test_many_values_that_are_no_numbers_change_no_ratio(tmp_path, whole, sick, coarse):
    p, q = moved(whole, 1), moved(whole, 2)
    models = {"p": p, "q": q, "m": merged(p, q, 0.3), "other": moved(whole, 3)}
    models[sick] = holed(models[sick], 0.05, every=3)
    if coarse:
        models = {name: half(model) for name, model in models.items()}
    result = measured(tmp_path, **models)
    merges = told(result)
    assert list(merges) == [("unet", "m")]
    merge = merges["unet", "m"]
    assert merge.weights[1] == pytest.approx(0.3, abs=1e-3 if coarse else 1e-6)
    # The residual, by other means, over what is a number in all.
    stored = [np.concatenate([x.astype("<f8").ravel() for x in model.values()]) for model in models.values()]
    good = np.isfinite(stored).all(axis=0)
    x, y, z = (one[good] for one in stored[:3])
    residual = np.linalg.norm(z - merge.weights[0] * x - merge.weights[1] * y)
    assert merge.residual == pytest.approx(residual, rel=0.05, abs=1e-4 * merge.distance)
    component = result.component("unet")
    assert component.joint_left_out.tolist() == [np.count_nonzero(~good)] * 4
    assert component.joint[0, 1] == pytest.approx(np.linalg.norm(x - y), rel=1e-6)


def mostly_holed(arrays, how: str, seed: int = 5):
    """A copy most of whose values are no numbers, spread in one of several ways."""
    if how == "all":
        return {key: np.full_like(a, np.nan) for key, a in arrays.items()}
    if how == "scattered":
        return holed(arrays, 0.9, seed)
    # The UNet is read from its inputs on; its outputs are more than half of it.
    late = how == "late"
    return {key: np.full_like(a, -np.inf) if key.startswith(f"{UNET}out") is late else a for key, a in arrays.items()}


def mixtures(whole):
    """Two relatives and what can be made of them, and a stranger."""
    p, q, r, other = (moved(whole, seed) for seed in (1, 2, 3, 4))
    three = {key: (0.5 * p[key].astype("<f8") + 0.3 * q[key] + 0.2 * r[key]).astype("<f4") for key in p}
    blocks = {**merged(p, q, 0.25), **{k: a for k, a in merged(p, q, 0.75).items() if k.startswith(f"{UNET}out")}}
    return {"p": p, "q": q, "r": r, "m": merged(p, q, 0.3), "three": three, "blocks": blocks, "other": other}


def by_name(result):
    """All merges, with names in the place of places."""
    names = [member.name.partition(".")[0] for member in result.members]
    return {
        (merge.component, names[merge.model]): (tuple(names[one] for one in merge.parents), merge)
        for merge in result.merges
    }


def assert_same_merges(found, wanted):
    assert found.keys() == wanted.keys()
    for key, (parents, merge) in found.items():
        others, other = wanted[key]
        assert parents == others and merge.by_block == other.by_block
        assert merge.weights == pytest.approx(other.weights, abs=1e-9)
        assert (merge.bound, merge.distance) == pytest.approx((other.bound, other.distance), rel=1e-9)
        # What is left over is the difference of large numbers.
        assert merge.residual == pytest.approx(other.residual, abs=1e-8 * merge.distance)
        assert [share.block for share in merge.blocks] == [share.block for share in other.blocks]
        for share, same in zip(merge.blocks, other.blocks, strict=True):
            assert share.weights == pytest.approx(same.weights, abs=1e-9)


@pytest.fixture(scope="module")
def usual(whole, tmp_path_factory):
    """Gives models that were mixed, and the merges found among them, by whether one has a few NaN and all are FP16."""

    @functools.cache
    def made(mild, coarse):
        models = mixtures(whole)
        if mild:
            models["q"] = holed(models["q"], 0.02, seed=8)
        if coarse:
            models = {name: half(model) for name, model in models.items()}
        return models, by_name(measured(tmp_path_factory.mktemp("usual"), **models))

    return made


@pytest.mark.parametrize(
    ("how", "first", "mild", "coarse"),
    [
        ("all", True, False, False),
        ("all", True, True, True),
        ("all", False, False, True),
        ("all", False, True, False),
        ("scattered", False, False, False),
        ("scattered", False, True, True),
        ("late", True, False, True),
        ("late", True, True, False),
    ],
)
def test_a_model_mostly_without_numbers_hides_no_merge_of_others(tmp_path, whole, usual, how, first, mild, coarse):
    models, without = usual(mild, coarse)
    assert set(without) == {("unet", "m"), ("unet", "three"), ("unet", "blocks")}
    assert without["unet", "m"][1].weights[1] == pytest.approx(0.3, abs=1e-3 if coarse else 1e-6)
    assert without["unet", "three"][1].weights == pytest.approx((0.5, 0.3, 0.2), abs=1e-3)
    bad = mostly_holed(moved(whole, 9), how)
    result = measured(tmp_path, **({"bad": bad, **models} if first else {**models, "bad": bad}))
    component = result.component("unet")
    place = 0 if first else len(models)
    assert component.holed == untold(component) == [place]
    assert_same_merges(by_name(result), without)


def test_several_models_without_numbers_and_a_merge_with_one_are_told_apart(tmp_path, whole):
    models = mixtures(whole)
    without = by_name(measured(tmp_path / "a", **models))
    sick = {
        "one": mostly_holed(moved(whole, 9), "all"),
        "two": mostly_holed(moved(whole, 10), "scattered", 6),
        "three_": mostly_holed(moved(whole, 11), "late"),
        "gone": mostly_holed(merged(models["p"], models["q"], 0.6), "scattered", 7),
        "copy": mostly_holed(moved(whole, 9), "all"),
    }
    result = measured(tmp_path / "b", **sick, **models)
    assert result.component("unet").holed == [0, 1, 2, 3, 4]
    assert_same_merges(by_name(result), without)


def test_without_the_model_all_is_as_if_it_were_not_there(tmp_path, whole):
    models = mixtures(whole)
    alone = measured(tmp_path / "a", **models).component("unet")
    beside = measured(tmp_path / "b", **models, bad=mostly_holed(models["p"], "all")).component("unet")
    for name in ("joint", "l2", "left_out"):
        assert (getattr(beside, name)[:-1, :-1] == getattr(alone, name)).all(), name
    for name in ("rounding", "joint_left_out"):
        assert (getattr(beside, name)[:-1] == getattr(alone, name)).all(), name
    assert beside.joint_left_out[-1] == beside.own_elements[-1]


def test_what_is_gained_counts_for_the_models_that_have_it(tmp_path, whole):
    """Tensors of two forms in one component: the second family gains nothing of the first one's."""
    small = {key: np.ascontiguousarray(a[..., :1]) if a.ndim > 1 else a[:1] for key, a in whole.items()}
    p, q = moved(small, 1), moved(small, 2)
    models = {"x": whole, "y": moved(whole, 3), "bad": mostly_holed(whole, "all"), "p": p, "q": q}
    found = measured(tmp_path, **models, m=merged(p, q, 0.4)).components[0]
    assert found.joint_left_out.tolist() == [0, 0, found.own_elements[2], 0, 0, 0]


def test_models_that_leave_too_little_to_each_other_cannot_be_told(tmp_path, whole):
    p, q = moved(whole, 1), moved(whole, 2)
    few = measured(tmp_path, p=p, q=q, m=merged(p, q, 0.3), bad=holed(moved(whole, 3), 0.4))
    component = few.component("unet")
    assert component.holed == untold(component) == [] and list(told(few)) == [("unet", "m")]
    more = {"bad": holed(moved(whole, 3), 0.4), "worse": holed(moved(whole, 4), 0.4, seed=6)}
    result = measured(tmp_path, p=p, q=q, m=merged(p, q, 0.3), **more)
    assert result.merges == () and result.component("unet").holed == []
    assert untold(result.component("unet")) == [0, 1, 2, 3, 4]


def test_a_block_without_numbers_has_no_share_and_no_block_merge(tmp_path, whole):
    p, q = moved(whole, 1), moved(whole, 2)
    inside = f"{UNET}middle_block."

    def sick(model):
        return {key: np.full_like(a, np.nan) if key.startswith(inside) else a for key, a in model.items()}

    plain = told(measured(tmp_path, p=p, q=q, m=sick(merged(p, q, 0.3))))["unet", "m"]
    assert plain.weights[1] == pytest.approx(0.3, abs=1e-6)
    shares = {share.block for share in plain.blocks}
    assert "M00" not in shares and {"IN00", "OUT11"} <= shares
    mixed = {**merged(p, q, 0.3), **{k: a for k, a in merged(p, q, 0.7).items() if k.startswith(f"{UNET}out")}}
    assert told(measured(tmp_path, p=p, q=q, m=mixed))["unet", "m"].by_block
    assert told(measured(tmp_path, p=p, q=q, m=sick(mixed))) == {}


def test_figures_are_those_of_the_numbers_in_both(tmp_path, whole):
    a, b = moved(whole, 1), moved(whole, 2)
    models = {"a": a, "b": holed(b, 0.2), "c": holed(moved(whole, 3), 0.1, seed=6, value=-np.inf)}
    found = measured(tmp_path, **models).component("unet")
    vectors = [np.concatenate([one.astype("<f8").ravel() for one in model.values()]) for model in models.values()]
    for i, x in enumerate(vectors):
        for j, y in enumerate(vectors):
            good = np.isfinite(x) & np.isfinite(y)
            u, v = x[good], y[good]
            assert found.left_out[i, j] == np.count_nonzero(~good)
            assert found.l2[i, j] == pytest.approx(np.linalg.norm(u - v), rel=1e-6)
            assert found.mean[i, j] == pytest.approx(np.abs(u - v).mean(), rel=1e-6)
            assert found.cosine[i, j] == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v), abs=1e-7)
        assert found.norm[i] == pytest.approx(np.linalg.norm(x[np.isfinite(x)]), rel=1e-6)


def test_models_that_differ_in_no_number_are_not_equal(tmp_path, whole):
    a, b = moved(whole, 1), moved(whole, 2)
    sick = holed(a, 0)
    found = measured(tmp_path, a=a, sick=sick, b=b, again=sick, copy=a).component("unet")
    assert found.identical == ((0, 4), (1, 3))
    assert found.silent[0, 1] and found.silent.sum() == 8
    for metric in ("l1", "l2", "cosine"):
        figures = found.figures(metric)
        assert math.isnan(figures[0, 1]) and not math.isnan(figures[0, 2])
        assert figures[0, 4] == figures[1, 3] == (1 if metric == "cosine" else 0)
    assert found.figures("l0")[0, 1] == 1 and found.changed[0, 1] == 1
    ((why, pairs),) = found.reasons
    assert why == "1 value that differs is NaN or infinite in one of the two, and all others are equal"
    assert pairs == ((0, 1), (0, 4 - 1), (1, 4), (3, 4))
    assert [near for _, near, _ in found.nearest()] == [4, 3, found.nearest()[2][1], 1, 0]
    alone = measured(tmp_path, a=a, sick=sick).component("unet")
    assert math.isnan(alone.nearest()[0][2]) and math.isnan(alone.to_set[0]) and math.isnan(alone.to_average[1])
    # A value too large for FP16 is more than rounding.
    high = {key: value.copy() for key, value in a.items()}
    next(iter(high.values())).flat[0] = 1e5
    assert rounded_copies(measured(tmp_path, high=high, low=half(high)).component("unet")) == []
    assert rounded_copies(measured(tmp_path, sick=sick, low=half(sick)).component("unet")) == [(0, 1)]


def test_values_that_are_no_numbers_give_the_same_bits_with_any_number_of_workers(tmp_path, whole):
    rng = np.random.default_rng(0)
    large = {"layer.weight": rng.standard_normal((1200, 512)).astype("<f4")}
    models = {
        "a": large,
        "b": holed(moved(large, 1), 0.1),
        "c": half(holed(moved(large, 2), 0.2, value=np.inf)),
        "d": moved(large, 3),
        "e": holed(moved(large, 1), 0.1),
        "f": holed(moved(large, 4), 0.8),
        "g": holed(moved(large, 5), 1.0),
    }
    one, eight = (measured(tmp_path, workers, **models).components[0] for workers in (1, 8))
    for name in ("l1", "l2", "joint", "cosine", "mean", "norm", "rounding", "left_out", "to_average"):
        assert getattr(one, name).tobytes() == getattr(eight, name).tobytes(), name
    assert one.identical == ((1, 4),) and one.left_out[1, 4] == one.left_out[1, 1] > 0
