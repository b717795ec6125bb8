"""What is to become of a model: where it belongs, in which format, and whether anything is to be done at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.autoprune.policy import COMPONENT, Policy
from lib_toolkit.autoprune.steps import Altered, Removed
from lib_toolkit.edits.precision import set_precision
from lib_toolkit.edits.recipes import plan_prune
from lib_toolkit.edits.repair import position_ids
from lib_toolkit.errors import FormatError
from lib_toolkit.identify import Identification, identify
from lib_toolkit.model import Model
from lib_toolkit.plan import Plan, plan_of
from lib_toolkit.reports.plain import printable

AS_IS = ""
"""The format of what stays in the one that it has."""


@dataclass(frozen=True)
class Place:
    """The kind of folder that a kind of model goes to, and the format it gets: that of the policy for ``vae`` and
    ``component``, AS_IS for files whose containers mean something to the programs that read them."""

    folder: str
    format: str = "safetensors"


PLACES: Mapping[str, Place] = {
    "checkpoint": Place("checkpoint"),
    "vae": Place("vae", "vae"),
    "lora": Place("lora"),
    "controlnet": Place("controlnet"),
    "text_encoder": Place("text_encoder", "component"),
    "unet": Place(COMPONENT, "component"),
    "depth": Place(COMPONENT, "component"),
    "embedding": Place("embedding", AS_IS),
    "hypernetwork": Place("hypernetwork", AS_IS),
    "upscaler": Place("upscaler", AS_IS),
    "t2i_adapter": Place("controlnet", AS_IS),
    "ip_adapter": Place("controlnet", AS_IS),
    "motion_module": Place(COMPONENT, AS_IS),
}
"""By the kind that identification tells."""

_NOT_INTACT_IS_USUAL = frozenset({"lora", *(kind for kind, place in PLACES.items() if place.format == AS_IS)})
"""Kinds that are told by a few names alone, so that no table says whether they are whole."""

_CONTAINERS = {"safetensors": "safetensors", "ckpt": "torch-zip"}
_ENDINGS = {"safetensors": ".safetensors", "ckpt": ".pt"}


@dataclass(frozen=True)
class Verdict:
    """What is to be done with an open model. ``as_it_is``: its bytes need no change; the plan then changes nothing."""

    found: Identification
    plan: Plan
    folder: Path
    file_format: str
    ending: str
    as_it_is: bool
    findings: tuple[str, ...]


def judge(model: Model, policy: Policy) -> Verdict:
    """What the policy says of a model; reads a few small tensors. Raises FormatError for one that cannot be used,
    UsageError where nothing of it would be left."""
    found = identify(model)
    place = PLACES.get(found.kind)
    usable = found.intact or found.kind in _NOT_INTACT_IS_USUAL or _lacks_a_vae_alone(model, found)
    if place is None or not usable or (found.lora is not None and found.lora.lame == found.lora.modules):
        raise FormatError(_why_unusable(model, found))
    broken = tuple(ids.sentence() for ids in position_ids(model, found) if not ids.right)
    pickled = model.origin.format != "safetensors"
    if place.format == AS_IS:
        # Other programs look for the containers of a pickle, so that it stays byte for byte; safetensors has none.
        file_format = "ckpt" if pickled else "safetensors"
        plan = plan_of(model) if pickled else set_precision(plan_of(model), found, policy.precision)
        if model.foreign:
            raise FormatError(_why_unsafe(model, found))
        as_it_is, ending = pickled or _needs_nothing(plan, file_format), _own_ending(model)
    else:
        file_format, plan = _file_format(place, policy), plan_prune(model, found, policy.wishes)
        as_it_is, ending = _needs_nothing(plan, file_format), _ENDINGS[file_format]
    mended = () if policy.fix_clip else broken
    findings = (*found.notes, *found.warnings, *mended, *plan.warnings)
    folder = policy.folder(place.folder)
    return Verdict(found, plan, folder, file_format, ending, as_it_is, tuple(dict.fromkeys(findings)))


def _lacks_a_vae_alone(model: Model, found: Identification) -> bool:
    """Whether it is a checkpoint that works with the VAE that a user chooses. Half a VAE would be in its way, and one
    in another place says that something is wrong with the file."""
    if found.kind != "checkpoint" or found.architecture is None or not found.missing_classes:
        return False
    parts = [part for part in found.architecture.parts if part.cls in found.missing_classes]
    there = any(match.component.kind == "vae" for match in found.components)
    if there or any(part.component.kind != "vae" for part in parts):
        return False
    return not any(key.startswith(part.prefix) for part in parts for key in model.tensors)


def _file_format(place: Place, policy: Policy) -> str:
    wished = {"vae": policy.vae_format, COMPONENT: policy.component_format}.get(place.format, place.format)
    return "ckpt" if wished == "pt" else wished


def _own_ending(model: Model) -> str:
    """The ending of the file's name, unless it belies the content."""
    suffix = model.origin.path.suffix
    if model.origin.format == "safetensors":
        return ".safetensors"
    return suffix if suffix.lower() in {".pt", ".pth", ".bin", ".ckpt"} else ".pt"


def _needs_nothing(plan: Plan, file_format: str) -> bool:
    """Whether the file would be written with the same contents. A pickle that names more than tensors need is written
    anew, and so is an archive that older WebUIs refuse: what goes into their folders is safe for them to open."""
    source = plan.source
    same = plan.tensors.keys() == source.tensors.keys() and source.origin.format == _CONTAINERS[file_format]
    return same and not (plan.dropped or plan.changed or source.foreign or source.unusual)


def removed_of(plan: Plan) -> tuple[Removed, ...]:
    """What the plan leaves out, by reason."""
    table: dict[str, Removed] = {}
    for one in plan.dropped:
        before = table.get(one.reason, Removed(one.reason, 0, 0))
        table[one.reason] = Removed(one.reason, before.count + (one.what != "group"), before.bytes + one.bytes)
    return tuple(table.values())


def changed_of(plan: Plan) -> tuple[Altered, ...]:
    """What the plan changes, by the way in which."""
    table: dict[str, int] = {}
    for one in plan.changed:
        what = one.what if "→" in one.what else one.what.split(" from ")[0]
        table[what] = table.get(what, 0) + 1
    return tuple(Altered(what, count) for what, count in table.items())


def _why_unsafe(model: Model, found: Identification) -> str:
    names = printable(", ".join(model.foreign[:3]), 200)
    return (
        f"{model.origin.path} ({found.name}) names what no model needs ({names}), and programs that open it may run "
        "that; nothing was run. Get it as safetensors, or make that of it: "
        "`model-toolkit convert FILE --format safetensors`."
    )


def _why_unusable(model: Model, found: Identification) -> str:
    path = model.origin.path
    if found.lora is not None and found.lora.lame:
        return f"{path} is {found.name}, of which the {found.lora.lacking} are missing in every module; get it again."
    near = f" ({found.rejected[0].name}: {found.rejected[0].reason})" if found.rejected else ""
    if found.missing_classes:
        lacks = ", ".join(found.missing_classes)
        return (
            f"{path} is {found.name}: it lacks, or has only in part, {lacks}{near}; get it again, or complete it "
            "with `model-toolkit import`."
        )
    if found.kind == "unknown":
        return f"What {path} is could not be told{near}; if you know it, move it to its folder yourself."
    return f"{path} is {found.name}, of which no whole model can be made{near}; if you know it, move it yourself."
