"""CLIP text encoders: as Hugging Face names them (and NovelAI, without ``text_model.``), and as OpenCLIP does.

Names and sizes: transformers ``CLIPTextModel``, mlfoundations/open_clip ``transformer.py``. Which parts SDXL
never computes (the last layer and all behind it) is marked in sd-mecha's configurations too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from lib_toolkit.architectures.family import Family, Presence, Rows, Shapes, first_size, indices

_TOKENS = "embeddings.token_embedding.weight"
_POSITIONS = "embeddings.position_embedding.weight"


def _without_text_model(key: str) -> str:
    return key.removeprefix("text_model.")


@dataclass(frozen=True)
class CLIPText(Family):
    """``width`` of the encoding, ``vocab`` tokens, ``positions`` tokens at once, ``projection``: width of the
    projected encoding. ``projected``: files usually have the projection. ``spare_last``: nothing uses the
    last layer and what follows, so that it may be absent."""

    written = ("hf",)
    derived: ClassVar[Mapping[str, Callable[[str], str]]] = {"nai": _without_text_model}
    signs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "hf": ("text_model.",),
        "nai": ("embeddings.token_embedding.", "embeddings.position_", "encoder.layers.", "final_layer_norm."),
    }

    layout: str = "hf"
    layers: int = 12
    width: int = 768
    ff: int = 3072
    vocab: int = 49408
    positions: int = 77
    projected: bool = False
    spare_last: bool = False

    def rows(self, at: Rows) -> None:
        text = at.at("text_model")
        text.put(_TOKENS, self.vocab, self.width)
        text.put(_POSITIONS, self.positions, self.width)
        text.marked(Presence.OPTIONAL).put("embeddings.position_ids", 1, self.positions)
        last = text.marked(Presence.OPTIONAL) if self.spare_last else text
        for i in range(self.layers):
            self._layer((last if i + 1 == self.layers else text).at(f"encoder.layers.{i}"))
        last.norm("final_layer_norm", self.width)
        projection = at.marked(Presence.OPTIONAL if self.projected else Presence.RARE)
        projection.linear("text_projection", self.width, self.width, bias=False)

    def _layer(self, at: Rows) -> None:
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            at.linear(f"self_attn.{name}", self.width, self.width)
        at.norm("layer_norm1", self.width)
        at.linear("mlp.fc1", self.width, self.ff)
        at.linear("mlp.fc2", self.ff, self.width)
        at.norm("layer_norm2", self.width)

    @classmethod
    def read(cls, shapes: Shapes) -> CLIPText | None:
        for layout, prefix in (("hf", "text_model."), ("nai", "")):
            layers = indices(shapes, f"{prefix}encoder.layers.")
            width = first_size(shapes, (prefix + _TOKENS, prefix + _POSITIONS), 1)
            if layers and width:
                return cls(
                    layout=layout,
                    layers=len(layers),
                    width=width,
                    ff=first_size(shapes, (f"{prefix}encoder.layers.{layers[0]}.mlp.fc1.weight",), 0) or 4 * width,
                    vocab=first_size(shapes, (prefix + _TOKENS,), 0) or 49408,
                    positions=first_size(shapes, (prefix + _POSITIONS,), 0) or 77,
                )
        return None

    def normal(self) -> Family:
        return replace(self, projected=False, spare_last=False)

    def describe(self) -> str:
        return f"CLIP text encoder (width {self.width}, layers {self.layers}, vocabulary {self.vocab})"

    def native_block(self, key: str) -> str:
        """EMBED, Lnn by layer, FINAL."""
        _, found, rest = key.partition(".encoder.layers.")
        if found:
            return f"L{int(rest.partition('.')[0]):02d}"
        return "EMBED" if ".embeddings." in key else "FINAL"

    def native_layer(self, key: str) -> str:
        return _text_layer(key)


@dataclass(frozen=True)
class OpenCLIPText(Family):
    """The text half of an OpenCLIP model; ``width``, ``vocab``, ``positions`` and ``spare_last`` as in CLIPText.

    The projection and the logit scale take no part in encoding pictures' prompts for SD2 and may be absent.
    """

    written = ("openclip",)
    signs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "openclip": ("transformer.resblocks.", "token_embedding.", "ln_final.", "positional_embedding")
    }

    layout: str = "openclip"
    layers: int = 24
    width: int = 1024
    vocab: int = 49408
    positions: int = 77
    projected: bool = True
    spare_last: bool = False

    def rows(self, at: Rows) -> None:
        at.put("positional_embedding", self.positions, self.width)
        at.put("token_embedding.weight", self.vocab, self.width)
        last = at.marked(Presence.OPTIONAL) if self.spare_last else at
        for i in range(self.layers):
            self._layer((last if i + 1 == self.layers else at).at(f"transformer.resblocks.{i}"))
        last.norm("ln_final", self.width)
        extras = at.marked(Presence.OPTIONAL if self.projected else Presence.RARE)
        extras.put("text_projection", self.width, self.width)
        extras.put("logit_scale")

    def _layer(self, at: Rows) -> None:
        at.put("attn.in_proj_weight", 3 * self.width, self.width)
        at.put("attn.in_proj_bias", 3 * self.width)
        at.linear("attn.out_proj", self.width, self.width)
        at.norm("ln_1", self.width)
        at.norm("ln_2", self.width)
        at.linear("mlp.c_fc", self.width, 4 * self.width)
        at.linear("mlp.c_proj", 4 * self.width, self.width)

    @classmethod
    def read(cls, shapes: Shapes) -> OpenCLIPText | None:
        layers = indices(shapes, "transformer.resblocks.")
        width = first_size(shapes, ("token_embedding.weight", "positional_embedding"), 1)
        if not layers or not width:
            return None
        return cls(
            layers=len(layers),
            width=width,
            vocab=first_size(shapes, ("token_embedding.weight",), 0) or 49408,
            positions=first_size(shapes, ("positional_embedding",), 0) or 77,
        )

    def normal(self) -> Family:
        return replace(self, projected=True, spare_last=False)

    def describe(self) -> str:
        return f"OpenCLIP text encoder (width {self.width}, layers {self.layers}, vocabulary {self.vocab})"

    def native_block(self, key: str) -> str:
        """EMBED, Lnn by layer, FINAL."""
        if key.startswith("transformer.resblocks."):
            return f"L{int(key.split('.')[2]):02d}"
        return "EMBED" if key.startswith(("token_embedding.", "positional_embedding")) else "FINAL"

    def native_layer(self, key: str) -> str:
        return _text_layer(key)


_TEXT_LAYERS = (
    ("self_attn.", "attn"),
    (".attn.", "attn"),
    (".mlp.", "ff"),
    ("embedding", "emb"),
    ("norm", "norm"),
    ("ln_", "norm"),
    ("projection", "proj"),
)


def _text_layer(key: str) -> str:
    return next((layer for part, layer in _TEXT_LAYERS if part in key), "other")
