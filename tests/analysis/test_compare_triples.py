"""A third model on the line between two: its ratio, how far off it is, and what is said."""

from __future__ import annotations

import math
from contextlib import ExitStack

import numpy as np
import pytest

from lib_toolkit.analysis.compare.places import position
from lib_toolkit.analysis.compare.triples import compare_with_third
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from tests.analysis.samples import demo, half, save

UNET, VAE = "model.diffusion_model.", "first_stage_model."


def other(seed=1):
    """A model of the same kind with other values."""
    rng = np.random.default_rng(seed)
    return {k: (rng.standard_normal(v.shape) * 0.05).astype("<f4") if v.dtype == "f4" else v for k, v in demo().items()}


def run(tmp_path, *sets):
    with ExitStack() as stack:
        models = []
        for name, arrays in zip("abm", sets, strict=True):
            models.append(stack.enter_context(open_model(save(tmp_path / f"{name}.safetensors", arrays))))
        found = compare_with_third(tuple(models), tuple(identify(model) for model in models))
    return found, {place.component: place.position for place in found.third.components}


def said(found, words):
    assert any(words in sentence for sentence in found.verdicts), found.verdicts


def trained(arrays, share, seed, prefix=""):
    """With independent noise of this share of the length of each tensor."""
    rng = np.random.default_rng(seed)
    made = {}
    for key, array in arrays.items():
        noise = rng.standard_normal(array.shape)
        scale = share * np.linalg.norm(array.astype("f8")) / np.linalg.norm(noise) if array.size else 0
        moved = array.dtype.kind == "f" and key.startswith(prefix)
        made[key] = (array + scale * noise).astype(array.dtype) if moved else array
    return made


def vector(arrays, prefix):
    """All of a component as one FP64 vector."""
    return np.concatenate([array.astype("f8").reshape(-1) for key, array in arrays.items() if key.startswith(prefix)])


def degrees(x, y):
    return math.degrees(math.acos(min(1.0, x @ y / np.linalg.norm(x) / np.linalg.norm(y))))


def mixed(a, b, ratios):
    """The mix by prefix, in FP64 and rounded once."""
    made = {}
    for key, array in a.items():
        ratio = next((r for prefix, r in ratios.items() if key.startswith(prefix)), 0.0)
        made[key] = (
            ((1 - ratio) * array.astype("f8") + ratio * b[key]).astype(array.dtype) if array.dtype == "f4" else array
        )
    return made


def test_by_hand():
    place = position(25.0, 9.0, 16.0)  # a right angle at M, over a hypotenuse of 5
    assert place.ratio == pytest.approx(9 / 25)
    assert (place.residual, place.off) == (pytest.approx(12 / 5), pytest.approx(12 / 25))
    assert place.turn == pytest.approx(90)
    assert place.angle == pytest.approx(math.degrees(math.atan2(4, 3)))
    assert (place.from_a, place.from_b, place.distance, place.nearest) == (3, 4, 5, 3)
    straight = position(100.0, 16.0, 36.0)
    assert (straight.ratio, straight.residual) == (pytest.approx(0.4), pytest.approx(0, abs=1e-7))
    assert (straight.angle, straight.turn) == (0, 0)
    assert (position(4.0, 4.0, 0.0).turn, position(4.0, 4.0, 0.0).angle) == (None, 0)
    assert position(4.0, 4.0, 0.0).copy_of == 1
    one = position(0.0, 9.0, 9.0)
    assert (one.ratio, one.off, one.angle, one.residual, one.copy_of) == (None, None, None, 3, None)


def test_bound_by_hand():
    """A third of the way, each stored with errors of its own; the sums lose next to nothing beside them."""
    place = position(9.0, 1.0, 4.0, (0.3, 0.6, 0.1))
    assert place.bound == pytest.approx(0.1 + 2 / 3 * 0.3 + 1 / 3 * 0.6, rel=1e-4)
    assert place.mixed


@pytest.mark.parametrize("ratio", [0.05, 0.4, 0.6, 0.95])
def test_a_mixed_vae(tmp_path, ratio):
    a, b = demo(), other()
    found, places = run(tmp_path, a, b, mixed(a, b, {VAE: ratio}))
    assert places["vae"].ratio == pytest.approx(ratio, abs=1e-6)
    assert places["unet"].ratio == pytest.approx(0, abs=1e-6)
    said(found, f"The VAE of m.safetensors is mixed of A's and B's: {100 * ratio:.1f} % of B")
    said(found, "The UNet of m.safetensors is that of A.")


def test_stored_at_half_precision(tmp_path):
    a, b = demo(), other()
    _, places = run(tmp_path, half(a), half(b), half(mixed(a, b, {"": 0.35})))
    for name in ("unet", "vae", "text_encoder"):
        assert places[name].ratio == pytest.approx(0.35, abs=1e-3)
        assert places[name].residual <= places[name].bound < 0.01 * places[name].distance
        assert places[name].mixed


def test_strangers_are_no_mix(tmp_path):
    found, places = run(tmp_path, demo(), other(), other(2))
    assert not any(place.mixed or place.nearly_mixed for place in places.values())
    assert min(place.off for place in places.values()) > 0.25
    said(found, "The VAE of m.safetensors is no mix")


def test_a_swapped_vae(tmp_path):
    a, b = demo(), other()
    swapped = {key: b[key] if key.startswith(VAE) else array for key, array in a.items()}
    found, places = run(tmp_path, a, b, swapped)
    assert places["vae"].ratio == pytest.approx(1, abs=1e-12)
    assert places["vae"].residual == pytest.approx(0, abs=1e-7)
    said(found, "The VAE of m.safetensors is that of B.")


def test_a_copy_at_a_coarser_type(tmp_path):
    a = demo()
    found, places = run(tmp_path, a, other(), half(a))
    assert (places["unet"].copy_of, places["unet"].exact) == (0, False)
    said(found, "The UNet of m.safetensors is that of A, but for the rounding of a coarser type.")


def test_a_trained_model_is_not_that_of_a(tmp_path):
    a, b = demo(), other()
    m = trained(a, 0.02, 5)
    found, places = run(tmp_path, a, b, m)
    for name, prefix in (("unet", UNET), ("vae", VAE)):
        x, y, z = (vector(arrays, prefix) for arrays in (a, b, m))
        ratio = (z - x) @ (y - x) / ((y - x) @ (y - x))
        residual = np.linalg.norm(z - x - ratio * (y - x))
        place = places[name]
        assert place.residual == pytest.approx(residual, rel=1e-4)
        assert place.bound < residual / 100
        assert place.angle == pytest.approx(degrees(z - x, y - x), abs=0.01)
    away = np.linalg.norm(vector(m, UNET) - vector(a, UNET)) / np.linalg.norm(vector(b, UNET) - vector(a, UNET))
    said(found, f"The UNet of m.safetensors is near A's, but not equal to it: it is {100 * away:.2g} % of ‖A−B‖ away.")
    assert not any("is that of" in sentence for sentence in found.verdicts)


def test_a_mix_that_was_trained_further(tmp_path):
    a, b = demo(), other()
    m = trained(mixed(a, b, {"": 0.3}), 0.04, 6)
    found, places = run(tmp_path, a, b, m)
    x, y, z = (vector(arrays, UNET) for arrays in (a, b, m))
    ratio = (z - x) @ (y - x) / ((y - x) @ (y - x))
    off = np.linalg.norm(z - x - ratio * (y - x)) / np.linalg.norm(y - x)
    assert places["unet"].ratio == pytest.approx(ratio, abs=1e-6)
    assert not places["unet"].mixed
    words = f"is mixed of A's and B's ({100 * ratio:.1f} % of B) and trained on: it is off their line by"
    said(found, f"The UNet of m.safetensors {words} {100 * off:.2g} % of ‖A−B‖.")


def test_beyond_a_parent(tmp_path):
    a, b = demo(), other()
    found, places = run(tmp_path, a, b, mixed(a, b, {VAE: 1.5}))
    assert places["vae"].ratio == pytest.approx(1.5, abs=1e-6)
    assert not places["vae"].mixed
    said(found, "The VAE of m.safetensors lies on the line of A's and B's, beyond them (ratio 1.500)")


def test_collinear_distances(tmp_path):
    a, b = demo(), other()
    _, near = run(tmp_path, a, b, mixed(a, b, {"": 0.25}))
    for name in ("unet", "vae"):
        assert near[name].residual <= near[name].bound < 1e-3 * near[name].distance
        assert near[name].turn == pytest.approx(0, abs=0.2)
    assert math.isclose(near["unet"].ratio, 0.25, abs_tol=1e-6)


@pytest.mark.parametrize("parallel", [False, True], ids=["orthogonal", "parallel"])
def test_direction_of_training_steps(tmp_path, parallel):
    """Steps d1 and d2 from A over M to B: orthogonal ones add by squares, parallel ones by lengths."""
    a = demo()
    keys = [key for key in a if key.startswith(UNET) and a[key].dtype == "f4"]
    first, second = keys[::2], keys[::2] if parallel else keys[1::2]
    m = {key: array + np.float32(0.25) if key in first else array for key, array in a.items()}
    b = {key: array + np.float32(0.125) if key in second else array for key, array in m.items()}
    found, places = run(tmp_path, a, b, m)
    one, two = (vector(y, UNET) - vector(x, UNET) for x, y in ((a, m), (m, b)))
    assert degrees(one, two) == pytest.approx(0 if parallel else 90, abs=0.05)
    place = places["unet"]
    assert place.from_a == pytest.approx(np.linalg.norm(one), rel=1e-6)
    assert place.from_b == pytest.approx(np.linalg.norm(two), rel=1e-6)
    if parallel:
        assert place.distance == pytest.approx(place.from_a + place.from_b, rel=1e-6)
    else:
        assert place.distance**2 == pytest.approx(place.from_a**2 + place.from_b**2, rel=1e-6)
    assert place.turn == pytest.approx(0 if parallel else 90, abs=0.05)
    assert place.angle == pytest.approx(degrees(one, one + two), abs=0.05)
    said(found, "A, B and m.safetensors have the same text encoder and VAE.")


def test_merge_blocks_have_places_of_their_own(tmp_path):
    a, b = demo(), other()
    found, _ = run(tmp_path, a, b, mixed(a, b, {UNET + "middle_block": 0.75, UNET + "input_blocks.4": 0.5}))
    places = {place.name: place.position for place in found.third.merge_blocks}
    assert list(places) == ["BASE", *(f"IN{i:02d}" for i in range(12)), "M00", *(f"OUT{i:02d}" for i in range(12))]
    assert (places["M00"].ratio, places["IN04"].ratio) == (pytest.approx(0.75, abs=1e-6), pytest.approx(0.5, abs=1e-6))
    assert places["M00"].mixed
    assert all(place.exact for name, place in places.items() if name not in ("M00", "IN04"))


def test_a_component_that_a_and_b_share(tmp_path):
    a, b = demo(), other()
    b |= {key: array for key, array in a.items() if key.startswith(VAE)}
    found, places = run(tmp_path, a, b, trained(a, 0.1, 3, VAE))
    assert (places["vae"].ratio, places["vae"].angle) == (None, None)
    said(found, "The VAE of m.safetensors differs, though A and B have the same VAE.")


def test_nothing_in_common(tmp_path):
    rng = np.random.default_rng(0)
    found, places = run(tmp_path, demo(), other(), {"thing.weight": rng.standard_normal((3, 4)).astype("<f4")})
    assert places == {}
    said(found, "m.safetensors has nothing that can be placed between A and B")


def test_a_component_that_the_third_lacks(tmp_path):
    a, b = demo(), other()
    found, places = run(tmp_path, a, b, {key: array for key, array in a.items() if not key.startswith(VAE)})
    assert "vae" not in places
    said(found, "m.safetensors has no VAE.")


def test_a_third_of_another_architecture(tmp_path):
    found, places = run(tmp_path, demo(), other(), demo("sdxl-demo"))
    (unet,) = (place for place in found.third.components if place.component == "unet")
    assert 0 < unet.tensors < 684 and places["unet"].exact
    said(found, f"Going by {unet.tensors} of 684 tensors, the UNet of m.safetensors is that of A.")
    said(found, "No tensor of m.safetensors fits A's and B's text encoder")


def test_values_of_the_third_that_are_no_numbers(tmp_path):
    a, b = demo(), other()
    m = mixed(a, b, {"": 0.25})
    key = UNET + "time_embed.0.weight"
    m[key].reshape(-1)[:3] = np.nan
    found, places = run(tmp_path, a, b, m)
    said(found, "m.safetensors holds 3 NaN values")
    said(found, "Going by 683 of 684 tensors, the UNet of m.safetensors is mixed of A's and B's: 25.0 % of B")
    assert places["unet"].ratio == pytest.approx(0.25, abs=1e-6)
