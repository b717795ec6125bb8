"""What a comparison means, in sentences for people: what is the same, what was trained, what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lib_toolkit.analysis.compare.alignment import BUFFER, WEIGHT, Component, Row, title_of
from lib_toolkit.analysis.compare.measures import Measures, lower_type, together
from lib_toolkit.analysis.compare.results import A, B, Compared, Comparison, NotCompared, tensor_of
from lib_toolkit.dtypes import DType

_NAMES = ("A", "B")
_LAYER = re.compile(r"L(\d+)")
_DECODER = ("decoder.", "post_quant_conv.")
_LISTED = 6


def verdicts(comparison: Comparison) -> tuple[str, ...]:
    """The sentences, the most telling first."""
    if not comparison.compared and not comparison.not_compared:
        return (_kinds(comparison), "They have no tensor in common: there is nothing to compare.")
    found = [_whole(comparison), *_architectures(comparison)]
    for component in comparison.components:
        found += _component(comparison, component)
    found += _loose(comparison)
    found += _numbers(comparison)
    return tuple(sentence for sentence in found if sentence)


def percent(share: float) -> str:
    """A share in as many digits as tell something: 0.012 %, 1.2 %, 34 %."""
    value = 100 * share
    if value == 0 or value >= 10:
        return f"{value:.0f} %"
    return f"{value:.2g} %" if value >= 0.001 else f"{value:.1e} %"


def listing(items: Sequence[str]) -> str:
    """Items as a sentence lists them: a, b and c."""
    if len(items) <= 1:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _whole(comparison: Comparison) -> str:
    """What can be said of the files as wholes."""
    complete = not (comparison.only_a or comparison.only_b or comparison.not_compared)
    changed = [one for one in comparison.compared if not one.measures.identical]
    count = len(comparison.compared)
    if not changed and complete:
        renamed = any(one.renamed for one in comparison.compared)
        how = ", under other names or in another layout" if renamed else ""
        return f"A and B hold the same values: all {count:,} tensors are equal{how}."
    if not changed:
        return f"Where A and B have the same tensors they hold the same values: all {count:,} are equal."
    if all(one.measures.same_when_lowered for one in changed):
        return f"A and B are identical under half precision: {_rounded(changed)}"
    share = together(one.measures for one in comparison.weights()).relative
    distance = f"; ‖A−B‖ is {percent(share)} of ‖A‖" if share else ""
    return f"{len(changed):,} of {count:,} tensors that both have differ{distance}."


def _rounded(changed: Iterable[Compared]) -> str:
    types = sorted({lower.name for one in changed if (lower := _lower(one.row)) is not None})
    return f"rounded to {listing(types)} no value differs."


def _lower(row: Row) -> DType | None:
    return lower_type(tensor_of(row, A).dtype, tensor_of(row, B).dtype)


def _kinds(comparison: Comparison) -> str:
    a, b = (one.name for one in comparison.found)
    return f"A is {a}, B is {b}." if a != b else f"Both are {a}."


def _architectures(comparison: Comparison) -> list[str]:
    a, b = comparison.found
    if a.name == b.name:
        return []
    return [f"A is {a.name}, B is {b.name}: what both have is compared."]


def _component(comparison: Comparison, component: Component) -> list[str]:
    title, (a, b) = component.title, component.matches
    only = (_of(comparison.only_a, component), _of(comparison.only_b, component))
    if a is None or b is None:
        return [_one_sided(component, A if b is None else B, len(only[A if b is None else B]))]
    failed = [one for one in comparison.not_compared if one.row.component == component.id]
    weights = [one for one in comparison.of(component.id) if one.row.kind == WEIGHT]
    whole = not failed and all(_only_spare(rows) for rows in only)
    found = [_equality(component, weights, whole)] if weights else []
    if failed:
        found.append(_failed(title, failed, len(weights) + len(failed)))
    for place, rows in enumerate(only):
        if rows and not _only_spare(rows):
            found.append(f"{_count(rows, 'tensor')} of the {title} {_be(rows)} only in {_NAMES[place]}.")
    buffers = [one for one in comparison.of(component.id) if one.row.kind == BUFFER]
    if any(not one.measures.identical for one in buffers):
        found.append(f"The position ids of the {title} differ, which weights do not tell.")
    return found


def _of(rows: Iterable[Row], component: Component) -> list[Row]:
    return [row for row in rows if row.component == component.id]


def _only_spare(rows: Sequence[Row]) -> bool:
    """Position ids alone are no news."""
    return all(row.kind == BUFFER for row in rows)


def _one_sided(component: Component, place: int, count: int) -> str:
    has, lacks = _NAMES[place], _NAMES[1 - place]
    if component.id == "unet_ema":
        return f"EMA pruned: {has} holds an EMA copy of the UNet ({count:,} tensors), {lacks} does not."
    return f"Only {has} has a {component.title} ({count:,} tensors)."


def _equality(component: Component, weights: Sequence[Compared], whole: bool) -> str:
    title = component.title
    changed = [one for one in weights if not one.measures.identical]
    if not changed and not whole:
        return f"The {len(weights):,} tensors of the {title} that can be compared are equal{_renamed(component)}."
    if not changed:
        return f"Same {title}: all {len(weights):,} tensors are equal{_renamed(component)}."
    if all(one.measures.same_when_lowered for one in changed):
        return f"The {title} is identical under half precision: {_rounded(changed)}"
    return f"{_change(component, weights, changed)}{_renamed(component)}{_distance(weights)}."


def _renamed(component: Component) -> str:
    a, b = component.matches
    if a is None or b is None or a.layout == b.layout:
        return ""
    names = {"nai": "NovelAI", "hf": "Hugging Face", "openclip": "OpenCLIP", "ldm": "ldm", "diffusers": "diffusers"}
    return f", though named otherwise ({names.get(a.layout, a.layout)} in A, {names.get(b.layout, b.layout)} in B)"


def _distance(weights: Sequence[Compared]) -> str:
    whole = together(one.measures for one in weights)
    if whole.relative is None:
        return ""
    cosine = f", cosine {whole.cosine:.6f}" if whole.cosine is not None else ""
    return f"; ‖A−B‖ is {percent(whole.relative)} of ‖A‖{cosine}"


def _change(component: Component, weights: Sequence[Compared], changed: Sequence[Compared]) -> str:
    """Which part of a component differs."""
    title = component.title
    if component.id.startswith("vae"):
        sides = {one.row.key.startswith(_DECODER) for one in changed}
        if sides == {True}:
            return "Only the decoder of the VAE was trained: its encoder is equal"
        if sides == {False}:
            return "Only the encoder of the VAE differs: its decoder is equal"
    if component.id.startswith("text_encoder"):
        return _layers_changed(title, weights, changed)
    if len(changed) == len(weights):
        return f"All layers of the {title} changed"
    return _blocks_changed(title, weights, changed)


def _layers_changed(title: str, weights: Sequence[Compared], changed: Sequence[Compared]) -> str:
    layers = _numbers_of(weights)
    touched = _numbers_of(changed)
    others = sorted({str(one.row.block) for one in changed if not _LAYER.fullmatch(str(one.row.block))})
    words = {"EMBED": "the embeddings", "FINAL": "the final norm"}
    more = f", and {listing([words.get(name, name) for name in others])}" if others else ""
    if not touched:
        return f"Of the {title} only {listing([words.get(name, name) for name in others])} changed"
    if len(touched) == len(layers):
        return f"All {len(layers)} layers of the {title} changed{more}"
    numbers = listing([str(number) for number in touched])
    return f"{len(touched)} of {len(layers)} layers of the {title} changed (number {numbers}){more}"


def _numbers_of(rows: Iterable[Compared]) -> list[int]:
    found = (_LAYER.fullmatch(one.row.block) for one in rows if one.row.block)
    return sorted({int(match[1]) for match in found if match})


def _blocks_changed(title: str, weights: Sequence[Compared], changed: Sequence[Compared]) -> str:
    blocks = list(dict.fromkeys(one.row.block for one in weights if one.row.block))
    touched = list(dict.fromkeys(one.row.block for one in changed if one.row.block))
    kinds = list(dict.fromkeys(one.row.layer for one in weights if one.row.layer))
    layers = list(dict.fromkeys(one.row.layer for one in changed if one.row.layer))
    text = f"{len(changed):,} of {len(weights):,} tensors of the {title} changed"
    if touched and len(touched) < len(blocks):
        names = listing(touched[:_LISTED]) if len(touched) <= _LISTED else ", ".join(touched[:_LISTED]) + " …"
        text += f", in {len(touched)} of {len(blocks)} blocks ({names})"
    if layers and len(layers) < len(kinds) and len(layers) <= 3:
        text += f", only in layers of the kind {listing(layers)}"
    return text


def _failed(title: str, failed: Sequence[NotCompared], all_: int) -> str:
    shapes = sum(one.reason.startswith("shape") for one in failed)
    rest = len(failed) - shapes
    if shapes > all_ // 2:
        return f"The {title} is another one: {shapes:,} of {all_:,} tensors differ in shape."
    told = [f"{shapes:,} differ in shape"] if shapes else []
    told += [f"{rest:,} are of types that cannot be compared"] if rest else []
    return f"Of {all_:,} tensors of the {title} {listing(told)}."


def _loose(comparison: Comparison) -> list[str]:
    """Schedules, counters, and what no component knows."""
    found: list[str] = []
    for place, rows in enumerate((comparison.only_a, comparison.only_b)):
        for component in ("schedule", "other"):
            own = [row for row in rows if row.component == component]
            if own:
                found.append(_missing(component, own, place))
    for component in ("schedule", "other"):
        known = {one.id for one in comparison.components}
        changed = [one for one in comparison.of(component) if not one.measures.identical]
        changed = [one for one in changed if not one.measures.same_when_lowered]
        if changed and component not in known:
            found.append(f"{_count(changed, 'tensor')} of the {title_of(component)} differ{'s' * (len(changed) == 1)}.")
    return found


def _missing(component: str, rows: Sequence[Row], place: int) -> str:
    has, lacks = _NAMES[place], _NAMES[1 - place]
    if component == "schedule":
        return f"The schedule buffers ({_count(rows, 'tensor')}) are missing in {lacks}."
    return f"{_count(rows, 'other tensor')} {_be(rows)} only in {has}."


def _numbers(comparison: Comparison) -> list[str]:
    """Precision, and values that are no numbers."""
    found = []
    a, b = _types(comparison, A), _types(comparison, B)
    if a and b and a != b:
        found.append(f"A is stored at {a}, B at {b}.")
    for name, one in zip(_NAMES, comparison.found, strict=True):
        if one.quantised is not None:
            found.append(f"{name} is quantised ({one.quantised}): its numbers are compared as stored, without scales.")
    whole: Measures = together(one.measures for one in comparison.compared)
    found += [no_numbers("A", whole.nan_a, whole.infinite_a), no_numbers("B", whole.nan_b, whole.infinite_b)]
    return found


def no_numbers(name: str, nan: int, infinite: int) -> str:
    """What is said of a model that holds values that are none; empty where there are none."""
    if not nan and not infinite:
        return ""
    told = [f"{nan:,} NaN"] * bool(nan) + [f"{infinite:,} infinite"] * bool(infinite)
    return f"{name} holds {listing(told)} values: they are counted and take no part in the figures."


def _types(comparison: Comparison, place: int) -> str:
    """The type of most of the weights."""
    counts: dict[str, int] = {}
    for one in comparison.weights():
        name = tensor_of(one.row, place).dtype.name
        counts[name] = counts.get(name, 0) + one.measures.elements
    return max(counts, key=lambda name: counts[name], default="")


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items):,} {noun}{'' if len(items) == 1 else 's'}"


def _be(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"
