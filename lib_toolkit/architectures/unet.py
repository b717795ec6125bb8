"""The UNet of Stable Diffusion 1, 2, XL and their relatives, in ldm and diffusers naming.

Sizes and key names: CompVis/stable-diffusion ``openaimodel.py`` and ``attention.py``, Stability-AI
generative-models, and the diffusers ``UNet2DConditionModel``; see also the table of SDXL block names in
sd-mecha. EMA copies carry the ldm names without their dots (ldm's ``LitEma``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from lib_toolkit.architectures import unet_reading
from lib_toolkit.architectures.family import Family, Rows, Shapes

Depths = tuple[tuple[int, ...], ...]

_LAYERS = (
    (".attn1.", "attn1"),
    (".attn2.", "attn2"),
    (".ff.", "ff"),
    (".emb_layers.", "emb"),
    (".in_layers.0.", "norm"),
    (".out_layers.0.", "norm"),
    (".norm", "norm"),
    (".proj_in.", "proj"),
    (".proj_out.", "proj"),
    (".skip_connection.", "skip"),
)

_UNCLIP_CONTEXT = 1024


def undotted(key: str) -> str:
    """The name of a tensor's EMA copy; it cannot be turned back without the table."""
    return key.replace(".", "")


@dataclass(frozen=True)
class UNet(Family):
    """``widths`` are channels by level, the finest first.

    ``down`` and ``up`` give, for each level in that same order, the depth of the transformer behind each
    residual block (0: none). ``middle`` lists the middle block: 0 is a residual block, n > 0 a transformer of
    depth n. ``context`` is the width of the text encoding (0: no cross-attention), ``vector`` that of the
    added conditioning vector. ``linear``: proj_in/proj_out are linear layers, not 1x1 convolutions.
    """

    written = ("ldm", "diffusers")
    derived: ClassVar[Mapping[str, Callable[[str], str]]] = {"ema": undotted}
    signs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ldm": ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out."),
        "diffusers": ("down_blocks.", "mid_block.", "up_blocks.", "add_embedding.", "class_embedding."),
        "ema": ("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb", "out"),
    }

    layout: str = "ldm"
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    down: Depths = ((1, 1), (1, 1), (1, 1), (0, 0))
    up: Depths = ((1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0))
    middle: tuple[int, ...] = (0, 1, 0)
    context: int = 768
    linear: bool = False
    inputs: int = 4
    outputs: int = 4
    vector: int | None = None

    @property
    def channels(self) -> int:
        return self.widths[0]

    @property
    def embedding(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels

    def rows(self, at: Rows) -> None:
        self.encoder_rows(at)
        self._up_rows(at)
        at.norm(("out.0", "conv_norm_out"), self.channels)
        at.conv(("out.2", "conv_out"), self.channels, self.outputs)

    def encoder_rows(self, at: Rows) -> list[int]:
        """All up to the middle block, in (ldm, diffusers) names; the channels of each input block."""
        _embedding(at.at(("time_embed", "time_embedding")), self.channels, self.embedding)
        if self.vector is not None:
            # unclip's class embedding and SDXL's added conditions are one thing in ldm naming.
            other = "class_embedding" if self.context == _UNCLIP_CONTEXT else "add_embedding"
            _embedding(at.at(("label_emb.0", other)), self.vector, self.embedding)
        at.conv(("input_blocks.0.0", "conv_in"), self.inputs, self.channels)
        widths = self._down_rows(at)
        self._middle_rows(at, widths[-1])
        return widths

    def _down_rows(self, at: Rows) -> list[int]:
        widths, number, current = [self.channels], 1, self.channels
        for level, (width, depths) in enumerate(zip(self.widths, self.down, strict=True)):
            block = f"down_blocks.{level}"
            for i, depth in enumerate(depths):
                _residual(at.at((f"input_blocks.{number}.0", f"{block}.resnets.{i}")), current, width, self.embedding)
                if depth:
                    self._transformer(at.at((f"input_blocks.{number}.1", f"{block}.attentions.{i}")), width, depth)
                current = width
                widths.append(current)
                number += 1
            if level + 1 < len(self.widths):
                at.conv((f"input_blocks.{number}.0.op", f"{block}.downsamplers.0.conv"), current, current)
                widths.append(current)
                number += 1
        return widths

    def _middle_rows(self, at: Rows, width: int) -> None:
        residuals = attentions = 0
        for i, depth in enumerate(self.middle):
            if depth:
                self._transformer(at.at((f"middle_block.{i}", f"mid_block.attentions.{attentions}")), width, depth)
                attentions += 1
            else:
                place = at.at((f"middle_block.{i}", f"mid_block.resnets.{residuals}"))
                _residual(place, width, width, self.embedding)
                residuals += 1

    def _up_rows(self, at: Rows) -> None:
        skips, number = self.skip_widths(), 0
        current = skips[-1]
        for i, level in enumerate(reversed(range(len(self.widths)))):
            width, block = self.widths[level], f"up_blocks.{i}"
            for j, depth in enumerate(self.up[level]):
                here = f"output_blocks.{number}"
                skip = skips.pop() if skips else width
                _residual(at.at((f"{here}.0", f"{block}.resnets.{j}")), current + skip, width, self.embedding)
                if depth:
                    self._transformer(at.at((f"{here}.1", f"{block}.attentions.{j}")), width, depth)
                current = width
                if level and j + 1 == len(self.up[level]):
                    name = f"{here}.{2 if depth else 1}.conv"
                    at.conv((name, f"{block}.upsamplers.0.conv"), width, width)
                number += 1

    def skip_widths(self) -> list[int]:
        """Channels of each input block, which are also those of the skip connections."""
        widths = [self.channels]
        for level, (width, depths) in enumerate(zip(self.widths, self.down, strict=True)):
            widths += [width] * len(depths)
            if level + 1 < len(self.widths):
                widths.append(width)
        return widths

    def _transformer(self, at: Rows, width: int, depth: int) -> None:
        at.norm("norm", width)
        project = at.linear if self.linear else partial(at.conv, kernel=1)
        project("proj_in", width, width)
        for i in range(depth):
            block = at.at(f"transformer_blocks.{i}")
            for attention, source in (("attn1", width), ("attn2", self.context)):
                place = block.at(attention)
                place.linear("to_q", width, width, bias=False)
                place.linear("to_k", source, width, bias=False)
                place.linear("to_v", source, width, bias=False)
                place.linear("to_out.0", width, width)
            block.linear("ff.net.0.proj", width, 8 * width)
            block.linear("ff.net.2", 4 * width, width)
            for norm in ("norm1", "norm2", "norm3"):
                block.norm(norm, width)
        project("proj_out", width, width)

    @classmethod
    def read(cls, shapes: Shapes) -> UNet | None:
        sketch = unet_reading.read(shapes)
        return None if sketch is None else cls(**sketch)

    def describe(self) -> str:
        multiples = ",".join(f"{width / self.channels:g}" for width in self.widths)
        vector = f", vector {self.vector}" if self.vector else ""
        return f"UNET (channels {self.channels} × {multiples}, context {self.context}, inputs {self.inputs}{vector})"

    def native_block(self, key: str) -> str:
        return unet_block(key)

    def compatible_block(self, key: str) -> str | None:
        """As ``block``, in the 25 (SDXL: 19) blocks of merge-block-weighted: TIME and LABEL go with IN00,
        the output layers with the last OUT block."""
        block = self.block(key)
        last = f"OUT{sum(len(depths) for depths in self.up) - 1:02d}"
        return {"TIME": "IN00", "LABEL": "IN00", "OUTC": last}.get(block, block) if block else block

    def native_layer(self, key: str) -> str:
        if key.startswith(("time_embed.", "label_emb.")):
            return "emb"
        if key.startswith("out.0."):
            return "norm"
        return next((layer for part, layer in _LAYERS if part in key), "conv")


def sized(
    channels: int = 320,
    mult: tuple[int, ...] = (1, 2, 4, 4),
    depth: tuple[int, ...] = (1, 1, 1, 0),
    *,
    middle: tuple[int, ...] | None = None,
    res_blocks: int = 2,
    context: int = 768,
    linear: bool = False,
    inputs: int = 4,
    vector: int | None = None,
) -> UNet:
    """A regular UNet: every residual block of a level is followed by a transformer of the level's ``depth``."""
    return UNet(
        widths=tuple(channels * factor for factor in mult),
        down=tuple((level,) * res_blocks for level in depth),
        up=tuple((level,) * (res_blocks + 1) for level in depth),
        middle=(0, depth[-1] or 1, 0) if middle is None else middle,
        context=context,
        linear=linear,
        inputs=inputs,
        vector=vector,
    )


def unet_block(key: str) -> str:
    """The block of an ldm key by its own name: IN00, M00, OUT00, TIME, LABEL, OUTC."""
    head, _, rest = key.partition(".")
    number = rest.partition(".")[0]
    if head in ("input_blocks", "output_blocks") and number.isdecimal():
        return f"{'IN' if head == 'input_blocks' else 'OUT'}{int(number):02d}"
    return {"middle_block": "M00", "time_embed": "TIME", "label_emb": "LABEL"}.get(head, "OUTC")


def _embedding(at: Rows, inputs: int, width: int) -> None:
    at.linear(("0", "linear_1"), inputs, width)
    at.linear(("2", "linear_2"), width, width)


def _residual(at: Rows, inputs: int, outputs: int, embedding: int) -> None:
    at.norm(("in_layers.0", "norm1"), inputs)
    at.conv(("in_layers.2", "conv1"), inputs, outputs)
    at.linear(("emb_layers.1", "time_emb_proj"), embedding, outputs)
    at.norm(("out_layers.0", "norm2"), outputs)
    at.conv(("out_layers.3", "conv2"), outputs, outputs)
    if inputs != outputs:
        at.conv(("skip_connection", "conv_shortcut"), inputs, outputs, kernel=1)
