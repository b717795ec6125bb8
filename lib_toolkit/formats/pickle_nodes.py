"""What a pickle says, as inert data: nothing in here can be called, imported or hashed by a file's will.

Lists, tuples, text, bytes and numbers of a pickle are Python's own. Dicts and sets stay lists of what was put
into them, because hashing values that a file chose can take for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

Pairs: TypeAlias = "list[tuple[object, object]]"


@dataclass(eq=False, slots=True)
class Name:
    """A class or function that a pickle names. It is text; nothing is looked up."""

    module: str
    name: str

    @property
    def text(self) -> str:
        """``module.name``"""
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Mapping:
    """A dict: its pairs in the order in which they were set, repeats included."""

    pairs: Pairs = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Bag:
    """A set or frozenset: its members in file order."""

    items: list[object] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Call:
    """An object that a pickle wants made by calling something, with all that it wants done to it afterwards."""

    callee: object
    args: object
    kwargs: object = None
    state: object = None
    pairs: Pairs = field(default_factory=list)
    items: list[object] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Persistent:
    """A reference to something outside of the pickle: with PyTorch, a storage."""

    identity: object
