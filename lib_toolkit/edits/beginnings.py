"""New models: an empty one of any architecture, filled by imports, and what it still lacks."""

from __future__ import annotations

from pathlib import Path

from lib_toolkit.architectures.registry import CHECKPOINTS, Architecture, architecture
from lib_toolkit.identify import Identification, identify
from lib_toolkit.model import Model, Origin
from lib_toolkit.plan import Plan

_NEW = "NEW "


def new_names() -> tuple[str, ...]:
    """What can be begun anew, as lists of models show it: ``NEW SD-v1`` …"""
    return tuple(_NEW + entry.name for entry in CHECKPOINTS)


def new_plan(name: str) -> Plan:
    """An empty model of the architecture with this name or id (``NEW `` before it does no harm).

    It holds nothing, not even schedule buffers; imports fill it. Raises UsageError for an unknown name.
    """
    wanted = architecture(name.removeprefix(_NEW))
    return Plan(
        source=Model({}, Origin(Path(_NEW + wanted.name), "new", 0)),
        tensors={},
        metadata={},
        operations=(f"new {wanted.name}",),
    )


def declared(plan: Plan) -> Architecture | None:
    """The architecture that a new model was begun as, None for a plan that began with a file."""
    return architecture(plan.source.origin.path.name.removeprefix(_NEW)) if plan.is_new else None


def missing_classes(plan: Plan, found: Identification | None = None) -> tuple[str, ...]:
    """The classes that the model that is to be lacks; empty for an intact one.

    ``found`` is what ``plan.as_model()`` is, where the caller knows it already.
    """
    found = found or identify(plan.as_model())
    wanted = declared(plan) or (None if found.intact else found.architecture)
    if wanted is None or not wanted.parts:
        return found.missing_classes
    there = {(match.prefix, match.component.cls) for match in found.components if match.complete}
    lacking = tuple(part.cls for part in wanted.parts if (part.prefix, part.cls) not in there)
    return lacking or found.missing_classes
