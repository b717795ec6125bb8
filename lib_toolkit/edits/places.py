"""Where a component goes in a model, and what stands there under any of its names."""

from __future__ import annotations

from collections.abc import Iterator

from lib_toolkit.architectures.components import COMPONENTS
from lib_toolkit.architectures.registry import ARCHITECTURES, CHECKPOINTS, Architecture, Part
from lib_toolkit.edits.beginnings import declared
from lib_toolkit.edits.candidates import Place, resolve
from lib_toolkit.edits.companions import companions
from lib_toolkit.errors import UsageError
from lib_toolkit.identify import Identification, Match
from lib_toolkit.plan import Plan


def place_of(plan: Plan, found: Identification, cls: str) -> tuple[Place, str | None]:
    """The place of a class (or of the component or id that ``cls`` names) in the model that is to be.

    Also gives the component where ``cls`` names one. A component that is there keeps its prefix and layout (but
    NovelAI's names become the standard ones, which every loader knows); otherwise they are the architecture's own.
    Raises UsageError where the architecture has no such class, or is not known.
    """
    candidates = list(_architectures(plan, found))
    classes = [name for entry in candidates for name in entry.classes]
    cls, component = resolve(cls, {*classes, *(match.component.cls for match in found.components)})
    part = next((part for entry in candidates for part in entry.parts if part.cls == cls), None)
    own = [match for match in found.components if match.component.cls == cls and match.layout != "ema"]
    if part is None and not own:
        raise UsageError(_refusal(plan, found, cls, candidates))
    home = part.prefix if part is not None else own[0].prefix
    here = next((match for match in own if match.prefix == home), own[0] if own else None)
    return _place(cls, part, here, own, found), component


def _place(cls: str, part: Part | None, here: Match | None, own: list[Match], found: Identification) -> Place:
    preferred = here.component if here is not None else part.component if part is not None else None
    assert preferred is not None
    if here is None or here.layout not in preferred.layouts or here.layout == "nai":
        # The first component of a part is what a new file gets; NAI's twin of a component has the same family.
        if part is not None:
            preferred = part.component
        layout = "hf" if preferred.layouts == ("nai",) else preferred.layouts[0]
    else:
        layout = here.layout
    prefix = here.prefix if here is not None else part.prefix if part is not None else ""
    squatters = [
        match
        for match in found.components
        if match not in own and match.prefix == prefix and match.component.kind == preferred.kind
    ]
    return Place(cls, prefix, layout, preferred, (*own, *squatters))


def _architectures(plan: Plan, found: Identification) -> Iterator[Architecture]:
    """What the model is, or could become: the declared or found architecture, or those that all its parts are in."""
    known = declared(plan)
    if known is not None:
        yield known
        return
    if found.architecture is not None and (found.architecture.kind == "checkpoint" or found.intact):
        yield found.architecture
        return
    places = [match for match in found.components if match.prefix and match.layout != "ema"]
    whole = [entry for entry in CHECKPOINTS if places and all(_holds(entry, match) for match in places)]
    yield from sorted(whole, key=lambda entry: entry.variant_of is not None)


def _holds(entry: Architecture, match: Match) -> bool:
    return any(part.prefix == match.prefix and match.component.name in part.components for part in entry.parts)


def _refusal(plan: Plan, found: Identification, cls: str, candidates: list[Architecture]) -> str:
    name = plan.source.name
    if not candidates and not found.components and found.kind != "unknown":
        return f"{name} is {found.name}, which holds no components: there is no place for a {cls} in it."
    if not candidates:
        return f"{name} is {found.name}, an architecture that is not known: there is no place for a {cls} in it."
    classes = ", ".join(candidates[0].classes) or "none"
    having = [entry.name for entry in ARCHITECTURES if cls in entry.classes and entry.kind == "checkpoint"]
    others = f"; {cls} belongs in {' or '.join(having[:4])}" if having else ""
    return f"{name} is {candidates[0].name}, which has no class {cls} (it has {classes}){others}."


def former_keys(plan: Plan, found: Identification, place: Place) -> dict[str, str]:
    """Keys that go when the place is filled, each with what it was part of.

    The tensors of what stands there, whatever it is called; every name that any size and layout of the class could
    have there (a second naming beside the first); and the companions of all that.
    """
    keys: dict[str, str] = {}
    for match in place.former:
        named = [*match.keys.values(), *companions(found, match)]
        keys |= dict.fromkeys(named, f"part of the former {match.component.name}")
    for entry in COMPONENTS:
        if entry.cls == place.cls and entry.family is not None:
            for layout in entry.layouts:
                for bare in entry.family.within(layout).table():
                    keys.setdefault(place.prefix + bare, f"part of a former {entry.name}")
    return {key: reason for key, reason in keys.items() if key in plan.tensors}
