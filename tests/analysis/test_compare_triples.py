"""A third model on the line between two: its ratio, how far off it is, and what is said."""

from __future__ import annotations

import math
from contextlib import ExitStack

import numpy as np
import pytest

from lib_toolkit.analysis.compare.triples import compare_with_third, position
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from tests.analysis.samples import demo, half, save

VAE = "first_stage_model."


def other(seed=1):
    """A model of the same kind with other values."""
    rng = np.random.default_rng(seed)
    return {k: (rng.standard_normal(v.shape) * 0.05).astype("<f4") if v.dtype == "f4" else v for k, v in demo().items()}


def run(tmp_path, *sets):
    with ExitStack() as stack:
        models = []
        for name, arrays in zip("abm", sets, strict=True):
            models.append(stack.enter_context(open_model(save(tmp_path / f"{name}.safetensors", arrays))))
        return compare_with_third(tuple(models), tuple(identify(model) for model in models))


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
    assert place.residual == pytest.approx(12 / 5 / 5)
    assert place.angle == pytest.approx(90)
    straight = position(100.0, 16.0, 36.0)
    assert (straight.ratio, straight.residual, straight.angle) == (pytest.approx(0.4), pytest.approx(0, abs=1e-7), 0)
    assert position(4.0, 4.0, 0.0) == position(4.0, 4.0, 0.0)
    assert position(4.0, 4.0, 0.0).angle is None
    assert position(0.0, 1.0, 1.0) is None


@pytest.mark.parametrize("ratio", [0.05, 0.4, 0.6, 0.95])
def test_a_mixed_vae(tmp_path, ratio):
    a, b = demo(), other()
    found, places = run(tmp_path, a, b, mixed(a, b, {VAE: ratio}))
    assert places["vae"].ratio == pytest.approx(ratio, abs=1e-6)
    assert places["unet"].ratio == pytest.approx(0, abs=1e-6)
    assert any(
        f"The VAE of m.safetensors is mixed of A's and B's: {100 * ratio:.1f} % of B" in s for s in found.verdicts
    )
    assert any("The UNet of m.safetensors is that of A" in s for s in found.verdicts)


def test_stored_at_half_precision(tmp_path):
    a, b = demo(), other()
    _, places = run(tmp_path, half(a), half(b), half(mixed(a, b, {"": 0.35})))
    for name in ("unet", "vae", "text_encoder"):
        assert places[name].ratio == pytest.approx(0.35, abs=1e-3)
        assert places[name].residual < 1e-2
        assert places[name].mixed


def test_strangers_are_no_mix(tmp_path):
    found, places = run(tmp_path, demo(), other(), other(2))
    assert not any(place.mixed for place in places.values())
    assert min(place.residual for name, place in places.items() if name != "schedule") > 0.25
    assert any("The VAE of m.safetensors is no mix" in sentence for sentence in found.verdicts)


def test_a_swapped_vae(tmp_path):
    a, b = demo(), other()
    swapped = {key: b[key] if key.startswith(VAE) else array for key, array in a.items()}
    found, places = run(tmp_path, a, b, swapped)
    assert places["vae"].ratio == pytest.approx(1, abs=1e-12)
    assert places["vae"].residual == pytest.approx(0, abs=1e-7)
    assert any("The VAE of m.safetensors is that of B" in sentence for sentence in found.verdicts)


def test_beyond_a_parent(tmp_path):
    a, b = demo(), other()
    found, places = run(tmp_path, a, b, mixed(a, b, {VAE: 1.5}))
    assert places["vae"].ratio == pytest.approx(1.5, abs=1e-6)
    assert not places["vae"].mixed
    assert any(
        "The VAE of m.safetensors lies on the line of A's and B's, beyond them (ratio 1.500)" in s
        for s in found.verdicts
    )


def test_collinear_distances(tmp_path):
    a, b = demo(), other()
    _, near = run(tmp_path, a, b, mixed(a, b, {"": 0.25}))
    assert all(near[name].residual < 1e-3 and near[name].angle == pytest.approx(0, abs=0.2) for name in ("unet", "vae"))
    assert math.isclose(near["unet"].ratio, 0.25, abs_tol=1e-6)
