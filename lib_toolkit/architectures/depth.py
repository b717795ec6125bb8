"""MiDaS DPT-hybrid, the depth estimator inside SD2-depth checkpoints.

Names and sizes: isl-org/MiDaS ``dpt_depth.py`` around timm's ``vit_base_resnet50_384``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lib_toolkit.architectures.family import Family, Rows, Shapes, indices, size_of

_KERNELS = ((1, "conv1"), (3, "conv2"), (1, "conv3"))


@dataclass(frozen=True)
class DPTHybrid(Family):
    """A vision transformer of ``blocks`` layers over a ResNet whose ``stages`` have that many bottlenecks each;
    ``features`` are the channels of the depth decoder, ``tokens`` the positions with the class token."""

    written = ("midas",)
    signs: ClassVar[Mapping[str, tuple[str, ...]]] = {"midas": ("pretrained.", "scratch.")}

    layout: str = "midas"
    width: int = 768
    blocks: int = 12
    stages: tuple[int, ...] = (3, 4, 9)
    features: int = 256
    tokens: int = 577
    classes: int = 1000
    stem: int = 64

    def rows(self, at: Rows) -> None:
        self._transformer(at.at("pretrained.model"))
        self._backbone(at.at("pretrained.model.patch_embed"))
        self._reassemble(at.at("pretrained"))
        self._decoder(at.at("scratch"))

    def _transformer(self, at: Rows) -> None:
        at.put("cls_token", 1, 1, self.width)
        at.put("pos_embed", 1, self.tokens, self.width)
        for i in range(self.blocks):
            block = at.at(f"blocks.{i}")
            block.norm("norm1", self.width)
            block.linear("attn.qkv", self.width, 3 * self.width)
            block.linear("attn.proj", self.width, self.width)
            block.norm("norm2", self.width)
            block.linear("mlp.fc1", self.width, 4 * self.width)
            block.linear("mlp.fc2", 4 * self.width, self.width)
        at.norm("norm", self.width)
        at.linear("head", self.width, self.classes)

    def _backbone(self, at: Rows) -> None:
        at.conv("backbone.stem.conv", 3, self.stem, kernel=7, bias=False)
        at.norm("backbone.stem.norm", self.stem)
        current = self.stem
        for stage, count in enumerate(self.stages):
            inner, outer = self.stem << stage, self.stem << (stage + 2)
            for i in range(count):
                block = at.at(f"backbone.stages.{stage}.blocks.{i}")
                for (kernel, name), (inputs, outputs) in zip(
                    _KERNELS, ((current, inner), (inner, inner), (inner, outer)), strict=True
                ):
                    block.conv(name, inputs, outputs, kernel, bias=False)
                    block.norm(name.replace("conv", "norm"), outputs)
                if i == 0:
                    block.conv("downsample.conv", current, outer, kernel=1, bias=False)
                    block.norm("downsample.norm", outer)
                current = outer
        at.conv("proj", current, self.width, kernel=1)

    def _reassemble(self, at: Rows) -> None:
        for i in (3, 4):
            at.linear(f"act_postprocess{i}.0.project.0", 2 * self.width, self.width)
            at.conv(f"act_postprocess{i}.3", self.width, self.width, kernel=1)
        at.conv("act_postprocess4.4", self.width, self.width)

    def _decoder(self, at: Rows) -> None:
        sources = (4 * self.stem, 8 * self.stem, self.width, self.width)
        for i, source in enumerate(sources, 1):
            at.conv(f"layer{i}_rn", source, self.features, bias=False)
            fusion = at.at(f"refinenet{i}")
            fusion.conv("out_conv", self.features, self.features, kernel=1)
            for unit in ("resConfUnit1", "resConfUnit2"):
                fusion.conv(f"{unit}.conv1", self.features, self.features)
                fusion.conv(f"{unit}.conv2", self.features, self.features)
        at.conv("output_conv.0", self.features, self.features // 2)
        at.conv("output_conv.2", self.features // 2, 32)
        at.conv("output_conv.4", 32, 1, kernel=1)

    @classmethod
    def read(cls, shapes: Shapes) -> DPTHybrid | None:
        width = size_of(shapes, "pretrained.model.cls_token", 2)
        blocks = indices(shapes, "pretrained.model.blocks.")
        stages = "pretrained.model.patch_embed.backbone.stages."
        if width is None or not blocks:
            return None
        return cls(
            width=width,
            blocks=len(blocks),
            stages=tuple(len(indices(shapes, f"{stages}{i}.blocks.")) for i in indices(shapes, stages, 8)),
            features=size_of(shapes, "scratch.layer1_rn.weight", 0) or 256,
            tokens=size_of(shapes, "pretrained.model.pos_embed", 1) or 577,
            classes=size_of(shapes, "pretrained.model.head.weight", 0) or 1000,
            stem=size_of(shapes, "pretrained.model.patch_embed.backbone.stem.conv.weight", 0) or 64,
        )

    def describe(self) -> str:
        return f"depth estimator (width {self.width}, layers {self.blocks}, features {self.features})"

    def native_block(self, key: str) -> str:
        """Lnn by transformer layer, STAGEn by ResNet stage, DEPTH for the decoder, EMBED for the rest."""
        parts = key.split(".")
        if parts[0] == "scratch" or parts[1].startswith("act_postprocess"):
            return "DEPTH"
        if parts[2] == "blocks":
            return f"L{int(parts[3]):02d}"
        return f"STAGE{parts[5]}" if "stages" in parts else "EMBED"

    def native_layer(self, key: str) -> str:
        kinds = ((".attn.", "attn"), (".mlp.", "ff"), ("norm", "norm"), ("_embed", "emb"), ("project", "proj"))
        return next((layer for part, layer in kinds if part in key), "conv")
