"""Measured sets with known relations, for what is told and drawn of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lib_toolkit.analysis.matrix.results import SetResult
from lib_toolkit.analysis.matrix.whole import measure_set
from tests.analysis.samples import save

HOSTILE = "<img src=x onerror=alert(1)>&'\"=cmd"


@cache
def small_set() -> SetResult:
    """a, b, c (c = 0.7 a + 0.3 b), a copy of a, a recipe of three, one of another shape, a broken file."""
    rng = np.random.default_rng(0)
    a, b, d = ({"w": one, "v": one[:9] * 2} for one in rng.standard_normal((3, 600, 8)).astype("<f4"))

    def mixed(*parts):
        return {key: sum(np.float32(weight) * model[key] for weight, model in parts) for key in a}

    models = {
        "a": a,
        "b": b,
        "c": mixed((0.7, a), (0.3, b)),
        "copy": a,
        "d": d,
        "three": mixed((0.5, a), (0.3, b), (0.2, d)),
        "other": {"w": a["w"][:7], "v": a["v"][:3]},
        HOSTILE: mixed((0.1, a), (0.9, d)),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = [save(folder / f"{model}.safetensors", arrays) for model, arrays in models.items()]
        broken = folder / "broken.safetensors"
        broken.write_bytes(b"\xff" * 99)
        return measure_set([*paths, broken])


@cache
def large_set(count: int) -> SetResult:
    """Many models with long names that begin alike, every fifth a copy of the one before."""
    rng = np.random.default_rng(1)
    with TemporaryDirectory() as name:
        paths, model = [], None
        for place in range(count):
            if place % 5 or model is None:
                model = rng.standard_normal((4, 50)).astype("<f4")
            label = f"a name that is long and begins as all the others do {place:03}"
            paths.append(save(Path(name) / f"{label}.safetensors", {"layer.weight": model}))
        return measure_set(paths)
