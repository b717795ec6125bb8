"""Model files of each kind with known values, and a models folder to drop them into."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lib_toolkit.architectures.registry import architecture
from lib_toolkit.autoprune import Policy, Run, processing, run_once
from tests.making import of_arrays, read_header, safetensors_bytes

FOLDERS = {
    "checkpoint": "Stable-diffusion",
    "vae": "VAE",
    "lora": "Lora",
    "controlnet": "ControlNet",
    "text_encoder": "text_encoder",
    "embedding": "embeddings",
    "upscaler": "ESRGAN",
    "hypernetwork": "hypernetworks",
    "component": "Components",
}

PREFIXES = {
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
    "unet": "model.diffusion_model.",
}


@dataclass(frozen=True)
class Library:
    """A models folder of a test."""

    root: Path

    @property
    def drop(self) -> Path:
        return self.root / "Autoprune"

    def folder(self, kind: str) -> Path:
        return self.root / FOLDERS[kind]

    def policy(self, **changes: object) -> Policy:
        return Policy(self.drop, {kind: self.root / name for kind, name in FOLDERS.items()}, **changes)

    def run(self, report=lambda step: None, **changes: object) -> Run:
        return run_once(self.policy(**changes), report=report, pause=0.01)

    def files(self, *folders: str) -> list[str]:
        """Every file that a user sees, by its path below the models folder."""
        bases = [self.root / folder for folder in folders] or [self.root]
        found = (path for base in bases for path in base.rglob("*") if path.is_file())
        names = (path.relative_to(self.root).as_posix() for path in found)
        return sorted(name for name in names if "/." not in name and not name.endswith(".jsonl"))

    def temporary(self) -> list[Path]:
        return list(self.root.rglob(".model-toolkit-*"))


class Killed(BaseException):
    """Stands for the end of the process: what comes after it is not done."""


def killed(*given: object, **named: object) -> None:
    """Takes the place of the step at which the process ends."""
    raise Killed


def kill_at(step: str, lib: Library, **changes: object) -> None:
    """A run whose process ends when it comes to this step of ``processing``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processing, step, killed)
        with pytest.raises(Killed):
            lib.run(**changes)


def outcomes(run: Run) -> dict[str, str]:
    """What became of each file."""
    return {step.file: step.outcome for step in run.steps}


def library(root: Path) -> Library:
    made = Library(root)
    made.drop.mkdir(parents=True)
    return made


def values(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Weights whose FP16 rounding is known to differ from them."""
    return np.random.default_rng([seed, zlib.crc32(key.encode())]).standard_normal(shape).astype("<f4") * 0.05


def lora(seed: int = 0, dtype: str = "<f4", modules: int = 3) -> dict[str, np.ndarray]:
    """A small LoRA in kohya's naming, for SD1's cross attention."""
    arrays = {}
    for number in range(modules):
        name = f"lora_unet_down_blocks_{number}_attentions_0_transformer_blocks_0_attn2_to_k"
        width = (320, 640, 1280)[number % 3]
        arrays[f"{name}.lora_down.weight"] = values(name + "d", (4, 768), seed).astype(dtype)
        arrays[f"{name}.lora_up.weight"] = values(name + "u", (width, 4), seed).astype(dtype)
        arrays[f"{name}.alpha"] = np.array(4, dtype)
    return arrays


def checkpoint(seed: int = 0, dtype: str = "<f4") -> dict[str, np.ndarray]:
    """A whole SD-v1-Demo checkpoint."""
    return {key: _weights(key, shape, seed, dtype) for key, shape in architecture("sd-v1-demo").table().items()}


def part(kind: str, seed: int = 0, dtype: str = "<f4") -> dict[str, np.ndarray]:
    """One component of it in a file of its own."""
    prefix = PREFIXES[kind]
    return {key[len(prefix) :]: array for key, array in checkpoint(seed, dtype).items() if key.startswith(prefix)}


def embedding(seed: int = 0, dtype: str = "<f4") -> dict[str, np.ndarray]:
    return {"emb_params": values("emb", (8, 768), seed).astype(dtype)}


def upscaler(dtype: str = "<f4") -> dict[str, np.ndarray]:
    names = ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight")
    return {name: values(name, (8, 8, 3, 3)).astype(dtype) for name in names}


def adapter(dtype: str = "<f4") -> dict[str, np.ndarray]:
    """A T2I adapter, which WebUIs look for among the ControlNets."""
    return {name: values(name, (8, 8, 3, 3)).astype(dtype) for name in ("body.0.block1.weight", "body.0.block2.weight")}


def hypernetwork(dtype: str = "<f4") -> dict[str, np.ndarray]:
    return {f"768.{i}.linear.weight": values(f"h{i}", (768, 768)).astype(dtype) for i in (0, 1)}


def save(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file, whatever its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(of_arrays(arrays), metadata))
    return path


def age(path: Path, seconds: float = 3600.0) -> Path:
    """Let a file be one that nobody has written to for so long."""
    when = time.time() - seconds
    os.utime(path, (when, when))
    return path


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """What a safetensors file holds, read without the package under test."""
    from safetensors.numpy import load_file

    return load_file(path)


def assert_halved(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The file holds just these tensors, floats rounded to FP16."""
    found = arrays_of(path)
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        wanted = array.astype("<f2") if array.dtype == np.dtype("<f4") else array
        assert found[key].dtype == wanted.dtype, key
        assert np.array_equal(found[key], wanted), key


def metadata_of(path: Path) -> dict[str, str]:
    return read_header(path)[0]["__metadata__"]


def _weights(key: str, shape: tuple[int, ...], seed: int, dtype: str) -> np.ndarray:
    if key.endswith("position_ids"):
        return np.arange(int(np.prod(shape)), dtype="<i8").reshape(shape)
    return values(key, shape, seed).astype(dtype)


HAS_RIGHTS = os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0)
"""Whether this user may write everywhere, whatever the folders' rights say."""
