"""Take a component out of a model, and put one in: pure functions from models and plans to plans.

The former component's tensors go first, whatever they are called; the new ones take the prefix, layout and precision
of the place. What belongs to a component (scales, markers, entries of the header) goes where it goes. Nothing else
of the target changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from lib_toolkit.casting import cast
from lib_toolkit.counting import counted
from lib_toolkit.dtypes import DType
from lib_toolkit.edits.beginnings import missing_classes, new_names, new_plan
from lib_toolkit.edits.candidates import Candidate, Place, choose, find_source, suffix_of
from lib_toolkit.edits.companions import LAYER_TABLE, companions, moved_header, placed, quantised
from lib_toolkit.edits.places import former_keys, place_of
from lib_toolkit.edits.precision import precision_table
from lib_toolkit.identify import Identification, Match
from lib_toolkit.model import Model, count_bytes
from lib_toolkit.plan import Changed, Dropped, Plan
from lib_toolkit.tensors import Tensor, nbytes, numel

__all__ = [
    "Candidate",
    "choose",
    "export_component",
    "import_component",
    "missing_classes",
    "new_names",
    "new_plan",
    "suffix_of",
]

_SHOWN = 3
_FP8 = "F8_"


def export_component(model: Model, found: Identification, cls: str, component: str | None = None) -> Plan:
    """The plan of a file that holds one component of ``model`` under bare names.

    ``cls`` is a class, the name of a component, or an id; ``component`` one of several of the class (None or ``auto``:
    as ``choose`` says). An EMA copy takes the UNet's names, a NovelAI-named text encoder the standard ones; otherwise
    the layout stays. The rest of the file is summed up in a few entries of ``dropped``. Raises UsageError as
    ``choose`` does.
    """
    match = choose(model, found, cls, component).match
    names = {**_bare_names(match), **companions(found, match)}
    header = {key: text for key, text in model.metadata.items() if key != LAYER_TABLE}
    strangers = [key for key in match.extra if key not in names]
    warnings = model.warnings
    if strangers:
        where = f"under {match.prefix}" if match.prefix else "beside it"
        are, were = ("is", "was") if len(strangers) == 1 else ("are", "were")
        told = f"{counted(len(strangers), 'tensor')} {where} that {are} not known {were} left out"
        note = f"{told} ({_few(strangers)})."
        warnings = (*warnings, note)
    return Plan(
        source=model,
        tensors={names[key]: tensor for key, tensor in model.tensors.items() if key in names},
        metadata=moved_header(header, "", model.metadata, match.prefix),
        dropped=tuple(_rest(model, found, match, names)),
        changed=tuple(Changed(new, f"renamed from {old}") for old, new in names.items() if not old.endswith(new)),
        warnings=warnings,
        operations=(f"export {match.component.name}",),
    )


def _bare_names(match: Match) -> dict[str, str]:
    """File keys to bare ones: native names for layouts that are only other names, the layout's own for the rest."""
    family = match.component.family
    renamed = family is not None and match.layout in family.derived
    return {key: native if renamed else key[len(match.prefix) :] for native, key in match.keys.items()}


def _rest(model: Model, found: Identification, exported: Match, names: Mapping[str, str]) -> Iterator[Dropped]:
    """What an export leaves behind, one entry for each component and one for all else."""
    left = dict.fromkeys(key for key in model.tensors if key not in names)
    for match in found.components:
        keys = [key for key in match.keys.values() if key in left]
        if match is not exported and keys:
            size = count_bytes(model.tensors[key] for key in keys)
            yield Dropped(f"{match.prefix}*", size, _not_exported(match.component.name, len(keys)), "group")
            for key in keys:
                del left[key]
    if left:
        size = count_bytes(model.tensors[key] for key in left)
        yield Dropped("*", size, _not_exported("what stands beside the components", len(left)), "group")
    if model.outside:
        size = count_bytes(model.outside.values())
        yield Dropped(
            "*", size, _not_exported("what stands outside the state dict in use", len(model.outside)), "group"
        )
    if model.values:
        yield Dropped("*", 0, f"not exported: {_values(len(model.values))} to the whole model", "group")


def _not_exported(what: str, count: int) -> str:
    return f"not exported: {what} ({counted(count, 'tensor')})"


def _values(count: int) -> str:
    return "1 value that belongs" if count == 1 else f"{count:,} values that belong"


def import_component(
    plan: Plan,
    found: Identification,
    cls: str,
    source: Model,
    source_found: Identification,
    component: str | None = None,
    precision: str = "auto",
) -> tuple[Plan, Candidate]:
    """The plan with the component of class ``cls`` taken from ``source``, and which one that was.

    ``found`` is what ``plan.as_model()`` is. ``cls`` may be a class, a component's name or an id; ``component`` names
    one of the source's (None or ``auto``: the best, see ``find_source``). ``precision``: ``auto`` is that of the
    component that goes (the type of most of its values), or of the rest where there is none, F16 in a new model;
    ``keep`` that of the source; else a name in PRECISIONS. Position ids, markers and scales keep their type, and a
    quantised component is never cast. Raises UsageError with the reason where the model has no place for the class
    or the source nothing to put there.
    """
    precision_table(precision)
    place, named = place_of(plan, found, cls)
    wish = component if component is not None and component.casefold() != "auto" else named
    chosen = find_source(place, source, source_found, wish)
    weights, new, notes = _incoming(plan, found, place, chosen, source_found, precision)
    former = former_keys(plan, found, place)
    name = f"{chosen.component.name} of {source.name}"
    return (
        replace(
            plan,
            tensors=_exchanged(plan.tensors, former, new),
            metadata=moved_header(plan.metadata, place.prefix, source.metadata, chosen.match.prefix),
            dropped=(*plan.dropped, *_dropped(plan, former, new)),
            changed=(*_still(plan, former), *_changed(plan, weights, new, name)),
            warnings=(*plan.warnings, *notes, *_warnings(found, place, chosen)),
            operations=(*plan.operations, f"import {place.cls} from {source.name} ({chosen.match.component.name})"),
            others=_others(plan, source),
        ),
        chosen,
    )


def _incoming(
    plan: Plan, found: Identification, place: Place, chosen: Candidate, source_found: Identification, precision: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """The source's weights by their new keys, the same at their new precision with all companions, and notes."""
    assert chosen.conversion is not None
    source, match = chosen.source, chosen.match
    wanted, notes = _wanted_type(plan, found, place, precision)
    if wanted is not None and quantised(source, source_found, match):
        wanted, notes = None, (f"{match.component.name} of {source.name} is quantised: it was not cast.",)
    weights = {place.prefix + bare: tensor for bare, tensor in chosen.conversion.tensors.items()}
    new = {key: _at(key, tensor, wanted) for key, tensor in weights.items()}
    for key, bare in companions(source_found, match).items():
        new[placed(bare, place.prefix)] = source.tensors[key]
    return weights, new, notes


def _at(key: str, tensor: Tensor, wanted: DType | None) -> Tensor:
    if wanted is None or not tensor.dtype.castable or not numel(tensor) or key.endswith("position_ids"):
        return tensor
    return cast(tensor, wanted)


def _wanted_type(
    plan: Plan, found: Identification, place: Place, precision: str
) -> tuple[DType | None, tuple[str, ...]]:
    """The type to cast the new weights to, None to leave them as they are; and what there is to say about it."""
    if precision != "auto":
        targets = set(precision_table(precision).values())
        return (targets.pop() if targets else None), ()
    if plan.is_new:
        return DType.F16, ()
    own = _most(plan, place.former) or _most(plan, found.components)
    if own is None or own.castable:
        return own, ()
    note = f"The former {place.cls} is {own.name}, which nothing is cast to: the new one keeps its precision."
    return None, (note,)


def _most(plan: Plan, matches: Iterable[Match]) -> DType | None:
    """The floating-point type of most of the matches' values."""
    counts: Counter[DType] = Counter()
    for match in matches:
        for key in match.keys.values():
            tensor = plan.tensors[key]
            if tensor.dtype.castable or tensor.dtype.name.startswith(_FP8):
                counts[tensor.dtype] += numel(tensor)
    return counts.most_common(1)[0][0] if counts else None


def _exchanged(
    tensors: Mapping[str, Tensor], former: Mapping[str, str], new: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The new tensors in the place of the first that goes, at the end where none does."""
    result: dict[str, Tensor] = {}
    waiting = True
    for key, tensor in tensors.items():
        if key in former or key in new:
            if waiting:
                result |= new
                waiting = False
        else:
            result[key] = tensor
    return {**result, **new} if waiting else result


def _dropped(plan: Plan, former: Mapping[str, str], new: Mapping[str, Tensor]) -> Iterator[Dropped]:
    for key, reason in former.items():
        if key not in new:
            yield Dropped(key, nbytes(plan.tensors[key]), reason)


def _still(plan: Plan, former: Mapping[str, str]) -> tuple[Changed, ...]:
    """What was said of tensors that are gone now is no longer true."""
    return tuple(change for change in plan.changed if change.key not in former)


def _changed(plan: Plan, weights: Mapping[str, Tensor], new: Mapping[str, Tensor], name: str) -> Iterator[Changed]:
    for key, tensor in new.items():
        before = weights[key].dtype if key in weights else tensor.dtype
        narrowed = "" if before is tensor.dtype else f", {before.name} → {tensor.dtype.name}"
        yield Changed(key, f"{'replaced by' if key in plan.tensors else 'added:'} {name}{narrowed}")


def _warnings(found: Identification, place: Place, chosen: Candidate) -> Iterator[str]:
    assert chosen.conversion is not None
    lost = [key for key in chosen.conversion.left_over if not key.endswith("position_ids")]
    if lost:
        have, were = ("has", "was") if len(lost) == 1 else ("have", "were")
        yield (
            f"{counted(len(lost), 'tensor')} of {chosen.match.component.name} {have} no place in "
            f"{chosen.component.name} and {were} left out ({_few(lost)})."
        )
    if place.preferred.kind == "unet" and any(match.layout == "ema" for match in found.components):
        yield "The EMA copy in the model is that of the former UNet; a prune leaves it out."


def _others(plan: Plan, source: Model) -> tuple[Model, ...]:
    """The models that lend tensors, each once; one file may have been looked at under several names."""
    known = {id(model.origin.file or model) for model in plan.sources}
    return plan.others if id(source.origin.file or source) in known else (*plan.others, source)


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (" …" if len(keys) > _SHOWN else "")
