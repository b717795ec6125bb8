"""One form for every layout of a component, and the way from it into any layout of its class.

Files hold the same component in several layouts: under other names, with the attention's three projections in one
tensor or in three, a projection turned, a 1x1 convolution where others have a linear layer. The **canonical form** is
the most split of them. A component's tensors, as ``to_canonical`` gives them, are exactly these:

- **Which**: every tensor of ``Match.keys`` (required, optional and rare ones alike), nothing else: no scales, no
  markers. The tensors that one fused tensor is split into take its place.
- **Names**: without prefix; UNet, VAE, ControlNet: ldm names (an EMA copy has those of its UNet); depth: MiDaS names;
  text encoders: Hugging Face names with ``text_model.`` (NovelAI's and OpenCLIP's are translated, see ``_OPENCLIP`` and
  ``_OPENCLIP_LAYER``); ``logit_scale`` keeps its name; layer numbers are the same in all layouts.
- **Fused** (OpenCLIP): of ``attn.in_proj_weight`` [3w, w] and ``attn.in_proj_bias`` [3w], rows [0, w) are the canonical
  ``self_attn.q_proj``'s, [w, 2w) those of ``k_proj``, [2w, 3w) those of ``v_proj``.
- **Turned** (OpenCLIP): ``text_projection`` [w, w] is multiplied from the right, so its transpose is the canonical
  ``text_projection.weight`` (a linear layer's [outputs, inputs]).
- **Squeezed**: of the weights whose canonical names end in ``.proj_in.weight`` or ``.proj_out.weight`` (UNet,
  ControlNet) or in ``.mid.attn_1.`` and ``q``, ``k``, ``v`` or ``proj_out``, and ``.weight`` (VAE), those of shape
  [a, b, 1, 1] become [a, b], the same values in the same order. No other shape changes.
- Types and values are those of the file.

Fused and turned tensors of another shape than their table asks for (packed by a quantisation, or broken) are passed on
as they are, under ``self_attn.in_proj_weight``, ``self_attn.in_proj_bias`` of their layer and ``text_projection``.

Sources of the rules: the checkpoint conversion scripts of diffusers, and of transformers for CLIP, as facts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from lib_toolkit.architectures.clip import OpenCLIPText
from lib_toolkit.architectures.components import Component
from lib_toolkit.architectures.controlnet import ControlNet
from lib_toolkit.architectures.family import Family, Presence, Shape
from lib_toolkit.architectures.unet import UNet
from lib_toolkit.architectures.vae import KLVAE
from lib_toolkit.casting import Cast
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError, UsageError
from lib_toolkit.identify import Match, WrongShape
from lib_toolkit.nodes import reshaped, rows, stacked, transposed
from lib_toolkit.tensors import Tensor


class Form(Enum):
    """How a tensor of the family's native layout stands to the canonical one."""

    SAME = "same"
    SQUEEZED = "squeezed"
    FUSED = "fused"
    TURNED = "turned"


@dataclass(frozen=True)
class Rule:
    """What becomes of one native tensor: its canonical name or names, and ``whole``, the name under which it is passed
    on where it cannot be split or turned."""

    form: Form
    names: tuple[str, ...]
    whole: str


@dataclass(frozen=True)
class Conversion:
    """A component in some layout.

    ``tensors`` by bare key of the layout. ``missing`` are required keys of the layout that the canonical form has
    nothing for, ``left_over`` canonical keys that the layout has no place for, ``wrong_shape`` what does not fit.
    """

    tensors: dict[str, Tensor]
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    wrong_shape: tuple[WrongShape, ...] = ()

    @property
    def complete(self) -> bool:
        """Every required tensor is there, in the right shape."""
        return not self.missing and not self.wrong_shape


_SQUEEZED: Mapping[type[Family], re.Pattern[str]] = {
    UNet: re.compile(r".*\.proj_(in|out)\.weight"),
    ControlNet: re.compile(r".*\.proj_(in|out)\.weight"),
    KLVAE: re.compile(r".*\.mid\.attn_1\.(q|k|v|proj_out)\.weight"),
}

_OPENCLIP: Mapping[str, str] = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_OPENCLIP_LAYER: Mapping[str, str] = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_PROJECTION = "text_projection"
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_FUSED_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")

_PLAIN = (DType.F16, DType.BF16, DType.F32, DType.F64)


def rule(family: Family, native: str) -> Rule:
    """The rule for a key of the family's native layout."""
    if isinstance(family, OpenCLIPText):
        return _openclip_rule(native)
    pattern = _SQUEEZED.get(type(family))
    form = Form.SQUEEZED if pattern is not None and pattern.fullmatch(native) else Form.SAME
    return Rule(form, (native,), native)


def _openclip_rule(native: str) -> Rule:
    if native == _PROJECTION:
        return Rule(Form.TURNED, (f"{_PROJECTION}.weight",), _PROJECTION)
    fused = _FUSED_LAYER.fullmatch(native)
    if fused is not None:
        number, kind = fused.groups()
        place = f"text_model.encoder.layers.{number}.self_attn"
        return Rule(Form.FUSED, tuple(f"{place}.{part}_proj.{kind}" for part in "qkv"), f"{place}.in_proj_{kind}")
    layer = _LAYER.fullmatch(native)
    if layer is not None and layer[2] in _OPENCLIP_LAYER:
        name = f"text_model.encoder.layers.{layer[1]}.{_OPENCLIP_LAYER[layer[2]]}.{layer[3]}"
    else:
        name = _OPENCLIP.get(native, native)
    return Rule(Form.SAME, (name,), name)


def to_canonical(match: Match, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The component's tensors in canonical form (see above), lazily, by canonical bare key.

    ``tensors`` are those of the model that ``match`` was found in. Nothing is read, and an incomplete component is
    as welcome as a whole one; a component of a kind without a table (LoRA) keeps its own names.
    """
    family = match.component.family
    if family is None:
        return {native: tensors[key] for native, key in match.keys.items()}
    shapes = {entry.names[0]: entry.shapes[0] for entry in family.entries()}
    canonical: dict[str, Tensor] = {}
    for native, key in match.keys.items():
        canonical.update(_split(rule(family, native), tensors[key], shapes.get(native)))
    return canonical


def _split(how: Rule, tensor: Tensor, expected: Shape | None) -> dict[str, Tensor]:
    if how.form is Form.SQUEEZED and len(tensor.shape) == 4 and tensor.shape[2:] == (1, 1):
        return {how.names[0]: reshaped(tensor, tensor.shape[:2])}
    if how.form in (Form.FUSED, Form.TURNED):
        if tensor.shape != expected or tensor.dtype.bits < 8:
            return {how.whole: tensor}
        if how.form is Form.TURNED:
            return {how.names[0]: transposed(tensor)}
        height = tensor.shape[0] // 3
        return {name: rows(tensor, i * height, (i + 1) * height) for i, name in enumerate(how.names)}
    return {how.names[0]: tensor}


def from_canonical(component: Component, layout: str, canonical: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``component`` in ``layout``, lazily, by bare key in the order of its table.

    What the layout has no place for is left out, what is not there is not invented: ``convert`` names both. Raises
    UsageError for a layout that the component does not have, FormatError for parts that cannot be joined.
    """
    return convert(component, layout, canonical).tensors


def convert(component: Component, layout: str, canonical: Mapping[str, Tensor]) -> Conversion:
    """As ``from_canonical``, and says what is missing, left over, or of the wrong shape."""
    family = component.family
    if family is None or layout not in family.layouts:
        raise UsageError(f"{component.name} has no layout {layout!r}; keep the one that the model has.")
    family, column = family.within(layout), family.layouts.index(layout)
    tensors: dict[str, Tensor] = {}
    missing: list[str] = []
    wrong: list[WrongShape] = []
    used: set[str] = set()
    for entry in family.entries():
        name, shape, how = entry.names[column], entry.shapes[column], rule(family, entry.names[0])
        # What is passed on as it is goes under its own name.
        names = how.names if all(part in canonical for part in how.names) else (how.whole,)
        if names[0] not in canonical:
            if entry.presence is Presence.REQUIRED:
                missing.append(name)
            continue
        used.update(names)
        parts = [canonical[part] for part in names]
        tensor = _join(how, parts, shape, name) if names == how.names else parts[0]
        if tensor.shape != shape:
            wrong.append(WrongShape(name, shape, tensor.shape))
        tensors[name] = tensor
    return Conversion(tensors, tuple(missing), tuple(key for key in canonical if key not in used), tuple(wrong))


def _join(how: Rule, parts: Sequence[Tensor], shape: Shape, name: str) -> Tensor:
    if how.form is Form.FUSED:
        return _stack(parts, name)
    tensor = parts[0]
    if how.form is Form.TURNED and len(tensor.shape) == 2 and tensor.dtype.bits >= 8:
        return transposed(tensor)
    if how.form is Form.SQUEEZED and tensor.shape == shape[:2]:
        return reshaped(tensor, shape)
    return tensor


def _stack(parts: Sequence[Tensor], name: str) -> Tensor:
    """q, k and v on top of each other; where their types differ, at one that holds the values of all."""
    types = {part.dtype for part in parts}
    if len(types) > 1 and types <= set(_PLAIN):
        wide = DType.F64 if DType.F64 in types else DType.F32
        parts = [part if part.dtype is wide else Cast(part, wide) for part in parts]
    try:
        return stacked(parts)
    except ValueError as error:
        raise FormatError(f"{name} cannot be put together: {error}; convert that component's file first.") from None
