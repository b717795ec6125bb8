"""The models of the benchmarks: dense random weights at real names and shapes, or sparse files of any size."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from lib_toolkit.architectures.registry import architecture

BLOCK = 4 << 20


def table(name: str) -> dict[str, tuple[int, ...]]:
    """Every key of a checkpoint with its shape, schedule buffers included."""
    return {**architecture(name).table(), **architecture(name).schedule()}


def buffers(name: str) -> set[str]:
    """Keys of the noise schedule, which stay at FP32."""
    return set(architecture(name).schedule())


def random_block() -> np.ndarray:
    """4 Mi values of the size of real weights, none of which FP16 would lose."""
    values = np.random.default_rng(0).standard_normal(BLOCK).astype("<f4") * 0.05
    values[np.abs(values) < 1e-4] = 0.01
    return values


def _header(shapes: dict[str, tuple[int, ...]], floats: str = "F32") -> tuple[bytes, int]:
    entries, position = {}, 0
    for key, shape in shapes.items():
        whole = key.endswith("position_ids")
        size = (8 if whole else 4 if floats == "F32" else 2) * math.prod(shape)
        dtype = "I64" if whole else floats
        entries[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw, position


def dense_safetensors(path: Path, name: str, floats: str = "F32", part: str = "") -> Path:
    """A checkpoint full of random weights, at F32 or F16; with ``part``, only the component under that prefix."""
    if not path.exists():
        shapes = {key[len(part) :]: shape for key, shape in table(name).items() if key.startswith(part)}
        head, size = _header(shapes, floats)
        block = random_block().astype("<f4" if floats == "F32" else "<f2").tobytes()
        with path.open("wb") as file:
            file.write(head)
            for begin in range(0, size, len(block)):
                file.write(block[: min(len(block), size - begin)])
    return path


def sparse_safetensors(path: Path, name: str, least: int = 0) -> Path:
    """An FP32 checkpoint of zeros that takes no room on disk, padded with unknown tensors to ``least`` bytes."""
    if not path.exists():
        shapes = table(name)
        missing = least - sum(4 * math.prod(shape) for shape in shapes.values())
        shapes |= {f"extra.{i}.weight": (1 << 26,) for i in range(max(0, missing) >> 28)}
        head, size = _header(shapes)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + size)
            for key, entry in json.loads(head[8:]).items():
                if key.endswith("position_ids"):
                    file.seek(len(head) + entry["data_offsets"][0])
                    file.write(np.arange(math.prod(entry["shape"]), dtype="<i8").tobytes())
    return path


def dense_checkpoint(path: Path, name: str) -> Path:
    """An FP32 + EMA training checkpoint, saved by PyTorch itself."""
    if path.exists():
        return path
    import torch

    block = random_block()
    shapes = table(name)
    unet = {key: shape for key, shape in shapes.items() if key.startswith("model.diffusion_model.")}
    ema = {"model_ema." + key[len("model.") :].replace(".", ""): shape for key, shape in unet.items()}

    def tensor(key: str, shape: tuple[int, ...], shift: int) -> torch.Tensor:
        if key.endswith("position_ids"):
            return torch.arange(math.prod(shape)).reshape(shape)
        values = np.empty(math.prod(shape), dtype="<f4")
        for begin in range(0, values.size, BLOCK // 2):
            start = (shift + begin) * 7919 % (BLOCK // 2)
            part = values[begin : begin + BLOCK // 2]
            part[:] = block[start : start + part.size]
        return torch.from_numpy(values.reshape(shape))

    state = {key: tensor(key, shape, index) for index, (key, shape) in enumerate({**shapes, **ema}.items())}
    state["model_ema.decay"] = torch.tensor(0.9999)
    state["model_ema.num_updates"] = torch.tensor(840_000, dtype=torch.int32)
    torch.save({"state_dict": state, "epoch": 12, "global_step": 840_000}, path)
    return path
