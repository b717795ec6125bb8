"""What a comparison means, in sentences for people: what is the same, what was trained, what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lib_toolkit.analysis.compare.alignment import BUFFER, WEIGHT, Component, Row, title_of
from lib_toolkit.analysis.compare.measures import PRECISIONS, Measures, lower_type, together
from lib_toolkit.analysis.compare.reading import Width, width_of
from lib_toolkit.analysis.compare.results import A, B, Compared, Comparison, NotCompared, tensor_of
from lib_toolkit.casting import Cast
from lib_toolkit.counting import counted
from lib_toolkit.dtypes import DType

_NAMES = ("A", "B")
_LAYER = re.compile(r"L(\d+)")
_DECODER = ("decoder.", "post_quant_conv.")
_PLURALS = {"schedule": "tensors of the noise schedule", "other": "other tensors"}
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
    failed = comparison.not_compared
    complete = not (comparison.only_a or comparison.only_b or failed)
    changed = [one for one in comparison.compared if not one.measures.identical]
    count = len(comparison.compared)
    once = _once(comparison.compared)
    told = _told(failed)
    if failed and not count:
        return f"No tensor that both have can be compared: {listing(told)}."
    if not changed and complete:
        renamed = any(one.renamed for one in comparison.compared)
        how = ", under other names or in another layout" if renamed else ""
        return f"A and B hold the same values{once}: {_all(count)} equal{how}."
    if not changed and failed:
        return f"Of {count + len(failed):,} tensors that both have {listing([f'{count:,} are equal{once}', *told])}."
    if not changed:
        return f"Where A and B have the same tensors they hold the same values{once}: all {count:,} are equal."
    rest = f"; {listing(told)}" if failed else ""
    if all(one.measures.same_when_lowered for one in changed):
        what = "A and B are" if complete else "What can be compared is" if failed else "What both have is"
        return f"{what} identical under half precision: {_rounded(changed)}{rest}."
    share = together(one.measures for one in comparison.weights()).relative
    distance = f"; ‖A−B‖ is {percent(share)} of ‖A‖" if share else ""
    which = "can be compared" if failed else "both have"
    differ = "differs" if len(changed) == 1 else "differ"
    return f"{len(changed):,} of {counted(count, 'tensor')} that {which} {differ}{once}{distance}{rest}."


def _once(compared: Iterable[Compared]) -> str:
    """What was cast before these were compared: " once A is cast to F16"; empty for nothing."""
    casts: dict[int, set[str]] = {}
    for one in compared:
        for place in (A, B):
            tensor = tensor_of(one.row, place)
            if isinstance(tensor, Cast):
                casts.setdefault(place, set()).add(tensor.dtype.name)
    told = [f"{_NAMES[place]} is cast to {listing(sorted(types))}" for place, types in sorted(casts.items())]
    return f" once {listing(told)}" if told else ""


def _stored(row: Row, place: int) -> DType:
    """The type in the file, whatever it was cast to."""
    tensor = tensor_of(row, place)
    return tensor.source.dtype if isinstance(tensor, Cast) else tensor.dtype


def _rounded(changed: Iterable[Compared]) -> str:
    types = sorted({lower.name for one in changed if (lower := _lower(one.row)) is not None})
    return f"rounded to {listing(types)} no value differs"


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
    failed = _failures(comparison, component.id)
    weights = [one for one in comparison.of(component.id) if one.row.kind == WEIGHT]
    absent = [row for rows in only for row in rows if row.kind != BUFFER] + [one.row for one in failed]
    found = [_equality(component, weights, absent)] if weights else []
    if failed:
        found.append(_failed(title, failed, len(weights) + len(failed)))
    for place, rows in enumerate(only):
        if rows and not _only_spare(rows):
            found.append(f"{_count(rows, 'tensor')} of the {title} {_be(rows)} only in {_NAMES[place]}.")
    buffers = [one for one in comparison.of(component.id) if one.row.kind == BUFFER]
    if any(not one.measures.identical for one in buffers):
        found.append(f"The position ids of the {title} differ, which weights do not tell.")
    return found


def _failures(comparison: Comparison, component: str) -> list[NotCompared]:
    return [one for one in comparison.not_compared if one.row.component == component]


def _of(rows: Iterable[Row], component: Component) -> list[Row]:
    return [row for row in rows if row.component == component.id]


def _only_spare(rows: Sequence[Row]) -> bool:
    """Position ids alone are no news."""
    return all(row.kind == BUFFER for row in rows)


def _all(count: int) -> str:
    return "the one tensor is" if count == 1 else f"all {count:,} tensors are"


def _one_sided(component: Component, place: int, count: int) -> str:
    has, lacks = _NAMES[place], _NAMES[1 - place]
    if component.id == "unet_ema":
        return f"EMA pruned: {has} holds an EMA copy of the UNet ({counted(count, 'tensor')}), {lacks} does not."
    return f"Only {has} has a {component.title} ({counted(count, 'tensor')})."


def _equality(component: Component, weights: Sequence[Compared], absent: Sequence[Row]) -> str:
    """How the weights that both have compare; ``absent`` are those that could not be compared."""
    title, once = component.title, _once(weights)
    changed = [one for one in weights if not one.measures.identical]
    if not changed and absent:
        what = "one tensor" if len(weights) == 1 else f"{len(weights):,} tensors"
        are = "is" if len(weights) == 1 else "are"
        return f"The {what} of the {title} that can be compared {are} equal{once}{_renamed(component)}."
    if not changed:
        return f"Same {title}{once}: {_all(len(weights))} equal{_renamed(component)}."
    if all(one.measures.same_when_lowered for one in changed):
        what = f"What can be compared of the {title}" if absent else f"The {title}"
        return f"{what} is identical under half precision: {_rounded(changed)}."
    return f"{_change(component, weights, changed, absent)}{once}{_renamed(component)}{_distance(weights)}."


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


def _change(
    component: Component, weights: Sequence[Compared], changed: Sequence[Compared], absent: Sequence[Row]
) -> str:
    """Which part of a component differs."""
    title = f"{component.title} that can be compared" if absent else component.title
    if component.id.startswith("vae"):
        sides = {one.row.key.startswith(_DECODER) for one in changed}
        if len(sides) == 1:
            return _side_changed(sides == {True}, weights, absent)
    if component.id.startswith("text_encoder"):
        return _layers_changed(title, weights, changed)
    if len(changed) == len(weights):
        return (
            f"All {len(weights):,} tensors of the {title} changed" if absent else f"All layers of the {title} changed"
        )
    return _blocks_changed(title, weights, changed)


def _side_changed(decoder: bool, weights: Sequence[Compared], absent: Sequence[Row]) -> str:
    """Only one half of a VAE differs, as far as the other can be compared."""
    own, other = ("decoder", "encoder") if decoder else ("encoder", "decoder")
    rest = sum(one.row.key.startswith(_DECODER) != decoder for one in weights)
    if not rest:
        return f"The {own} of the VAE differs, its {other} cannot be compared"
    if any(row.key.startswith(_DECODER) != decoder for row in absent):
        return f"Of the VAE the {own} differs, and {rest:,} tensors of its {other} that can be compared are equal"
    if decoder:
        return "Only the decoder of the VAE was trained: its encoder is equal"
    return "Only the encoder of the VAE differs: its decoder is equal"


def _layers_changed(title: str, weights: Sequence[Compared], changed: Sequence[Compared]) -> str:
    layers = _numbers_of(weights)
    touched = _numbers_of(changed)
    others = sorted({str(one.row.block) for one in changed if not _LAYER.fullmatch(str(one.row.block))})
    words = {"EMBED": "the embeddings", "FINAL": "the final norm"}
    more = f", and {listing([words.get(name, name) for name in others])}" if others else ""
    if not touched:
        return f"Of the {title} only {listing([words.get(name, name) for name in others])} changed"
    if len(touched) == len(layers):
        which = "The one layer" if len(layers) == 1 else f"All {len(layers)} layers"
        return f"{which} of the {title} changed{more}"
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
    shapes = sum(_of_shape(one) for one in failed)
    if shapes > all_ // 2:
        return f"The {title} is another one: {shapes:,} of {all_:,} tensors differ in shape."
    return f"Of {all_:,} tensors of the {title} {listing(_told(failed))}."


def _told(failed: Sequence[NotCompared]) -> list[str]:
    """How many could not be compared, and why."""
    shapes = sum(_of_shape(one) for one in failed)
    rest = len(failed) - shapes
    told = [f"{shapes:,} differ{'s' * (shapes == 1)} in shape"] if shapes else []
    return told + ([f"{rest:,} {'is' if rest == 1 else 'are'} of types that cannot be compared"] if rest else [])


def _of_shape(one: NotCompared) -> bool:
    return one.reason.startswith("shape")


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
        failed = _failures(comparison, component)
        if failed and component not in known:
            every = len(comparison.of(component)) + len(failed)
            found.append(f"Of {every:,} {_PLURALS[component]} in both {listing(_told(failed))}.")
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
    if comparison.at_lower:
        found.append(_not_cast(comparison))
    for name, one in zip(_NAMES, comparison.found, strict=True):
        if one.quantised is not None:
            found.append(f"{name} is quantised ({one.quantised}): its numbers are compared as stored, without scales.")
    whole: Measures = together(one.measures for one in comparison.compared)
    found += [no_numbers("A", whole.nan_a, whole.infinite_a), no_numbers("B", whole.nan_b, whole.infinite_b)]
    return found


def _not_cast(comparison: Comparison) -> str:
    """Types that differ although everything was to be cast to the coarser one."""
    pairs = {(_stored(one.row, A).name, _stored(one.row, B).name) for one in comparison.compared if _uncast(one.row)}
    if not pairs:
        return ""
    told = ", ".join(f"{a} and {b}" for a, b in sorted(pairs))
    return f"{told} were compared as they are: nothing is cast to FP8, so that rounding alone can make them differ."


def _uncast(row: Row) -> bool:
    types = {tensor_of(row, place).dtype for place in (A, B)}
    return len(types) > 1 and all(dtype in PRECISIONS or width_of(dtype) is Width.SINGLE for dtype in types)


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
        name = _stored(one.row, place).name
        counts[name] = counts.get(name, 0) + one.measures.elements
    return max(counts, key=lambda name: counts[name], default="")


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items):,} {noun}{'' if len(items) == 1 else 's'}"


def _be(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"
