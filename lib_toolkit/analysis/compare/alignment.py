"""Which tensors of several models are the same thing, whatever they are called and however they are laid out.

Components are recognised by what they are, not by where they stand: a bare VAE meets the one inside of a checkpoint.
Where all models have a component in one layout, its tensors meet as they are stored; where layouts differ, in
canonical form (``lib_toolkit.layouts``). What is in no component meets by its own name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lib_toolkit.analysis.compare.reading import Width, width_of
from lib_toolkit.architectures import junk, prefixes
from lib_toolkit.architectures.clip import CLIPText, OpenCLIPText
from lib_toolkit.architectures.unet import UNet
from lib_toolkit.identify import Identification, Match
from lib_toolkit.layouts import rule, to_canonical
from lib_toolkit.model import Model
from lib_toolkit.nodes import reshaped
from lib_toolkit.tensors import Tensor, numel

WEIGHT, BUFFER, COUNTER = "weight", "buffer", "counter"

TITLES: Mapping[str, str] = {
    "unet": "UNet",
    "unet_ema": "EMA copy of the UNet",
    "text_encoder": "text encoder",
    "text_encoder_l": "text encoder CLIP-L",
    "text_encoder_h": "text encoder OpenCLIP-H",
    "text_encoder_g": "text encoder OpenCLIP-G",
    "vae": "VAE",
    "controlnet": "ControlNet",
    "depth": "depth estimator",
    "lora": "LoRA",
    "schedule": "noise schedule",
    "other": "other tensors",
}
"""Components as people call them, in the order in which they are told."""

_ENCODERS = {
    "clip-l": "l",
    "clip-l-demo": "l",
    "clip-demo": "l",
    "openclip-h": "h",
    "clip-bigg": "g",
    "clip-g-demo": "g",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A tensor of one model. ``key``: what it, or the fused tensor that it is a part of, is called in the file."""

    key: str
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One thing in all models, None where a model lacks it.

    ``component`` is a key of TITLES (with #2 … for a second of its kind), ``key`` the name within it.
    ``kind``: WEIGHT, BUFFER (schedules, position ids) or COUNTER. ``block``
    and ``layer`` as the family names them, ``merge_block`` as merge-block-weighted does; None where there is none.
    """

    component: str
    key: str
    kind: str
    cells: tuple[Cell | None, ...]
    block: str | None = None
    layer: str | None = None
    merge_block: str | None = None


@dataclass(frozen=True)
class Component:
    """A component of the set: what it is in each model, None where a model has none."""

    id: str
    matches: tuple[Match | None, ...]

    @property
    def title(self) -> str:
        """As people call it."""
        return title_of(self.id)

    @property
    def renamed(self) -> bool:
        """Whether layouts, so that names too, differ."""
        return len({match.layout for match in self.matches if match is not None}) > 1


@dataclass(frozen=True)
class Alignment:
    """Several models side by side: every tensor of each is in exactly one row (a fused one in its parts' rows)."""

    models: tuple[Model, ...]
    found: tuple[Identification, ...]
    components: tuple[Component, ...]
    rows: tuple[Row, ...]


def title_of(component: str) -> str:
    """The name of a component for people."""
    base, mark, number = component.partition("#")
    return TITLES.get(base, base) + (f" {number}" if mark else "")


def align(models: Sequence[Model], found: Sequence[Identification]) -> Alignment:
    """Find what belongs together in the models, of which ``found`` says what they are. Reads nothing."""
    named = [_components_of(one, any(_encoders(other) > 1 for other in found)) for one in found]
    order = list(TITLES)
    ids = sorted({name for one in named for name in one}, key=lambda name: (order.index(name.partition("#")[0]), name))
    components = tuple(Component(name, tuple(one.get(name) for one in named)) for name in ids)
    rows: list[Row] = []
    for component in components:
        rows += _rows_of(component, models)
    rows += _rest(models, found)
    return Alignment(tuple(models), tuple(found), components, tuple(rows))


def difference_of_form(a: Tensor, b: Tensor) -> str | None:
    """Why two tensors cannot be compared, None where they can. Dimensions of size 1 at the end mean nothing."""
    if _bare_shape(a) != _bare_shape(b):
        return f"shape {list(a.shape)} in A, {list(b.shape)} in B"
    types = {a.dtype, b.dtype}
    if len(types) > 1 and any(width_of(dtype) is Width.BYTES for dtype in types):
        return f"type {a.dtype.name} in A, {b.dtype.name} in B: values of one cannot be read as numbers"
    return None


def fitted(a: Tensor, b: Tensor) -> Tensor:
    """``b`` in the shape of ``a``, for tensors of equal form."""
    return reshaped(b, a.shape)


def _bare_shape(tensor: Tensor) -> tuple[int, ...]:
    shape = tensor.shape
    if len(shape) == 4 and shape[2:] == (1, 1):
        return shape[:2]
    return shape


def _encoders(found: Identification) -> int:
    return sum(match.component.kind == "text_encoder" for match in found.components)


def _components_of(found: Identification, several: bool) -> dict[str, Match]:
    """Each component by its id; text encoders by their size where some model has several."""
    named: dict[str, Match] = {}
    for match in found.components:
        kind = match.component.kind
        name = kind if kind in TITLES else "other"
        if match.layout == "ema":
            name = "unet_ema"
        elif kind == "text_encoder" and several and match.component.id in _ENCODERS:
            name = f"text_encoder_{_ENCODERS[match.component.id]}"
        number, free = 1, name
        while free in named:
            number += 1
            free = f"{name}#{number}"
        named[free] = match
    return named


def _rows_of(component: Component, models: Sequence[Model]) -> Iterator[Row]:
    tables = [
        {} if match is None else _canonical(match, model) if component.renamed else _as_stored(match, model)
        for match, model in zip(component.matches, models, strict=True)
    ]
    family = next((m.component.family for m in component.matches if m is not None and m.component.family), None)
    root = None if family is None else family.within(family.layouts[0])
    if component.renamed and isinstance(root, OpenCLIPText):
        root = CLIPText()  # canonical names are those of Hugging Face
    compatible = UNet.compatible_block if isinstance(root, UNet) and component.id == "unet" else None
    base = "BASE" if component.id.startswith(("text_encoder", "vae")) else None
    for key in dict.fromkeys(key for table in tables for key in table):
        cells = tuple(table.get(key) for table in tables)
        yield Row(
            component=component.id,
            key=key,
            kind=BUFFER if key.endswith("position_ids") else WEIGHT,
            cells=cells,
            block=None if root is None else root.native_block(key),
            layer=None if root is None else root.native_layer(key),
            merge_block=compatible(root, key) or "M00" if compatible and isinstance(root, UNet) else base,
        )


def _as_stored(match: Match, model: Model) -> dict[str, Cell]:
    return {native: Cell(key, model.tensors[key]) for native, key in match.keys.items()}


def _canonical(match: Match, model: Model) -> dict[str, Cell]:
    family = match.component.family
    names: dict[str, str] = {}
    for native, key in match.keys.items():
        how = None if family is None else rule(family, native)
        names |= dict.fromkeys((native,) if how is None else (*how.names, how.whole), key)
    return {name: Cell(names[name], tensor) for name, tensor in to_canonical(match, model.tensors).items()}


def _rest(models: Sequence[Model], found: Sequence[Identification]) -> Iterator[Row]:
    """What is in no component, by its own name, or by what follows a known prefix where that is all that differs."""
    claimed = [one.component_of() for one in found]
    tables = [
        {key: tensor for key, tensor in model.tensors.items() if key not in taken}
        for model, taken in zip(models, claimed, strict=True)
    ]
    bare = [{key[len(prefixes.known_prefix(key)) :]: key for key in table} for table in tables]
    for key in dict.fromkeys(key for table in tables for key in table):
        names: list[str | None] = [key if key in table else None for table in tables]
        if all(names):
            yield _loose(key, names, tables)
            continue
        short = key[len(prefixes.known_prefix(key)) :]
        if all(keys.get(short) == name for name, keys in zip(names, bare, strict=True) if name is not None):
            names = [name or _other_name(short, bare, tables, place) for place, name in enumerate(names)]
        first = next(name for name in names if name is not None)
        if first == key:
            yield _loose(key, names, tables)


def _other_name(
    short: str, bare: Sequence[Mapping[str, str]], tables: Sequence[Mapping[str, Tensor]], place: int
) -> str | None:
    """The key of this model that is the same but for its prefix, unless another model has that very key too."""
    name = bare[place].get(short)
    if name is None or any(name in table for index, table in enumerate(tables) if index != place):
        return None
    return name


def _loose(key: str, names: Sequence[str | None], tables: Sequence[Mapping[str, Tensor]]) -> Row:
    cells = tuple(None if name is None else Cell(name, table[name]) for name, table in zip(names, tables, strict=True))
    tensor = next(cell.tensor for cell in cells if cell is not None)
    buffer = junk.is_buffer(key, tensor.shape)
    kind = BUFFER if buffer else COUNTER if numel(tensor) <= 1 else WEIGHT
    return Row("schedule" if buffer else "other", key, kind, cells)
