"""Components in a group of keys: probe, read the hyperparameters, generate the table, compare.

A group holds what stands under one prefix. Where a file differs from what its own shapes ask for (it is
truncated, say), the named sizes of the family are compared too, and the smallest distance wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache

from lib_toolkit.architectures import prefixes
from lib_toolkit.architectures.components import COMPONENTS, FAMILIES, Component
from lib_toolkit.architectures.family import Family, Presence, Shape, Shapes, TableTooLargeError
from lib_toolkit.architectures.junk import is_scale, layer_of_scale
from lib_toolkit.identify.evidence import Match, Rejected, WrongShape
from lib_toolkit.tensors import Tensor, nbytes, numel

_HOME_SHARE = 0.1
"""Share of a table that must be there under a prefix that is the component's home (the prefix is evidence)."""

_BARE_SHARE = 0.5
_ALIKE = 0.5
"""Share of a table that must be there for it to be worth a word beside the right one."""

_SPARE_ROWS = 1000
_EXAMPLES = 5
_NEAREST = 3


@dataclass(frozen=True)
class Group:
    """What stands under one prefix: bare key to shape, and the layers that are quantised."""

    prefix: str
    shapes: Shapes
    scales: frozenset[str]
    quantised: frozenset[str]
    _signed: dict[tuple[str, ...], int] = field(default_factory=dict, compare=False, repr=False)

    def signed(self, signs: tuple[str, ...]) -> int:
        """Number of keys that begin as a family's do, scales of quantised layers not counted."""
        known = self._signed.get(signs)
        if known is None:
            known = sum(key.startswith(signs) for key in self.shapes) - sum(
                key.startswith(signs) for key in self.scales
            )
            self._signed[signs] = known
        return known


@dataclass(frozen=True)
class Fit:
    """How one table fits a group. Keys are bare, in the table's layout."""

    component: Component | None
    family: Family
    present: frozenset[str]
    missing: tuple[str, ...]
    missing_optional: tuple[str, ...]
    wrong: tuple[WrongShape, ...]
    extra: int
    required: int
    at_home: bool

    @property
    def distance(self) -> int:
        return len(self.missing) + len(self.wrong)

    @property
    def right(self) -> int:
        """Required keys that are there in the right shape."""
        return self.required - self.distance

    @property
    def share(self) -> float:
        return self.right / max(1, self.required)

    @property
    def reason(self) -> str:
        """Why it is not this, in words."""
        reasons = []
        if self.missing:
            reasons.append(f"missing required keys ({len(self.missing):,} of {self.required:,})")
        if self.wrong:
            reasons.append(f"wrong shapes ({len(self.wrong):,} of {self.required:,})")
        return ", ".join(reasons) or "another name fits better"

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts the better fit first, whatever the order of declarations.

        After a perfect fit comes a named size that only lacks keys (a truncated file), then the least distance.
        Between equals the prefix decides, then the layout, the stricter table, and the plainest name.
        """
        name = self.component.name if self.component else ""
        imperfect = self.distance != 0
        only_lacks = self.component is not None and not self.wrong and not self.extra
        return (
            imperfect,
            imperfect and not only_lacks,
            # What is unexplained counts like what is lacking; the group is one, so that more explained is less left.
            self.distance - len(self.present),
            self.component is None,
            not self.at_home,
            len(self.missing_optional),
            self.family.layouts.index(self.family.layout),
            len(_optional(self.family)),
            len(name),
            name,
        )


@lru_cache(maxsize=256)
def _optional(family: Family) -> frozenset[str]:
    return family.optional()


@lru_cache(maxsize=1)
def _named() -> Mapping[Family, tuple[tuple[Component, Family], ...]]:
    """Named sizes by their normal form in each layout."""
    found: dict[Family, list[tuple[Component, Family]]] = {}
    for component in COMPONENTS:
        for family in component.families():
            found.setdefault(family.normal(), []).append((component, family))
    return {normal: tuple(entries) for normal, entries in found.items()}


def make_group(prefix: str, shapes: Shapes) -> Group:
    """A group of bare keys with their shapes."""
    scales = frozenset(key for key in shapes if is_scale(key))
    return Group(prefix, shapes, scales, frozenset(layer_of_scale(key) for key in scales))


def fit(component: Component | None, family: Family, group: Group) -> Fit | None:
    """Compare one table with a group; None where the table would be far larger than the group."""
    limit = 2 * len(group.shapes) + _SPARE_ROWS
    try:
        entries = family.entries(limit if component is None else None)
    except TableTooLargeError:
        return None
    column, shapes = family.layouts.index(family.layout), group.shapes
    there = [entry for entry in entries if entry.names[column] in shapes]
    absent = [entry for entry in entries if entry.names[column] not in shapes]
    present = frozenset(entry.names[column] for entry in there)
    signs = family.signs[family.layout]
    return Fit(
        component=component,
        family=family,
        present=present,
        missing=tuple(entry.names[column] for entry in absent if entry.presence is Presence.REQUIRED),
        missing_optional=tuple(entry.names[column] for entry in absent if entry.presence is Presence.OPTIONAL),
        wrong=tuple(_wrong_shapes(((entry.names[column], entry.shapes[column]) for entry in there), group)),
        extra=group.signed(signs) - sum(key.startswith(signs) for key in present),
        required=sum(entry.presence is Presence.REQUIRED for entry in entries),
        at_home=component is not None and group.prefix in component.homes,
    )


def _wrong_shapes(expected: Iterable[tuple[str, Shape]], group: Group) -> Iterator[WrongShape]:
    for key, shape in expected:
        found = group.shapes[key]
        if found != shape and not _packed(key, group):
            yield WrongShape(key, shape, found)


def _packed(key: str, group: Group) -> bool:
    """Quantised layers store their weights packed, in shapes of their own."""
    return key.rpartition(".")[0] in group.quantised


def find_components(group: Group, hints: Sequence[Family] = ()) -> tuple[list[Fit], list[Rejected]]:
    """The components in a group, none of which share a key, and what was close but is not it.

    ``hints`` are sizes to try where the keys themselves do not tell (EMA copies of a UNet in the same file).
    """
    fits: list[Fit] = []
    nearest: list[Fit] = []
    for family in FAMILIES:
        layouts = _layouts_in(family, group)
        if layouts:
            hint = next((entry for entry in hints if type(entry) is family and entry.layout in layouts), None)
            found = _fits(family, layouts, group, hint)
            fits += found[:1]
            nearest += found[1:]
    chosen: list[Fit] = []
    taken: set[str] = set()
    for candidate in sorted(fits, key=lambda entry: (-entry.right * entry.share, entry.order)):
        home = _is_home(candidate, group.prefix)
        if candidate.share >= (_HOME_SHARE if home else _BARE_SHARE) and not candidate.present & taken:
            chosen.append(candidate)
            taken |= candidate.present
        else:
            nearest.append(candidate)
    return chosen, _rejections(nearest, chosen)


def _is_home(candidate: Fit, prefix: str) -> bool:
    """An unnamed size is at home where the named ones of its family are."""
    if candidate.component is not None:
        return candidate.at_home
    kind = type(candidate.family)
    return any(prefix in component.homes for component in COMPONENTS if type(component.family) is kind)


def _layouts_in(family: type[Family], group: Group) -> tuple[str, ...]:
    everything = tuple(sign for signs in family.signs.values() for sign in signs)
    hits = [key for key in group.shapes if key.startswith(everything)]
    return tuple(
        layout
        for layout, signs in family.signs.items()
        if (layout == "ema") == (group.prefix == prefixes.EMA) and any(key.startswith(signs) for key in hits)
    )


def _fits(kind: type[Family], layouts: Sequence[str], group: Group, hint: Family | None) -> list[Fit]:
    """All fits that are worth telling, the best first."""
    read = kind.read(group.shapes) or hint
    fits: list[Fit] = []
    if read is not None:
        same: Sequence[tuple[Component | None, Family]] = _named().get(read.normal(), ()) or ((None, read),)
        fits = [found for entry in same if (found := fit(*entry, group))]
    if not any(found.distance == 0 and found.component for found in fits):
        tried = {found.family for found in fits}
        others = (entry for entry in _of_kind(kind, layouts) if entry[1] not in tried)
        fits += [found for entry in others if (found := fit(*entry, group))]
    elif read is not None and read.layout != "ema":
        fits += [found for entry in _siblings(read, kind) if (found := fit(*entry, group))]
    return sorted(fits, key=lambda found: found.order)


def _of_kind(kind: type[Family], layouts: Sequence[str]) -> Iterator[tuple[Component, Family]]:
    for entries in _named().values():
        for component, family in entries:
            if type(family) is kind and family.layout in layouts:
                yield component, family


def _siblings(read: Family, kind: type[Family]) -> Iterator[tuple[Component, Family]]:
    """Named sizes that differ in one hyperparameter only: the variants that a user may have in mind."""
    own = read.normal()
    for component, family in _of_kind(kind, (read.layout,)):
        other = family.normal()
        differing = sum(getattr(own, item.name) != getattr(other, item.name) for item in fields(own))
        if differing == 1 and component.kind == "unet":
            yield component, family


def _rejections(nearest: Iterable[Fit], chosen: Sequence[Fit]) -> list[Rejected]:
    """The nearest other sizes: those with the most alike keys first, then the most alike shapes."""
    settled = any(entry.component for entry in chosen)
    names = {entry.component.name for entry in chosen if entry.component}
    rejected: dict[str, Rejected] = {}
    for candidate in sorted(nearest, key=lambda fit: (len(fit.missing) + fit.extra, len(fit.wrong), fit.order)):
        name = candidate.component.name if candidate.component else candidate.family.describe()
        if not candidate.right or candidate.distance == 0 or name in names or name in rejected:
            continue
        if settled and (candidate.component is None or candidate.share < _ALIKE or candidate.family.layout == "ema"):
            continue
        keys = (*candidate.missing, *(wrong.key for wrong in candidate.wrong))
        rejected[name] = Rejected(name, candidate.reason, keys[:_EXAMPLES])
        if len(rejected) >= _NEAREST:
            break
    return list(rejected.values())


def to_match(found: Fit, group: Group, tensors: Mapping[str, Tensor]) -> Match:
    """The evidence in terms of the file: its own keys, counts and bytes."""
    family, prefix = found.family, group.prefix
    native = family.renames(family.layouts[0])
    keys = {native[key]: prefix + key for key in native if key in found.present}
    own = [tensors[key] for key in keys.values()]
    return Match(
        component=found.component or unnamed(family),
        prefix=prefix,
        layout=family.layout,
        keys=keys,
        missing=tuple(prefix + key for key in found.missing),
        missing_optional=tuple(prefix + key for key in found.missing_optional),
        wrong_shape=tuple(WrongShape(prefix + wrong.key, wrong.expected, wrong.found) for wrong in found.wrong),
        required=found.required,
        named=found.component is not None,
        tensors=len(own),
        parameters=sum(numel(tensor) for tensor in own),
        bytes=sum(nbytes(tensor) for tensor in own),
    )


_KINDS = {
    "UNet": ("unet", "UNET"),
    "KLVAE": ("vae", "VAE"),
    "CLIPText": ("text_encoder", "CLIP"),
    "OpenCLIPText": ("text_encoder", "CLIP"),
    "ControlNet": ("controlnet", "ControlNet"),
    "DPTHybrid": ("depth", "Depth"),
}


def unnamed(family: Family) -> Component:
    """A component for a size that has no name: it is described instead."""
    kind, cls = _KINDS[type(family).__name__]
    return Component(family.describe(), cls, "", kind, family, (family.layout,))
