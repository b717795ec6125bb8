"""The KL autoencoder of Stable Diffusion and later models, in ldm and diffusers naming.

Names and sizes: CompVis/latent-diffusion ``modules/diffusionmodules/model.py`` and the diffusers
``AutoencoderKL``. diffusers writes the attention as linear layers: ``to_q`` today, ``query`` in files of
2022; in ldm it is a 1x1 convolution ``q``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lib_toolkit.architectures.family import Family, Rows, Shapes, first_size, indices, size_of

_LAYERS = (
    (".attn_1.norm.", "norm"),
    (".attn_1.", "attn"),
    (".norm", "norm"),
    (".nin_shortcut.", "skip"),
    ("quant_conv.", "proj"),
)
_ATTENTION = (
    ("q", "to_q", "query"),
    ("k", "to_k", "key"),
    ("v", "to_v", "value"),
    ("proj_out", "to_out.0", "proj_attn"),
)
_MAX_LEVELS = 12


@dataclass(frozen=True)
class KLVAE(Family):
    """``latent`` channels between encoder and decoder; ``widths`` by level, the finest first; ``quant``: the
    1x1 convolutions around the latent are there (Flux and SD3 have none)."""

    written = ("ldm", "diffusers", "diffusers-2022")
    signs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ldm": ("encoder.conv_in.", "encoder.down.", "encoder.mid.", "decoder.conv_in.", "decoder.up.", "decoder.mid."),
        "diffusers": ("encoder.down_blocks.", "encoder.mid_block.", "decoder.up_blocks.", "decoder.mid_block."),
        "diffusers-2022": ("encoder.down_blocks.", "encoder.mid_block.", "decoder.up_blocks.", "decoder.mid_block."),
    }

    layout: str = "ldm"
    latent: int = 4
    widths: tuple[int, ...] = (128, 256, 512, 512)
    res_blocks: int = 2
    quant: bool = True
    colours: int = 3

    def rows(self, at: Rows) -> None:
        self._encoder(at.at("encoder"))
        self._decoder(at.at("decoder"))
        if self.quant:
            at.conv("quant_conv", 2 * self.latent, 2 * self.latent, kernel=1)
            at.conv("post_quant_conv", self.latent, self.latent, kernel=1)

    def _encoder(self, at: Rows) -> None:
        current = self.widths[0]
        at.conv("conv_in", self.colours, current)
        for level, width in enumerate(self.widths):
            place = at.at(_both(f"down.{level}", f"down_blocks.{level}"))
            for i in range(self.res_blocks):
                _residual(place.at(_both(f"block.{i}", f"resnets.{i}")), current, width)
                current = width
            if level + 1 < len(self.widths):
                place.conv(_both("downsample.conv", "downsamplers.0.conv"), width, width)
        _middle(at, current)
        at.norm(_both("norm_out", "conv_norm_out"), current)
        at.conv("conv_out", current, 2 * self.latent)

    def _decoder(self, at: Rows) -> None:
        current = self.widths[-1]
        at.conv("conv_in", self.latent, current)
        _middle(at, current)
        for i, level in enumerate(reversed(range(len(self.widths)))):
            width = self.widths[level]
            place = at.at(_both(f"up.{level}", f"up_blocks.{i}"))
            for j in range(self.res_blocks + 1):
                _residual(place.at(_both(f"block.{j}", f"resnets.{j}")), current, width)
                current = width
            if level:
                place.conv(_both("upsample.conv", "upsamplers.0.conv"), width, width)
        at.norm(_both("norm_out", "conv_norm_out"), current)
        at.conv("conv_out", current, self.colours)

    @classmethod
    def read(cls, shapes: Shapes) -> KLVAE | None:
        latent = size_of(shapes, "decoder.conv_in.weight", 1)
        ldm = indices(shapes, "encoder.down.", _MAX_LEVELS)
        levels = ldm or indices(shapes, "encoder.down_blocks.", _MAX_LEVELS)
        if latent is None or not levels or not any(key.startswith("decoder.") for key in shapes):
            return None
        form = "encoder.down.{}.block" if ldm else "encoder.down_blocks.{}.resnets"
        widths: list[int] = []
        for level in levels:
            block = f"{form.format(level)}.0"
            width = first_size(shapes, (f"{block}.conv1.weight", f"{block}.conv2.weight"), 0)
            widths.append(width or (widths or [size_of(shapes, "encoder.conv_in.weight", 0) or 128])[-1])
        old = any(".attentions.0.query." in key for key in shapes)
        return cls(
            layout="ldm" if ldm else "diffusers-2022" if old else "diffusers",
            latent=latent,
            widths=tuple(widths),
            res_blocks=max(1, len(indices(shapes, f"{form.format(levels[0])}."))),
            quant="quant_conv.weight" in shapes or "post_quant_conv.weight" in shapes,
            colours=size_of(shapes, "encoder.conv_in.weight", 1) or 3,
        )

    def describe(self) -> str:
        widths = ",".join(str(width) for width in self.widths)
        return f"VAE (latent channels {self.latent}, widths {widths}{'' if self.quant else ', no quant convolutions'})"

    def native_block(self, key: str) -> str:
        """ENCn and DECn by level (0 is the finest), ENCM and DECM in the middle, ENC and DEC at the ends."""
        parts = key.split(".")
        side = {"encoder": "ENC", "decoder": "DEC"}.get(parts[0])
        if side is None:
            return "QUANT"
        if parts[1] in ("down", "up"):
            return f"{side}{parts[2]}"
        return f"{side}M" if parts[1] == "mid" else side

    def native_layer(self, key: str) -> str:
        return next((layer for part, layer in _LAYERS if part in key), "conv")


def _both(native: str, diffusers: str) -> tuple[str, str, str]:
    return native, diffusers, diffusers


def _residual(at: Rows, inputs: int, outputs: int) -> None:
    at.norm("norm1", inputs)
    at.conv("conv1", inputs, outputs)
    at.norm("norm2", outputs)
    at.conv("conv2", outputs, outputs)
    if inputs != outputs:
        at.conv(_both("nin_shortcut", "conv_shortcut"), inputs, outputs, kernel=1)


def _middle(at: Rows, width: int) -> None:
    place = at.at(_both("mid", "mid_block"))
    _residual(place.at(_both("block_1", "resnets.0")), width, width)
    _residual(place.at(_both("block_2", "resnets.1")), width, width)
    attention = place.at(_both("attn_1", "attentions.0"))
    attention.norm(_both("norm", "group_norm"), width)
    linear = (width, width)
    for names in _ATTENTION:
        below = attention.at(names)
        below.put("weight", shapes=((width, width, 1, 1), linear, linear))
        below.put("bias", width)
