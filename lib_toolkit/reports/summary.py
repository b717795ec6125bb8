"""The Basic panel as HTML: what a model is, what was found, and what a save will write.

Pure functions: facts of a model, its identification, a plan and a predicted size go in, HTML comes out. Nothing
here reads a file, and every text from a file is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lib_toolkit.architectures.junk import EMA
from lib_toolkit.edits.precision import set_precision
from lib_toolkit.edits.repair import PositionIds
from lib_toolkit.identify import Identification, Match
from lib_toolkit.model import Model, count_parameters
from lib_toolkit.plan import Plan
from lib_toolkit.reports.html import EMPTY, Html, bullets, details, join, table, tag
from lib_toolkit.reports.numbers import counted, human_bytes, human_count
from lib_toolkit.reports.shares import Share, bar, shares_of
from lib_toolkit.tensors import nbytes

FORMATS = {
    "safetensors": "safetensors",
    "torch-zip": "PyTorch checkpoint (zip)",
    "torch-legacy": "PyTorch checkpoint (old layout)",
    "pickle": "Python pickle",
}
"""The formats of model.Origin in words."""

_EXAMPLES = 8
_SHOWN_VALUES = ("epoch", "global_step")
_OF_ONE_FORM = frozenset({"embedding", "hypernetwork"})

OFFERED_SHARE = 0.5
"""Leaving out unknown tensors is offered while they are at most this part of the file."""


@dataclass(frozen=True)
class Facts:
    """What can be said of a model file before knowing what it is. Sizes are in bytes, ``dtypes`` bytes by type."""

    name: str
    size: int
    file_format: str
    container: str
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]
    values: Mapping[str, str]


@dataclass(frozen=True)
class Group:
    """Several tensors or entries with one fate: ``what`` is the reason or the change in words."""

    what: str
    count: int
    bytes: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """What a plan comes to, without the plan. ``size`` is that of the file to the byte, ``source_size`` that of the
    one it began with (0: a new model); ``half_saves`` the bytes by which half precision makes the tensors smaller
    that the plan keeps."""

    size: int
    source_size: int
    shares: tuple[Share, ...]
    dropped: tuple[Group, ...]
    changed: tuple[Group, ...]
    warnings: tuple[str, ...]
    half_saves: int = 0


def facts_of(model: Model) -> Facts:
    """The facts of an open model; nothing is read."""
    dtypes: dict[str, int] = {}
    for tensor in model.tensors.values():
        dtypes[tensor.dtype.name] = dtypes.get(tensor.dtype.name, 0) + nbytes(tensor)
    values = {key: str(model.values[key]) for key in _SHOWN_VALUES if key in model.values}
    return Facts(
        model.name,
        model.origin.size,
        model.origin.format,
        model.container,
        len(model.tensors),
        count_parameters(model.tensors.values()),
        dict(sorted(dtypes.items(), key=lambda item: -item[1])),
        values,
    )


def preview_of(model: Model, found: Identification, plan: Plan, file_format: str, half_saves: int = 0) -> Preview:
    """What the plan comes to in a format. Raises TargetError when the format cannot hold it."""
    size = plan.predicted_size(file_format)
    dropped = _grouped((left.reason, left.key, left.bytes) for left in plan.dropped)
    changed = _grouped(
        # Renames tell the old name of each key; together they are one kind of change.
        (change.what if "→" in change.what else change.what.split(" from ")[0], change.key, 0)
        for change in plan.changed
    )
    known = model.warnings if model is plan.source else plan.source.warnings
    warnings = tuple(_without_options(warning) for warning in plan.warnings if warning not in known)
    shares = shares_of(model, found, plan, size, in_memory=model is not plan.source)
    return Preview(
        size, model.origin.size, shares, dropped, changed, (*warnings, *_form(model, found, file_format)), half_saves
    )


def _form(model: Model, found: Identification, file_format: str) -> tuple[str, ...]:
    """What may become of small files whose loaders look for one form: the names in it, or the container."""
    if found.kind not in _OF_ONE_FORM or (model.origin.format == file_format == "safetensors"):
        return ()
    return (
        f"Programs look for {_article(found.name)} {found.name.lower()} in the very form that it came in "
        f"({FORMATS.get(model.origin.format, model.origin.format)}); a copy may not be accepted, so keep the original.",
    )


def saved_by_half(plan: Plan, found: Identification) -> int:
    """Bytes by which half precision makes a plan's tensors smaller; the plan has them at the source's precision."""
    narrow = set_precision(plan, found, "auto").tensors
    return sum(nbytes(plan.tensors[key]) - nbytes(tensor) for key, tensor in narrow.items())


def _grouped(items: Iterable[tuple[str, str, int]]) -> tuple[Group, ...]:
    groups: dict[str, tuple[int, int, list[str]]] = {}
    for what, key, size in items:
        count, total, examples = groups.get(what, (0, 0, []))
        groups[what] = (count + 1, total + size, [*examples, key] if len(examples) < _EXAMPLES else examples)
    return tuple(Group(what, count, total, tuple(keys)) for what, (count, total, keys) in groups.items())


def _without_options(text: str) -> str:
    """A warning without sentences that advise an option of the command line: the tab has its own controls."""
    return ". ".join(part.rstrip(".") for part in text.split(". ") if " --" not in part) + "."


def verdict(facts: Facts, found: Identification) -> tuple[str, ...]:
    """What the model is, in sentences: the first one is the answer."""
    sentences = [_first_sentence(facts, found)]
    if found.components:
        names = ", ".join(match.component.name for match in found.components)
        sentences.append(f"It holds {names}.")
    if found.quantised:
        sentences.append(f"Its layers are quantised ({found.quantised}): their precision is never changed.")
    kinds = ", ".join(f"{human_bytes(size)} {name}" for name, size in facts.dtypes.items())
    file_format = FORMATS.get(facts.file_format, facts.file_format)
    place = f"{file_format}, {counted(facts.size, 'byte')}" if facts.size else "Not a file yet"
    sentences.append(
        f"{place}, "
        f"{counted(facts.tensors, 'tensor')}, {human_count(facts.parameters)} parameters ({kinds or 'no values'})."
    )
    if facts.container:
        sentences.append(f"The tensors are those under {facts.container!r}.")
    if facts.values:
        sentences.append("Training: " + ", ".join(f"{key} {value}" for key, value in facts.values.items()) + ".")
    return tuple(sentences)


def _first_sentence(facts: Facts, found: Identification) -> str:
    kind = found.kind.replace("_", " ")
    called = found.name if kind in found.name.lower() else f"{found.name} ({kind})"
    if found.kind == "unknown":
        nearest = f" Nearest is {found.rejected[0].name}: {found.rejected[0].reason}." if found.rejected else ""
        return f"{facts.name} is not a model that is known here.{nearest}"
    if found.intact:
        whole = "intact: nothing that belongs to it is missing"
        return f"{facts.name} is {_article(found.name)} {called}, {whole}."
    if found.missing_classes:
        return f"{facts.name} is not a whole model: {called}, {_lacks(found)}."
    broken = [match for match in found.components if not match.complete]
    if broken:
        return f"{facts.name} is {called}, incomplete: {_damage(broken[0])}."
    return f"{facts.name} is {_article(found.name)} {called}."


def _lacks(found: Identification) -> str:
    """The classes that are not in the file, and those that are but incomplete."""
    there = {match.component.cls: match for match in found.components if not match.complete}
    absent = [cls for cls in found.missing_classes if cls not in there]
    faults = [_damage(there[cls]) for cls in found.missing_classes if cls in there]
    return "; ".join([*([f"without {', '.join(absent)}"] if absent else []), *faults])


def _article(name: str) -> str:
    """SD, SSD, LoRA, VAE …: names that are spelled take their article by the first letter's sound."""
    spelled = name[:2].isupper()
    return "an" if name[:1].upper() in ("AEFHILMNORSX" if spelled else "AEIO") else "a"


def _damage(match: Match) -> str:
    parts, name = [], match.component.name
    if match.missing:
        are = "is" if len(match.missing) == 1 else "are"
        parts.append(f"{counted(len(match.missing), 'tensor')} of {name} {are} missing ({match.missing[0]} …)")
    if match.wrong_shape:
        wrong = match.wrong_shape[0]
        parts.append(
            f"{counted(len(match.wrong_shape), 'tensor')} of {name} of another shape "
            f"({wrong.key} is {list(wrong.found)} where {list(wrong.expected)} is usual)"
        )
    return " and ".join(parts) or f"{name} is not whole"


def identity_html(
    facts: Facts, found: Identification, preview: Preview | None, sentences: Sequence[str] = (), metric: str = EMPTY
) -> Html:
    """The upper part of the panel: the verdict, the bar, what shapes cannot decide, warnings.

    ``sentences`` take the place of the verdict where more than the file is spoken of; ``metric`` is a line of its own.
    """
    first, *others = sentences or verdict(facts, found)
    return join(
        [
            tag("p", first, class_="model-toolkit-verdict"),
            tag("p", " ".join(others)),
            metric,
            bar(preview.shares) if preview else EMPTY,
            bullets(found.warnings, "model-toolkit-warnings"),
            _whole_parts(found),
            bullets(found.notes, "model-toolkit-notes"),
        ]
    )


def _whole_parts(found: Identification) -> Html:
    """What can still be made of a file that is not whole."""
    whole = [match.component.name for match in found.components if match.complete]
    if found.intact or not whole or not found.name.endswith("-BROKEN"):
        return EMPTY
    are, files = ("is", "a file of its own") if len(whole) == 1 else ("are", "files of their own")
    said = f"{', '.join(whole)} {are} whole and can be exported to {files}, under Advanced."
    return tag("p", tag("b", "Still of use. "), said, class_="model-toolkit-finding")


def components_html(found: Identification) -> Html:
    """The table of components, and what was considered and rejected."""
    rows = [
        (
            match.component.name,
            match.component.cls,
            tag("code", match.prefix or "(none)"),
            "whole" if match.complete else _damage(match),
            f"{match.tensors:,}",
            human_bytes(match.bytes),
        )
        for match in found.components
    ]
    parts = [tag("h3", "Components")]
    if rows:
        parts.append(table(("Component", "Class", "Prefix", "State", "Tensors", "Size"), rows, frozenset({4, 5})))
    else:
        parts.append(tag("p", "No component of a known model was found."))
    if found.rejected:
        rejected = [f"{one.name}: {one.reason}" for one in found.rejected]
        parts.append(details(f"Also considered ({len(rejected)})", bullets(rejected)))
    return join(parts)


def findings_html(
    facts: Facts,
    found: Identification,
    preview: Preview,
    position_ids: Sequence[PositionIds],
    keeps_unknown: bool,
) -> dict[str, Html]:
    """What was found that the user may decide about, by the name of its remedy.

    ``keep_ema``, ``fix_clip`` and ``drop_unknown`` are fields of recipes.Wishes, ``half`` is the precision.
    ``keeps_unknown``: a save keeps the unknown tensors unless the user decides otherwise.
    """
    remedies = {
        "half": _half(facts, preview),
        "keep_ema": _ema(found),
        "fix_clip": _clip(position_ids),
        "drop_unknown": _unknown(facts, found) if keeps_unknown else EMPTY,
    }
    return {name: told for name, told in remedies.items() if told}


def _half(facts: Facts, preview: Preview) -> Html:
    if preview.half_saves <= facts.size // 100:
        return EMPTY
    wide = sum(facts.dtypes.get(name, 0) for name in ("F64", "F32"))
    return tag(
        "p",
        tag("b", "Full precision. "),
        f"{human_bytes(wide)} of the values are FP32 or FP64. Half precision makes what is saved "
        f"{human_bytes(preview.half_saves)} smaller; images are usually made with it, and the difference can hardly "
        "be seen.",
    )


def _ema(found: Identification) -> Html:
    ema = [left.bytes for left in found.leftovers.removable if left.reason == EMA]
    if not ema:
        return EMPTY
    return tag(
        "p",
        tag("b", "EMA copy. "),
        f"{counted(len(ema), 'tensor')} ({human_bytes(sum(ema))}) of a second, averaged UNet, which only further "
        "training uses. It is left out unless you keep it.",
    )


def _clip(position_ids: Sequence[PositionIds]) -> Html:
    broken = [ids for ids in position_ids if not ids.right]
    if not broken:
        return EMPTY
    loses = any(ids.lost for ids in broken)
    effect = (
        "Fixing it makes the text encoder see every position again: images change slightly."
        if loses
        else "Fixing it changes the stored type alone: images stay the same."
    )
    return tag(
        "div",
        tag("p", tag("b", "CLIP position IDs. "), " ".join(ids.sentence() for ids in broken)),
        tag("p", effect, " When it is not fixed, the tensor is kept exactly as it is."),
    )


def _unknown(facts: Facts, found: Identification) -> Html:
    unknown = found.leftovers.unknown
    if not unknown:
        return EMPTY
    total = sum(left.bytes for left in unknown)
    names = bullets([left.key for left in unknown[:_EXAMPLES]] + (["…"] if len(unknown) > _EXAMPLES else []))
    return tag(
        "div",
        tag(
            "p",
            tag("b", "Unknown tensors. "),
            f"{counted(len(unknown), 'tensor')} ({human_bytes(total)}) that nothing known here has. What is unknown is "
            "kept; leave it out only if you know that it is junk, since the result may not work without it.",
        ),
        details("Their names", names),
    )


def may_offer_drop(facts: Facts, found: Identification) -> bool:
    """Whether leaving out the unknown tensors is worth offering: never where most of the file would go."""
    return sum(left.bytes for left in found.leftovers.unknown) <= OFFERED_SHARE * facts.size


def saving_html(preview: Preview, name: str, folder: str, file_format: str, problem: str = "") -> Html:
    """What Save will write: name, folder, format and size; what is left out and changed, and why."""
    rows = [
        ("Name", tag("b", name)),
        ("Folder", folder),
        ("Format", file_format),
        ("Size", size_html(preview)),
    ]
    items = [tag("div", tag("dt", term), tag("dd", value)) for term, value in rows]
    dropped = [_group_html(group) for group in preview.dropped]
    changed = [_group_html(group) for group in preview.changed]
    nothing = tag("p", "Nothing is left out.") if not dropped else EMPTY
    return join(
        [
            tag("h3", "Save will write"),
            tag("p", problem, class_="model-toolkit-problem") if problem else EMPTY,
            tag("dl", *items, class_="model-toolkit-target"),
            tag("h4", "Left out") if dropped else nothing,
            join(dropped),
            tag("h4", "Changed") if changed else tag("p", "No tensor is changed."),
            join(changed),
            bullets(preview.warnings, "model-toolkit-warnings"),
        ]
    )


def size_html(preview: Preview) -> Html:
    """The size to the byte, and how it compares with the source."""
    exact = tag("b", f"{preview.size:,} bytes", id="model_toolkit_size")
    return join([exact, f" ({human_bytes(preview.size)}), {difference(preview.source_size, preview.size)}"])


def difference(before: int, after: int) -> str:
    """How much smaller or larger a result is than its source (0 bytes: there is none), to the byte."""
    if not before:
        return "a new model"
    if after == before:
        return "as large as the source"
    return f"{counted(abs(before - after), 'byte')} {'fewer' if after < before else 'more'} than the source"


def _group_html(group: Group) -> Html:
    size = f" ({human_bytes(group.bytes)})" if group.bytes else ""
    more = ["…"] if group.count > len(group.examples) else []
    return details(f"{group.count:,} × {group.what}{size}", bullets([*group.examples, *more]))
