"""Small models with values that make figures worth comparing, made without the package's readers and writers."""

from __future__ import annotations

import math
import zlib
from functools import cache
from pathlib import Path

import numpy as np

from lib_toolkit.architectures.registry import architecture
from tests.making import of_arrays, safetensors_bytes

SHIFTS = {"model.diffusion_model.": -0.01, "first_stage_model.": 0.2, "cond_stage_model.": -0.06}
"""So that the sums over the small components are of the size of those of real ones."""


def values(key: str, shape, shift: float = 0.0) -> np.ndarray:
    """Random FP32 values that depend on the key alone."""
    if key.endswith("position_ids"):
        return np.arange(math.prod(shape), dtype="<i8").reshape(shape)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    return (rng.standard_normal(shape) * 0.05 + shift).astype("<f4")


def demo(name: str = "sd-v1-demo", nai: bool = False) -> dict[str, np.ndarray]:
    """A whole small checkpoint at FP32; NovelAI's names get the values of the standard ones."""
    return {key: array.copy() for key, array in _demo(name, nai).items()}


@cache
def _demo(name: str, nai: bool) -> dict[str, np.ndarray]:
    arrays = {}
    for key, shape in {**architecture(name).table(nai=nai), **architecture(name).schedule()}.items():
        shift = next((shift for prefix, shift in SHIFTS.items() if key.startswith(prefix)), 0.0)
        arrays[key] = values(key.replace("transformer.text_model.", "transformer."), shape, shift)
    return arrays


def part(arrays, prefix: str) -> dict[str, np.ndarray]:
    """The component under a prefix, as a file of its own holds it."""
    return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}


def half(arrays) -> dict[str, np.ndarray]:
    with np.errstate(over="ignore"):
        return {key: a.astype("<f2") if a.dtype.kind == "f" else a for key, a in arrays.items()}


def save(path: Path, arrays, metadata=None, more=None) -> Path:
    path.write_bytes(safetensors_bytes({**of_arrays(arrays), **(more or {})}, metadata))
    return path
