"""Which component of a file is meant, and whether it can fill a place in another one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from lib_toolkit.architectures import registry
from lib_toolkit.architectures.components import COMPONENTS, Component
from lib_toolkit.architectures.family import Shape
from lib_toolkit.counting import counted
from lib_toolkit.edits.companions import quantised
from lib_toolkit.errors import FormatError, UsageError
from lib_toolkit.identify import Identification, Match, WrongShape
from lib_toolkit.layouts import Conversion, convert, to_canonical
from lib_toolkit.model import Model

_SHOWN = 3
_EMA = "ema"


_SUFFIXES = {"text_encoder": "clip", "CLIP-XL-L": "clip-l", "CLIP-XL-G": "clip-g"}
"""What a file of a component is called, by class or kind, where it is not called as its kind is."""


def suffix_of(component: Component, layout: str = "") -> str:
    """What the name of a component's file ends in, before the format's ending: ``.vae``, ``-ema.unet`` …"""
    name = _SUFFIXES.get(component.cls) or _SUFFIXES.get(component.kind) or component.kind
    return f"-ema.{name}" if layout == _EMA else f".{name}"


@dataclass(frozen=True)
class Candidate:
    """A component of a source, and what it becomes.

    ``component`` and ``layout`` are those of the result, ``conversion`` its tensors by bare key (None for an export,
    which converts nothing). ``why`` says in words why this one was taken.
    """

    match: Match
    source: Model
    component: Component
    layout: str
    conversion: Conversion | None = None
    why: str = ""

    def sentence(self) -> str:
        """Which component of which file, and why."""
        return f"{self.match.component.name} of {self.source.name}: {self.why}."


@dataclass(frozen=True)
class Place:
    """Where a component of class ``cls`` goes: ``layout`` and ``prefix`` there, ``former`` what is in the way,
    ``preferred`` the component that suits best."""

    cls: str
    prefix: str
    layout: str
    preferred: Component
    former: tuple[Match, ...] = ()


def resolve(name: str, classes: Collection[str]) -> tuple[str, str | None]:
    """The class that ``name`` (of a class, a component, or an id) means, and the component where it names one.

    Where an id belongs to several classes, those in ``classes`` come first. Raises UsageError for an unknown name
    and for one that several classes share.
    """
    known = registry.components(name)
    wanted = name.casefold()
    if any(entry.cls.casefold() == wanted for entry in known):
        return next(entry.cls for entry in known if entry.cls.casefold() == wanted), None
    exact = next((entry for entry in known if entry.name.casefold() == wanted), None)
    if exact is not None:
        return exact.cls, exact.name
    every = list(dict.fromkeys(entry.cls for entry in known))
    here = [cls for cls in every if cls in classes] or every
    if len(here) > 1:
        raise UsageError(f"{name!r} is the id of several classes ({', '.join(here)}); name one of them.")
    return here[0], None


def choose(model: Model, found: Identification, cls: str, component: str | None = None) -> Candidate:
    """The component of ``model`` to export: the named one, or the best complete one of the class.

    A class that only this file has (of a size without a name) is accepted too. Raises UsageError where the class is
    unknown, where the file has no such component, and where it is incomplete, with the first keys that it lacks.
    """
    own = [match for match in found.components if cls.casefold() in _names(match)]
    if not own:
        cls, named = resolve(cls, {match.component.cls for match in found.components})
        own = [match for match in found.components if match.component.cls == cls]
        if not own:
            raise UsageError(f"{model.name} has no {cls}; {_unlike(model, found, cls)}.")
        component = component or named
    elif component is None and all(cls.casefold() != match.component.cls.casefold() for match in own):
        component = cls
    named_ones = _named(model, own, component, cls)
    best = min(named_ones, key=_order)
    if not best.complete:
        raise UsageError(f"{model.name}: its {best.component.name} {_faults(best.missing, best.wrong_shape)}.")
    return Candidate(best, model, best.component, best.layout, why=_why(best, own, component))


def _names(match: Match) -> set[str]:
    component = match.component
    return {component.cls.casefold(), component.name.casefold()}


def _order(match: Match) -> tuple[bool, bool, int]:
    return not match.complete, match.layout == _EMA, -match.bytes


def _unlike(model: Model, found: Identification, cls: str) -> str:
    """What the file has instead of a component of the class; a size without a name may be a truncated one of it."""
    preferred = _of_class(cls)[0]
    near = [match for match in found.components if match.component.kind == preferred.kind and not match.named]
    if not near:
        return _contents(found)
    layout = near[0].layout if near[0].layout in preferred.layouts else preferred.layouts[0]
    return _no_fit(near, Place(cls, near[0].prefix, layout, preferred), model, found)


def _named(model: Model, matches: Sequence[Match], component: str | None, cls: str) -> list[Match]:
    """Those with the name asked for, all of them for no name or ``auto``. Raises UsageError for none."""
    if component is None or component.casefold() == "auto":
        return list(matches)
    named = [match for match in matches if match.component.name.casefold() == component.casefold()]
    if not named:
        names = ", ".join(match.component.name for match in matches)
        raise UsageError(f"{model.name} has no component {component!r} that is a {cls}; it has {names}.")
    return named


def _contents(found: Identification) -> str:
    names = list(dict.fromkeys(match.component.name for match in found.components))
    return f"what it has is {', '.join(names)}" if names else "no component that is known is in it"


def _why(best: Match, own: Sequence[Match], component: str | None) -> str:
    if component is not None and component.casefold() != "auto":
        return "as asked for"
    others = [match for match in own if match is not best]
    if not others:
        return f"the only {best.component.cls} in it"
    names = ", ".join(match.component.name for match in others)
    return f"preferred to {names} (complete before incomplete, EMA copies last, then the largest)"


def find_source(place: Place, source: Model, found: Identification, component: str | None = None) -> Candidate:
    """The component of ``source`` that fills ``place`` best: complete, with the same id, EMA copies last, the largest.

    Raises UsageError with the reason where there is none: no such component, incomplete, or wrong shapes (the first
    keys and both shapes are named).
    """
    fitting = [match for match in found.components if _may_fit(match, place)]
    if not fitting:
        near = [match for match in found.components if match.component.kind == place.preferred.kind]
        raise UsageError(f"{source.name} has no {place.cls}; {_no_fit(near, place, source, found)}.")
    named = _named(source, fitting, component, place.cls)
    candidates = [_try(match, place, source, found) for match in named]
    best = min(candidates, key=lambda tried: _rank(tried, place))
    if best.conversion is None or not best.conversion.complete:
        raise UsageError(f"{source.name}: its {best.match.component.name} {_problem(best)}.")
    return replace(best, why=_why(best.match, fitting, component))


def _may_fit(match: Match, place: Place) -> bool:
    """Of the class, of the same id (one encoder serves several classes), or of a size without a name."""
    own = match.component
    if own.kind != place.preferred.kind:
        return False
    return own.cls == place.cls or own.id in {entry.id for entry in _of_class(place.cls)} or not match.named


def _of_class(cls: str) -> list[Component]:
    return [entry for entry in COMPONENTS if entry.cls == cls and entry.family is not None]


def _targets(place: Place) -> Iterable[Component]:
    """What may stand in the place: every size of the class that has the layout."""
    for entry in (place.preferred, *_of_class(place.cls)):
        if entry.family is not None and place.layout in entry.layouts:
            yield entry


def _try(match: Match, place: Place, source: Model, found: Identification) -> Candidate:
    """The source's component as the size and layout that keep most of it; ``conversion`` None where none is possible,
    with the reason in ``why``."""
    none = Candidate(match, source, place.preferred, place.layout)
    if quantised(source, found, match) and match.layout != place.layout:
        return replace(none, why=f"has quantised layers and cannot be changed from {match.layout} to {place.layout}")
    canonical = to_canonical(match, source.tensors)
    tried: list[Candidate] = []
    for target in _targets(place):
        try:
            conversion = convert(target, place.layout, canonical)
        except FormatError as error:
            none = replace(none, why=f"does not fit: {error}".rstrip("."))
            continue
        tried.append(Candidate(match, source, target, place.layout, _accepted(conversion, match, target)))
    return min(tried, key=_loss, default=none)


def _accepted(conversion: Conversion, match: Match, target: Component) -> Conversion:
    """Packed weights of quantised layers have shapes of their own; identification has judged them already."""
    same = match.complete and match.component.family == target.family
    return replace(conversion, wrong_shape=()) if same else conversion


def _loss(tried: Candidate) -> tuple[int, int]:
    conversion = tried.conversion
    assert conversion is not None
    return len(conversion.missing) + len(conversion.wrong_shape), len(conversion.left_over)


def _rank(tried: Candidate, place: Place) -> tuple[bool, bool, bool, bool, int]:
    own = tried.match.component
    incomplete = tried.conversion is None or not tried.conversion.complete
    other_id = tried.component.id != place.preferred.id
    return incomplete, other_id, tried.match.layout == _EMA, own.cls != place.cls, -tried.match.bytes


def _problem(tried: Candidate) -> str:
    if tried.conversion is None:
        return tried.why
    return _faults(tried.conversion.missing, tried.conversion.wrong_shape)


def _no_fit(near: Sequence[Match], place: Place, source: Model, found: Identification) -> str:
    if not near:
        return _contents(found)
    tried = min((_try(match, place, source, found) for match in near), key=lambda tried: _rank(tried, place))
    return f"its {tried.match.component.name} {_problem(tried)}"


def _faults(missing: Sequence[str], wrong: Sequence[WrongShape]) -> str:
    faults = []
    if wrong:
        shown = "; ".join(
            f"{one.key} is {_text(one.found)} where {_text(one.expected)} is needed" for one in wrong[:_SHOWN]
        )
        faults.append(f"has {counted(len(wrong), 'tensor')} of the wrong shape ({shown}{_more(wrong)})")
    if missing:
        faults.append(
            f"is incomplete: it lacks {counted(len(missing), 'tensor')} ({', '.join(missing[:_SHOWN])}{_more(missing)})"
        )
    return " and ".join(faults) + "; take it from another file"


def _more(things: Sequence[object]) -> str:
    return " …" if len(things) > _SHOWN else ""


def _text(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
