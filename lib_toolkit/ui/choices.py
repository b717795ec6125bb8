"""What the Advanced panel offers for a loaded model: architectures, their classes, and the components of a class."""

from __future__ import annotations

from lib_toolkit.architectures.components import COMPONENTS
from lib_toolkit.architectures.registry import CHECKPOINTS
from lib_toolkit.edits.components import new_names, suffix_of
from lib_toolkit.identify import Identification
from lib_toolkit.ui.workspace import AUTO, Aim, Loaded, folder_kind

EXPORT_FORMATS = {"safetensors": ("safetensors", ".safetensors"), "pt": ("ckpt", ".pt")}
"""Formats of components: the format of the file, and its ending."""


def architectures(loaded: Loaded) -> tuple[str, ...]:
    """What the model can be taken for, the chosen one first: other whole architectures in it, and its components."""
    found = loaded.found
    if loaded.draft.is_new and loaded.draft.name in new_names():
        first = loaded.draft.name.partition(" ")[2]
    else:
        first = found.name
    there = {(match.prefix, match.component.name) for match in found.components if match.complete}
    whole = [
        entry.name
        for entry in CHECKPOINTS
        if all(any((part.prefix, name) in there for name in part.components) for part in entry.parts)
    ]
    own = [match.component.cls for match in found.components]
    return tuple(dict.fromkeys((first, *whole, *own)))


def classes(loaded: Loaded, architecture: str) -> tuple[str, ...]:
    """The classes of one of the architectures; for the chosen one also what else is in the model."""
    found = loaded.found
    own = tuple(match.component.cls for match in found.components)
    named = next((entry.classes for entry in CHECKPOINTS if entry.name == architecture), None)
    if named is None and architecture in own:
        return (architecture,)
    if named is None and found.architecture is not None:
        named = found.architecture.classes
    if architecture == architectures(loaded)[0]:
        return tuple(dict.fromkeys((*(named or ()), *own)))
    return named or own


def components(found: Identification, cls: str) -> tuple[str, ...]:
    """``auto``, and those of the class that are in the model."""
    own = (match.component.name for match in found.components if match.component.cls == cls)
    return tuple(dict.fromkeys((AUTO, *own)))


def import_components(cls: str) -> tuple[str, ...]:
    """``auto``, and every component that may fill the place of a class."""
    ids = {entry.id for entry in COMPONENTS if entry.cls == cls}
    kinds = {entry.kind for entry in COMPONENTS if entry.cls == cls}
    fitting = (entry.name for entry in COMPONENTS if entry.cls == cls or (entry.id in ids and entry.kind in kinds))
    return tuple(dict.fromkeys((AUTO, *fitting)))


def aimed(loaded: Loaded, wanted: Aim, before: Aim | None = None) -> Aim:
    """What is wanted, as far as the panel offers it; else what was chosen ``before``, or the first choice."""
    before = before or Aim()
    architecture = _one_of(architectures(loaded), wanted.architecture, before.architecture)
    cls = _one_of(classes(loaded, architecture), wanted.cls, before.cls)
    return Aim(
        architecture,
        cls,
        _one_of(components(loaded.found, cls), wanted.component, before.component),
        _one_of(import_components(cls), wanted.import_component, before.import_component),
    )


def _one_of(offered: tuple[str, ...], *wanted: str) -> str:
    return next((one for one in wanted if one in offered), next(iter(offered), ""))


def kind_of_class(cls: str) -> str:
    """The kind of component that the class is, ``component`` for one that only this file has."""
    return next((entry.kind for entry in COMPONENTS if entry.cls == cls), "component")


def export_kind(found: Identification, cls: str) -> str:
    """The kind of folder that a component of a class of the model goes to."""
    own = (match.component.kind for match in found.components if match.component.cls == cls)
    return folder_kind(next(own, kind_of_class(cls)))


def export_suffix(loaded: Loaded, aim: Aim) -> str:
    """What is added to the model's name for a file of the component: ``.vae``, ``.clip``, ``-ema.unet`` …"""
    own = [match for match in loaded.found.components if match.component.cls == aim.cls]
    named = next((match for match in own if match.component.name == aim.component), None)
    if named is not None:
        return suffix_of(named.component, named.layout)
    first = next((entry for entry in (*(match.component for match in own), *COMPONENTS) if entry.cls == aim.cls), None)
    return suffix_of(first) if first is not None else ""
