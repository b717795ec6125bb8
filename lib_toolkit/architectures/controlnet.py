"""ControlNet: the encoder half of a UNet with a hint network and zero convolutions, in ldm and diffusers naming.

Names and sizes: lllyasviel/ControlNet ``cldm.py`` and the diffusers ``ControlNetModel``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from lib_toolkit.architectures.family import Family, Rows, Shapes, indices, size_of
from lib_toolkit.architectures.unet import UNet, sized, unet_block
from lib_toolkit.architectures.unet_reading import (
    context_width,
    ldm_levels,
    ldm_middle,
    linear_projection,
    transformer_depths,
)

_HINT_WIDTHS = (16, 16, 32, 32, 96, 96, 256)


@dataclass(frozen=True)
class ControlNet(Family):
    """``unet`` is the UNet whose encoder was copied; ``hint`` are the channels of the picture that steers."""

    written = ("ldm", "diffusers")
    signs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ldm": ("input_hint_block.", "zero_convs.", "middle_block_out."),
        "diffusers": ("controlnet_cond_embedding.", "controlnet_down_blocks.", "controlnet_mid_block."),
    }

    layout: str = "ldm"
    unet: UNet = sized()  # noqa: RUF009 - a frozen value
    hint: int = 3

    def rows(self, at: Rows) -> None:
        widths = self.unet.encoder_rows(at)
        self._hint_rows(at.at(("input_hint_block", "controlnet_cond_embedding")))
        for i, width in enumerate(widths):
            at.conv((f"zero_convs.{i}.0", f"controlnet_down_blocks.{i}"), width, width, kernel=1)
        at.conv(("middle_block_out.0", "controlnet_mid_block"), widths[-1], widths[-1], kernel=1)

    def _hint_rows(self, at: Rows) -> None:
        current = self.hint
        last = len(_HINT_WIDTHS)
        for i, width in enumerate((*_HINT_WIDTHS, self.unet.channels)):
            other = "conv_in" if i == 0 else "conv_out" if i == last else f"blocks.{i - 1}"
            at.conv((str(2 * i), other), current, width)
            current = width

    @classmethod
    def read(cls, shapes: Shapes) -> ControlNet | None:
        stem = "input_blocks.0.0.weight"
        hint = size_of(shapes, "input_hint_block.0.weight", 1)
        channels, inputs = size_of(shapes, stem, 0), size_of(shapes, stem, 1)
        if hint is None or channels is None or inputs is None or not indices(shapes, "zero_convs."):
            return None
        depths = transformer_depths(shapes)
        levels, widths = ldm_levels(shapes, depths)
        if not levels:
            return None
        down = tuple(tuple(level) for level in levels)
        unet = UNet(
            widths=tuple(width or channels for width in widths),
            down=down,
            up=tuple((*level, level[-1] if level else 0) for level in down),
            middle=ldm_middle(shapes, depths),
            context=context_width(shapes),
            linear=linear_projection(shapes),
            inputs=inputs,
            vector=size_of(shapes, "label_emb.0.0.weight", 1),
        )
        return cls(unet=unet, hint=hint)

    def normal(self) -> Family:
        return replace(self, unet=replace(self.unet, outputs=4))

    def describe(self) -> str:
        return f"ControlNet (channels {self.unet.channels}, context {self.unet.context})"

    def native_block(self, key: str) -> str:
        """The blocks of the UNet's encoder; HINT for the hint network; a zero convolution goes with its block."""
        head, _, rest = key.partition(".")
        if head == "zero_convs":
            return f"IN{int(rest.partition('.')[0]):02d}"
        return {"input_hint_block": "HINT", "middle_block_out": "M00"}.get(head) or unet_block(key)

    def native_layer(self, key: str) -> str:
        if key.startswith(("zero_convs.", "middle_block_out.")):
            return "zero"
        return "hint" if key.startswith("input_hint_block.") else self.unet.native_layer(key)
