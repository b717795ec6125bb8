"""A model folder to play with: scaled-down models with known faults, and one of full size that takes no room.

The small ones are of the declared demonstration sizes (``SD-v1-Demo``, ``SDXL-Demo``) with random weights, which
depend on their key and a seed alone: the same file comes out every time. They make no pictures.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lib_toolkit.architectures import prefixes
from lib_toolkit.architectures.registry import architecture
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import TargetError
from lib_toolkit.formats.checkpoint_out import checkpoint_layout
from lib_toolkit.formats.layout import Frame
from lib_toolkit.formats.safetensors_out import safetensors_layout
from lib_toolkit.plan import Scalar
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.streaming import stream
from lib_toolkit.temporary import TemporaryFile
from lib_toolkit.tensors import Filled, Tensor

if TYPE_CHECKING:
    from lib_toolkit.tensors import Bytes

Tensors: TypeAlias = "dict[str, Tensor]"

_POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
_LORA_RANK = 4
_TRAINING: Mapping[str, Scalar] = {"epoch": 12, "global_step": 84_000}


@dataclass(frozen=True)
class Demo:
    """A demo folder: the models that were made, each with what there is to see in it, and those left alone."""

    made: Mapping[Path, str]
    kept: tuple[Path, ...]


def make_demo(folder: Path, progress: Progress = SILENT) -> Demo:
    """Make the demo folder; what is there already under a model's name is left as it is.

    Raises TargetError when the folder cannot be written to.
    """
    samples = {folder / name: sample for name, sample in _SAMPLES.items()}
    try:
        for path in samples:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"{folder} cannot be made: {error.strerror}; choose another folder.") from None
    made: dict[Path, str] = {}
    kept: list[Path] = []
    for path, (shows, make) in samples.items():
        if os.path.lexists(path):
            kept.append(path)
        else:
            _save(path, make(), progress)
            made[path] = shows
    full = folder / "Stable-diffusion" / "sd-v1-full-size-zeros.safetensors"
    if os.path.lexists(full):
        kept.append(full)
    elif _save_sparse(full):
        made[full] = "of full size, 4.26 GB of zeros that take no room on the disk; the report finds them"
    return Demo(made, tuple(kept))


@dataclass(frozen=True)
class _Contents:
    """What a file will hold; ``values`` stand beside the tensors of a .ckpt."""

    tensors: Tensors
    metadata: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Scalar] = field(default_factory=dict)


def _save(path: Path, contents: _Contents, progress: Progress) -> None:
    if path.suffix == ".ckpt":
        metadata = dict(contents.metadata)
        layout = checkpoint_layout(contents.tensors, metadata, contents.values)
    else:
        metadata = {"format": "pt", **contents.metadata}
        layout = safetensors_layout(contents.tensors, metadata)
    progress.start(f"making {path.name}", layout.size)
    with TemporaryFile(path) as file:
        crcs = stream(layout.slots, file.write_at, progress, by_key=layout.needs_crcs).crcs
        _write_frame(file, layout.frame(metadata, crcs))
        file.sync()
        file.commit()


def _write_frame(file: TemporaryFile, frame: Frame) -> None:
    for offset, data in frame:
        file.write_at(offset, memoryview(data))


def _sd(dtype: DType, seed: int = 1, ema: bool = False, nai: bool = False) -> Tensors:
    """A whole SD-v1-Demo checkpoint; the EMA copy lies close to the UNet, as after training."""
    demo = architecture("sd-v1-demo")
    tensors: Tensors = {key: _weights(key, shape, dtype, seed) for key, shape in demo.table(nai=nai).items()}
    tensors |= {key: _weights(key, shape, DType.F32, seed) for key, shape in demo.schedule().items()}
    if ema:
        shapes = demo.table(ema=True)
        names = {"model_ema." + key[len("model.") :].replace(".", ""): key for key in shapes}
        for key in (key for key in shapes if key.startswith(prefixes.EMA)):
            tensors[key] = _weights(names[key], shapes[key], dtype, seed, drift=0.001)
        tensors["model_ema.decay"] = _filled(np.float32(0.9999).reshape(()), DType.F32)
        tensors["model_ema.num_updates"] = _filled(np.array(84_000, "<i4"), DType.I32)
    return tensors


def _broken_ids() -> Tensors:
    """Position ids as merging leaves them: floats that have lost a little, so that loaders lose positions."""
    tensors = _sd(DType.F32)
    ids = np.arange(77, dtype="<f4")[None] * np.float32(75.9975 / 76)
    ids[0, :41] = np.arange(41)
    tensors[_POSITIONS] = _filled(ids, DType.F32)
    return tensors


def _wrong_vae() -> Tensors:
    """The VAE is another one, as after a merge of models with different VAEs."""
    other = _sd(DType.F16, seed=2)
    return {key: other[key] if key.startswith(prefixes.VAE) else tensor for key, tensor in _sd(DType.F16).items()}


def _without(tensors: Tensors, prefix: str) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(prefix)}


def _xl() -> Tensors:
    """SDXL-Demo with the markers of a v-prediction model: tensors without elements."""
    tensors = {key: _weights(key, shape, DType.F16, 1) for key, shape in architecture("sdxl-demo").table().items()}
    return {**tensors, "v_pred": Filled(b"", DType.F32, (0,)), "ztsnr": Filled(b"", DType.F32, (0,))}


def _vae() -> Tensors:
    """The right VAE of the SD demo models, at FP32, as a file of its own."""
    whole = _sd(DType.F32)
    return {key[len(prefixes.VAE) :]: t for key, t in whole.items() if key.startswith(prefixes.VAE)}


def _lora() -> Tensors:
    """A LoRA for the cross attention of a real SD1, in kohya's naming."""
    unet = architecture("sd1").parts[0].component.family
    assert unet is not None
    tensors: Tensors = {}
    for key, shape in unet.within("diffusers").table(rare=False).items():
        if ".attn2.to_" not in key or not key.endswith(".weight"):
            continue
        module = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
        down, up = (_LORA_RANK, shape[1]), (shape[0], _LORA_RANK)
        tensors[f"{module}.lora_down.weight"] = _weights(module + "d", down, DType.F16, 1)
        tensors[f"{module}.lora_up.weight"] = _weights(module + "u", up, DType.F16, 1)
        tensors[f"{module}.alpha"] = _filled(np.array(_LORA_RANK, "<f2"), DType.F16)
    return tensors


def _weights(key: str, shape: tuple[int, ...], dtype: DType, seed: int, drift: float = 0.0) -> Filled:
    if key.endswith("position_ids"):
        return _filled(np.arange(math.prod(shape), dtype="<i8").reshape(shape), DType.I64)
    # NAI names give the values of the standard ones, so that a renamed model equals the original.
    canonical = key.replace("transformer.text_model.", "transformer.")
    values = np.random.default_rng([seed, zlib.crc32(canonical.encode())]).standard_normal(shape) * 0.05 + drift
    return _filled(values.astype("<f4").astype(dtype.storage), dtype)


def _filled(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], dtype: DType) -> Filled:
    return Filled(values.tobytes(), dtype, tuple(values.shape))


def _save_sparse(path: Path) -> bool:
    """A full-size FP32 SD-v1 of zeros. False where the file system would really store all of its zeros."""
    metadata = {"format": "pt"}
    tensors = {
        key: _weights(key, shape, DType.I64, 1) if key.endswith("position_ids") else _Zeros(shape)
        for key, shape in architecture("sd1").table().items()
    }
    layout = safetensors_layout(tensors, metadata)
    with TemporaryFile(path) as file:
        stream([slot for slot in layout.slots if not isinstance(slot.tensor, _Zeros)], file.write_at, SILENT)
        _write_frame(file, [*layout.frame(metadata, {}), (layout.size - 1, b"\0")])
        file.sync()
        # Windows counts no blocks, and some file systems store every zero.
        if getattr(file.path.stat(), "st_blocks", layout.size) * 512 > layout.size // 10:
            return False
        file.commit()
    return True


@dataclass(frozen=True)
class _Zeros:
    """A tensor of zeros at FP32."""

    shape: tuple[int, ...]
    dtype: DType = DType.F32
    whole: bool = False

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        out[:] = 0


_SAMPLES: Mapping[str, tuple[str, Callable[[], _Contents]]] = {
    "Stable-diffusion/sd-demo.safetensors": (
        "nothing is wrong with it",
        lambda: _Contents(_sd(DType.F16)),
    ),
    "Stable-diffusion/sd-demo-bloated.ckpt": (
        "twice the precision and an EMA copy of no use for pictures, which a prune leaves out",
        lambda: _Contents(_sd(DType.F32, ema=True), values=_TRAINING),
    ),
    "Stable-diffusion/sd-demo-broken-ids.safetensors": (
        "position ids broken by merging, which can be fixed",
        lambda: _Contents(_broken_ids()),
    ),
    "Stable-diffusion/sd-demo-wrong-vae.safetensors": (
        "a VAE spoilt by merging: only its values tell, so see the report; import VAE/demo.vae.safetensors",
        lambda: _Contents(_wrong_vae(), {"modelspec.merged_from": "sd-demo, another demo model"}),
    ),
    "Stable-diffusion/sd-demo-no-clip.safetensors": (
        "no text encoder, which can be imported from sd-demo.safetensors",
        lambda: _Contents(_without(_sd(DType.F16), prefixes.CLIP_V1)),
    ),
    "Stable-diffusion/sd-demo-nai.ckpt": (
        "a text encoder named as NovelAI does, which a prune renames",
        lambda: _Contents(_sd(DType.F32, nai=True), values=_TRAINING),
    ),
    "Stable-diffusion/xl/sdxl-demo-vpred.safetensors": (
        "an SDXL that is marked as made for v-prediction",
        lambda: _Contents(_xl()),
    ),
    "VAE/demo.vae.safetensors": (
        "the right VAE of the SD demo models, at twice the precision that it needs",
        lambda: _Contents(_vae()),
    ),
    "Lora/sd1-demo-lora.safetensors": (
        "a LoRA for SD1; nothing is wrong with it",
        lambda: _Contents(_lora(), {"ss_network_dim": str(_LORA_RANK)}),
    ),
    "Autoprune/sd-demo-download.ckpt": (
        "waits in the drop folder to be pruned and filed away by Autoprune",
        lambda: _Contents(_sd(DType.F32, ema=True, seed=3), values=_TRAINING),
    ),
}
"""By name below the demo folder: what there is to see, and what makes it."""
