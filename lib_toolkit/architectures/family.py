"""What a family of models is: a frozen set of hyperparameters that yields every key with its shape.

Some layouts of one family (ldm and diffusers, say) differ only in what the tensors are called and, rarely,
in the shape of a 1x1 convolution. A family therefore lists each tensor once, with one name per layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar, NamedTuple, TypeAlias, TypeVar

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]
Name: TypeAlias = "str | tuple[str, ...]"
"""A name in every layout alike, or one name per layout."""

_CACHED_TABLES = 160
_CACHED_ENTRIES = 20_000


class Presence(Enum):
    """Whether a complete file has the key: always, usually, or only sometimes (then no example file has it)."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    RARE = "rare"


class Entry(NamedTuple):
    """One tensor: its name and shape in each layout of the family, the native layout first."""

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    presence: Presence


class TableTooLargeError(ValueError):
    """A family would have more tensors than the caller allows; a file with odd keys asks for that."""


class Rows:
    """Collects entries below a prefix (one per layout)."""

    def __init__(
        self, prefixes: tuple[str, ...], entries: list[Entry], limit: int | None, presence: Presence = Presence.REQUIRED
    ) -> None:
        self._prefixes = prefixes
        self._entries = entries
        self._limit = limit
        self._presence = presence

    def _names(self, name: Name) -> tuple[str, ...]:
        # Lists, not generators: this runs for each of the thousands of tensors of each table that is tried.
        if isinstance(name, str):
            return tuple([prefix + name for prefix in self._prefixes])
        return tuple([prefix + part for prefix, part in zip(self._prefixes, name, strict=True)])

    def at(self, name: Name) -> Rows:
        """The rows below ``name``; an empty name in a layout adds nothing to that layout's prefix."""
        parts = (name,) * len(self._prefixes) if isinstance(name, str) else name
        prefixes = [f"{prefix}{part}." if part else prefix for prefix, part in zip(self._prefixes, parts, strict=True)]
        return Rows(tuple(prefixes), self._entries, self._limit, self._presence)

    def marked(self, presence: Presence) -> Rows:
        """The same place, for tensors that need not be there."""
        return Rows(self._prefixes, self._entries, self._limit, presence)

    def put(self, name: Name, *shape: int, shapes: tuple[Shape, ...] | None = None) -> None:
        """One tensor. ``shapes`` gives a shape per layout where they differ. Raises TableTooLargeError."""
        if self._limit is not None and len(self._entries) >= self._limit:
            raise TableTooLargeError(f"more than {self._limit} tensors")
        self._entries.append(Entry(self._names(name), shapes or (shape,) * len(self._prefixes), self._presence))

    def _pair(self, name: Name, width: int, weight: Shape, bias: bool) -> None:
        below = self.at(name)
        below.put("weight", *weight)
        if bias:
            below.put("bias", width)

    def norm(self, name: Name, width: int, bias: bool = True) -> None:
        """A normalisation's scale and, unless told otherwise, shift."""
        self._pair(name, width, (width,), bias)

    def linear(self, name: Name, inputs: int, outputs: int, bias: bool = True) -> None:
        """A linear layer; its weight is [outputs, inputs]."""
        self._pair(name, outputs, (outputs, inputs), bias)

    def conv(self, name: Name, inputs: int, outputs: int, kernel: int = 3, bias: bool = True) -> None:
        """A 2-D convolution; its weight is [outputs, inputs, kernel, kernel]."""
        self._pair(name, outputs, (outputs, inputs, kernel, kernel), bias)


_F = TypeVar("_F", bound="Family")


@dataclass(frozen=True)
class Family(ABC):
    """Base of all families. ``layout`` is one of ``layouts``, of which the first is the native one."""

    written: ClassVar[tuple[str, ...]]
    """The layouts that ``rows`` names, the native one first."""

    derived: ClassVar[Mapping[str, Callable[[str], str]]] = {}
    """Further layouts, whose names follow from the native names."""

    signs: ClassVar[Mapping[str, tuple[str, ...]]]
    """Per layout, how bare keys of the family begin: a cheap test before anything is read."""

    layout: str

    @property
    def layouts(self) -> tuple[str, ...]:
        """All layouts, the native one first."""
        return (*self.written, *self.derived)

    @abstractmethod
    def rows(self, at: Rows) -> None:
        """Put every tensor."""

    @classmethod
    @abstractmethod
    def read(cls: type[_F], shapes: Shapes) -> _F | None:
        """The hyperparameters that bare keys and shapes tell, None where this is no such model.

        Counts are numbers of distinct indices among the keys, so that no single key can ask for much.
        """

    @abstractmethod
    def describe(self) -> str:
        """Name of an unnamed size, such as ``UNET (channels 192, context 512, ...)``."""

    @abstractmethod
    def native_block(self, key: str) -> str:
        """The merge block of a key in the native layout."""

    @abstractmethod
    def native_layer(self, key: str) -> str:
        """The kind of layer of a key in the native layout: attn1, attn2, attn, ff, norm, proj, emb, conv ..."""

    def normal(self) -> Family:
        """The size alone: without flags that only say which tensors may be absent."""
        return self

    def within(self: _F, layout: str) -> _F:
        """The same model in another layout. Raises ValueError for a layout that the family does not have."""
        if layout not in self.layouts:
            raise ValueError(f"{type(self).__name__} has no layout {layout!r}")
        return self if layout == self.layout else replace(self, layout=layout)

    def entries(self, limit: int | None = None) -> tuple[Entry, ...]:
        """All tensors, in all written layouts; in the derived ones too where this is one of them.

        Raises TableTooLargeError when there are more than ``limit``.
        """
        return _entries(self, limit, derived=self.layout in self.derived)

    def table(self, limit: int | None = None, *, rare: bool = True) -> dict[str, Shape]:
        """Key to shape in this layout, optional keys too; without the rare ones if so told."""
        column = self.layouts.index(self.layout)
        return {
            entry.names[column]: entry.shapes[column]
            for entry in self.entries(limit)
            if rare or entry.presence is not Presence.RARE
        }

    def optional(self) -> frozenset[str]:
        """The keys in this layout that a complete file may lack."""
        column = self.layouts.index(self.layout)
        return frozenset(entry.names[column] for entry in self.entries() if entry.presence is not Presence.REQUIRED)

    def renames(self, target: str) -> dict[str, str]:
        """Keys in this layout to keys in the layout ``target``; the inverse is the target's own ``renames``."""
        here, there = self.layouts.index(self.layout), self.layouts.index(target)
        wide = self.within(target) if target in self.derived else self
        return {entry.names[here]: entry.names[there] for entry in wide.entries()}

    def block(self, key: str) -> str | None:
        """The merge block (IN00, M00, OUT11, TIME ...) of a key in this layout, None for an unknown key."""
        native = self._native(key)
        return None if native is None else self.native_block(native)

    def layer(self, key: str) -> str | None:
        """The kind of layer that a key in this layout belongs to, None for an unknown key."""
        native = self._native(key)
        return None if native is None else self.native_layer(native)

    def _native(self, key: str) -> str | None:
        return _native_names(self).get(key)


def _native_root(family: Family) -> Family:
    return family.within(family.layouts[0])


_TABLES: OrderedDict[tuple[Family, bool], tuple[Entry, ...]] = OrderedDict()
_NATIVE: OrderedDict[Family, dict[str, str]] = OrderedDict()


def _entries(family: Family, limit: int | None, derived: bool) -> tuple[Entry, ...]:
    root = _native_root(family)
    known = _TABLES.get((root, derived))
    if known is None:
        if derived:
            known = tuple([_with_derived(entry, root) for entry in _entries(root, limit, derived=False)])
        else:
            collected: list[Entry] = []
            root.rows(Rows(("",) * len(root.written), collected, limit))
            known = tuple(collected)
        if len(known) <= _CACHED_ENTRIES:
            _TABLES[root, derived] = known
            while len(_TABLES) > _CACHED_TABLES:
                _TABLES.pop(next(iter(_TABLES)), None)
    if limit is not None and len(known) > limit:
        raise TableTooLargeError(f"{len(known)} tensors, more than {limit}")
    return known


def _with_derived(entry: Entry, family: Family) -> Entry:
    native = entry.names[0]
    names = (*entry.names, *(rename(native) for rename in family.derived.values()))
    return Entry(names, (*entry.shapes, *(entry.shapes[0],) * len(family.derived)), entry.presence)


def _native_names(family: Family) -> dict[str, str]:
    known = _NATIVE.get(family)
    if known is None:
        known = family.renames(family.layouts[0])
        _NATIVE[family] = known
        while len(_NATIVE) > _CACHED_TABLES:
            _NATIVE.pop(next(iter(_NATIVE)), None)
    return known


def indices(keys: Iterable[str], prefix: str, limit: int = 256) -> list[int]:
    """The distinct numbers that follow ``prefix`` in the keys, in order; the lowest ``limit`` of them.

    Numbers of more than four digits are no layer of any model and are passed over.
    """
    start = len(prefix)
    found: set[int] = set()
    for key in keys:
        if key.startswith(prefix):
            digits = key[start : start + 5].partition(".")[0]
            if digits.isascii() and digits.isdecimal() and len(digits) <= 4:
                found.add(int(digits))
    return sorted(found)[:limit]


def size_of(shapes: Shapes, key: str, axis: int) -> int | None:
    """One dimension of a tensor, None where the key or the dimension is not there or is empty."""
    shape = shapes.get(key)
    return shape[axis] if shape is not None and len(shape) > axis and shape[axis] > 0 else None


def first_size(shapes: Shapes, keys: Iterable[str], axis: int) -> int | None:
    """The dimension by the first of ``keys`` that tells it."""
    return next((size for key in keys if (size := size_of(shapes, key, axis)) is not None), None)
