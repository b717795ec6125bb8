"""The hyperparameters of a UNet, read from the keys and shapes of a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from lib_toolkit.architectures.family import Shapes, first_size, indices, size_of

_MAX_LEVELS = 12
_CONTEXT = ".attn2.to_k.weight"


class Sketch(TypedDict):
    """The fields of a UNet."""

    layout: str
    widths: tuple[int, ...]
    down: tuple[tuple[int, ...], ...]
    up: tuple[tuple[int, ...], ...]
    middle: tuple[int, ...]
    context: int
    linear: bool
    inputs: int
    outputs: int
    vector: int | None


def read(shapes: Shapes) -> Sketch | None:
    """The hyperparameters of a UNet in ldm or diffusers naming, None where the keys are no UNet's.

    Depths are numbers of distinct indices among the keys, so they are never more than the file has keys.
    """
    if "input_blocks.0.0.weight" in shapes and any(key.startswith("output_blocks.") for key in shapes):
        return _read_ldm(shapes)
    if "conv_in.weight" in shapes and any(key.startswith("up_blocks.") for key in shapes):
        return _read_diffusers(shapes)
    return None


def _read_ldm(shapes: Shapes) -> Sketch | None:
    depths = transformer_depths(shapes)
    levels, widths = ldm_levels(shapes, depths)
    channels, inputs = size_of(shapes, "input_blocks.0.0.weight", 0), size_of(shapes, "input_blocks.0.0.weight", 1)
    if channels is None or inputs is None or not levels:
        return None
    outputs = indices(shapes, "output_blocks.")
    up: list[tuple[int, ...]] = []
    for level in reversed(levels):
        taken, outputs = outputs[: len(level) + 1], outputs[len(level) + 1 :]
        up.append(tuple(depths.get(f"output_blocks.{number}.1", 0) for number in taken))
    return Sketch(
        layout="ldm",
        widths=tuple(width or channels for width in widths),
        down=tuple(tuple(level) for level in levels),
        up=tuple(reversed(up)),
        middle=ldm_middle(shapes, depths),
        context=context_width(shapes),
        linear=linear_projection(shapes),
        inputs=inputs,
        outputs=size_of(shapes, "out.2.weight", 0) or 4,
        vector=size_of(shapes, "label_emb.0.0.weight", 1),
    )


def ldm_middle(shapes: Shapes, depths: dict[str, int]) -> tuple[int, ...]:
    """The middle block: 0 for a residual block, n for a transformer of depth n."""
    return tuple(depths.get(f"middle_block.{i}", 0) for i in indices(shapes, "middle_block.")[:_MAX_LEVELS])


def ldm_levels(shapes: Shapes, depths: dict[str, int]) -> tuple[list[list[int]], list[int | None]]:
    """The input blocks by level: depths behind each residual block, and the level's width."""
    levels: list[list[int]] = [[]]
    widths: list[int | None] = [None]
    for number in indices(shapes, "input_blocks.")[1:]:
        block = f"input_blocks.{number}.0"
        if f"{block}.op.weight" in shapes or f"{block}.op.bias" in shapes:
            levels.append([])
            widths.append(None)
            continue
        levels[-1].append(depths.get(f"input_blocks.{number}.1", 0))
        names = (f"{block}.in_layers.2.weight", f"{block}.out_layers.3.weight", f"{block}.emb_layers.1.weight")
        widths[-1] = widths[-1] or first_size(shapes, names, 0)
    if len(levels) > _MAX_LEVELS:
        return [], []
    for level, width in enumerate(widths[1:], 1):
        widths[level] = width or widths[level - 1]
    return levels, widths


def _read_diffusers(shapes: Shapes) -> Sketch | None:
    depths = transformer_depths(shapes)
    channels, inputs = size_of(shapes, "conv_in.weight", 0), size_of(shapes, "conv_in.weight", 1)
    levels = indices(shapes, "down_blocks.", _MAX_LEVELS)
    if channels is None or inputs is None or not levels:
        return None
    widths: list[int] = []
    for level in levels:
        names = (f"down_blocks.{level}.resnets.0.conv1.weight", f"down_blocks.{level}.resnets.0.conv2.weight")
        widths.append(first_size(shapes, names, 0) or (widths or [channels])[-1])
    up = tuple(_attended(shapes, depths, f"up_blocks.{level}") for level in levels)
    return Sketch(
        layout="diffusers",
        widths=tuple(widths),
        down=tuple(_attended(shapes, depths, f"down_blocks.{level}") for level in levels),
        up=tuple(reversed(up)),
        middle=_diffusers_middle(shapes, depths),
        context=context_width(shapes),
        linear=linear_projection(shapes),
        inputs=inputs,
        outputs=size_of(shapes, "conv_out.weight", 0) or 4,
        vector=first_size(shapes, ("add_embedding.linear_1.weight", "class_embedding.linear_1.weight"), 1),
    )


def _attended(shapes: Shapes, depths: dict[str, int], block: str) -> tuple[int, ...]:
    return tuple(depths.get(f"{block}.attentions.{i}", 0) for i in indices(shapes, f"{block}.resnets."))


def _diffusers_middle(shapes: Shapes, depths: dict[str, int]) -> tuple[int, ...]:
    """diffusers numbers residual blocks and transformers apart: they alternate, a residual block first."""
    residuals = indices(shapes, "mid_block.resnets.", _MAX_LEVELS)
    attentions = indices(shapes, "mid_block.attentions.", _MAX_LEVELS)
    middle: list[int] = []
    for i in range(max(len(residuals), len(attentions))):
        if i < len(residuals):
            middle.append(0)
        if i < len(attentions):
            middle.append(depths.get(f"mid_block.attentions.{i}", 0))
    return tuple(middle)


def transformer_depths(shapes: Shapes) -> dict[str, int]:
    """Where transformers stand (the key up to ``.transformer_blocks.``) and how many blocks they have."""
    found: dict[str, set[str]] = {}
    for key in shapes:
        place, divider, rest = key.partition(".transformer_blocks.")
        if divider:
            found.setdefault(place, set()).add(rest.partition(".")[0])
    return {place: len(numbers) for place, numbers in found.items()}


def _ending(shapes: Iterable[str], suffix: str) -> Iterable[str]:
    return (key for key in shapes if key.endswith(suffix))


def context_width(shapes: Shapes) -> int:
    """Width of the text encoding, by the first cross-attention; 0 where there is none."""
    return first_size(shapes, _ending(shapes, _CONTEXT), 1) or 0


def linear_projection(shapes: Shapes) -> bool:
    """Whether the transformers are entered through linear layers."""
    return any(len(shapes[key]) == 2 for key in _ending(shapes, ".proj_in.weight"))
