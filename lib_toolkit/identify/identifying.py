"""What a model is, with the evidence: from names, types and shapes alone; no value is read.

Keys are split by their prefixes, each group is probed by the families, its hyperparameters are read, the exact
table is generated and compared. The verdict follows from the components that were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lib_toolkit.architectures import kinds, prefixes
from lib_toolkit.architectures.components import Component
from lib_toolkit.architectures.family import Family, Shape
from lib_toolkit.architectures.lora import LoraInfo, read_lora
from lib_toolkit.architectures.registry import Architecture
from lib_toolkit.identify import remarks
from lib_toolkit.identify.evidence import (
    Identification,
    Leftover,
    Leftovers,
    Match,
    Rejected,
)
from lib_toolkit.identify.leftovers import quantisation, sort_leftovers
from lib_toolkit.identify.matching import find_components, make_group, to_match
from lib_toolkit.identify.verdict import Verdict, decide
from lib_toolkit.model import Model, count_bytes, count_parameters

_POSITION_IDS = "text_model.embeddings.position_ids"


def identify(model: Model) -> Identification:
    """Tell what a model is. Reads no tensor; never raises for odd keys."""
    shapes = {key: tensor.shape for key, tensor in model.tensors.items()}
    lora = read_lora(shapes)
    if lora is not None:
        return _adapter(model, lora)
    matches, rejected = _components(model, shapes)
    if not matches:
        kind = kinds.recognise(_all_shapes(model, shapes)) or kinds.recognise(shapes)
        if kind is not None:
            verdict = Verdict(None, kind.name, None, kind.kind, False)
            # Nothing is known of the tensors, and nothing of them is junk: they are the file.
            return _conclude(model, verdict, (), Leftovers(), (), [])
    return _checkpoint(model, matches, rejected)


def _components(model: Model, shapes: dict[str, Shape]) -> tuple[list[Match], list[Rejected]]:
    groups: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        prefix = prefixes.known_prefix(key)
        groups.setdefault(prefix, {})[key[len(prefix) :]] = shape
    matches: list[Match] = []
    rejected: list[Rejected] = []
    hints: list[Family] = []
    # EMA keys do not tell their size: the UNet of the same file is tried first.
    for prefix in sorted(groups, key=lambda prefix: (prefix == prefixes.EMA, prefix)):
        group = make_group(prefix, groups[prefix])
        fits, close = find_components(group, hints)
        rejected += close
        for fit in fits:
            matches.append(to_match(fit, group, model.tensors))
            if "ema" in fit.family.layouts:
                hints.append(fit.family.within("ema"))
    return sorted(matches, key=lambda match: (-match.bytes, match.prefix, match.component.name)), rejected


def _all_shapes(model: Model, shapes: dict[str, Shape]) -> dict[str, Shape]:
    """Keys of the state dict with its place in a pickle, for files whose containers tell what they are."""
    place = f"{model.container}." if model.container else ""
    outside = {} if not place else {key: tensor.shape for key, tensor in model.outside.items()}
    return {**outside, **{place + key: shape for key, shape in shapes.items()}}


def _checkpoint(model: Model, matches: Sequence[Match], rejected: Sequence[Rejected]) -> Identification:
    ema_alone = any(match.layout == "ema" for match in matches) and not _has_unet(matches)
    ema_whole = not ema_alone and _only_ema_is_whole(matches)
    sorted_out = sort_leftovers(model, matches, keep_ema=ema_whole or not _has_unet(matches))
    leftovers = sorted_out.leftovers
    whole = count_bytes(model.tensors.values())
    unknown = sum(entry.bytes for entry in leftovers.unknown)
    verdict = decide(matches, unknown / whole if whole else 0.0)
    verdict = replace(verdict, rejected=(*verdict.rejected, *rejected))
    matches = tuple(replace(match, extra=_extra(match, leftovers.unknown)) for match in matches)
    notes = remarks.notes(verdict, matches, leftovers.protected, ema_alone)
    if ema_whole:
        notes.append("The UNet is not whole, but its EMA copy is: the copy is kept.")
    return _conclude(model, verdict, matches, leftovers, sorted_out.buffers, notes)


def _has_unet(matches: Sequence[Match]) -> bool:
    return any(match.component.kind == "unet" and match.layout != "ema" for match in matches)


def _only_ema_is_whole(matches: Sequence[Match]) -> bool:
    layouts = {match.layout == "ema" for match in matches if match.component.kind == "unet" and match.complete}
    return layouts == {True}


def _extra(match: Match, unknown: Sequence[Leftover]) -> tuple[str, ...]:
    """Unknown tensors in the component's place: under its prefix, or, without one, named as its own are."""
    if match.prefix:
        return tuple(entry.key for entry in unknown if entry.belongs_to == match.prefix)
    family = match.component.family
    signs = family.signs[match.layout] if family is not None else ()
    return tuple(entry.key for entry in unknown if entry.belongs_to is None and entry.key.startswith(signs))


def _conclude(
    model: Model,
    verdict: Verdict,
    matches: Sequence[Match],
    leftovers: Leftovers,
    buffers: tuple[str, ...],
    notes: Sequence[str],
) -> Identification:
    renames = {
        key: match.prefix + native
        for match in matches
        if match.layout == "nai" and match.prefix == prefixes.CLIP_V1
        for native, key in match.keys.items()
        if match.prefix + native != key
    }
    return Identification(
        architecture=verdict.architecture,
        name=verdict.name,
        id=verdict.id,
        kind=verdict.kind,
        intact=verdict.intact,
        base=verdict.base,
        missing_classes=verdict.missing_classes,
        components=tuple(matches),
        rejected=verdict.rejected,
        leftovers=leftovers,
        buffers=buffers,
        position_ids=tuple(match.keys[_POSITION_IDS] for match in matches if _POSITION_IDS in match.keys),
        renames=renames,
        quantised=quantisation(model),
        notes=(*notes, *model.notes),
        warnings=(*remarks.warnings(verdict, matches, len(renames)), *model.warnings),
    )


def _adapter(model: Model, lora: LoraInfo) -> Identification:
    component = Component(lora.name, lora.name, lora.base or "", "lora")
    own = [model.tensors[key] for key in lora.keys]
    match = Match(
        component=component,
        prefix="",
        layout=lora.naming,
        keys={key: key for key in lora.keys},
        required=len(own),
        named=lora.base is not None,
        tensors=len(own),
        parameters=count_parameters(own),
        bytes=count_bytes(own),
    )
    known = lora.base is not None
    architecture = Architecture(lora.name, lora.base, "lora") if known else None
    verdict = Verdict(architecture, lora.name, lora.base, "lora", known and not lora.lame, lora.base)
    sorted_out = sort_leftovers(model, (match,), keep_ema=True)
    found = _conclude(model, verdict, (match,), sorted_out.leftovers, sorted_out.buffers, remarks.lora_notes(lora))
    return replace(found, lora=lora, warnings=(*remarks.lora_warnings(lora), *found.warnings))
