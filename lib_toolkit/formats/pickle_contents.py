"""A walk through the nodes of a pickle: every tensor and value with its dotted path, under stated budgets.

The walk is iterative. Containers may be shared, so that a small pickle can describe an endless tree: what
bounds the work is the number of visits, not that of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from lib_toolkit.formats.pickle_machine import MAX_DEPTH, MAX_PICKLE
from lib_toolkit.formats.pickle_nodes import Bag, Call, Mapping, Name, Persistent
from lib_toolkit.formats.pickle_values import ArrayRef, MalformedError, Opaque, Placeholder, TensorRef
from lib_toolkit.formats.torch_objects import recognise

MAX_VISITS = 1_000_000
MAX_PATH_TEXT = 32 << 20
"""Letters of all paths together."""
_MAX_KEY_PARTS = 8

_SCALARS = frozenset({bool, int, float, complex, str, bytes, type(None)})
_INLINE = frozenset({*_SCALARS, Placeholder})

Ref: TypeAlias = "TensorRef | ArrayRef"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor or value. ``owner`` is the index of the container that it lies in, -1 for none."""

    owner: int
    key: str
    path: str
    value: object


@dataclass(slots=True)
class Container:
    """A dict, list, tuple or object. ``names`` lead to it; ``dicts_only``: through nothing but dicts.

    ``hidden`` containers lie inside of objects that this package does not know.
    """

    names: tuple[str, ...]
    path: str
    dicts_only: bool
    hidden: bool
    tensors: int = 0
    arrays: int = 0


@dataclass(slots=True)
class Contents:
    """All leaves in file order, with the containers that they lie in."""

    leaves: list[Leaf] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)


@dataclass(slots=True)
class _Frame:
    """A container that is being walked through. ``node`` is what it was made of, which may not contain itself."""

    index: int
    node: object
    prefix: str
    children: Iterator[tuple[object, object]]


def walk(root: object) -> Contents:
    """All that hangs on ``root``. Raises MalformedError for cycles, broken tensors and exceeded budgets.

    Lists and tuples of plain values count as one value; the insides of unknown objects are looked through once,
    and there cycles are usual and end the search quietly.
    """
    walker = _Walker()
    walker.visit(None, "", root)
    frames = walker.frames
    while frames:
        frame = frames[-1]
        for key, node in frame.children:
            if walker.visit(frame, key, node):
                break
        else:
            frames.pop()
            walker.on_path.discard(id(frame.node))
    return walker.contents


def key_text(key: object) -> str:
    """A dict's key as text. Raises MalformedError for keys that are containers."""
    if type(key) is str:
        return key
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    if type(key) in _SCALARS:
        return str(key)
    if isinstance(key, Name):
        return key.text
    if isinstance(key, Call) and isinstance(key.callee, Name):
        return f"{key.callee.text}(…)"
    if isinstance(key, tuple) and len(key) <= _MAX_KEY_PARTS and all(type(part) in _SCALARS for part in key):
        return str(key)
    raise MalformedError("a container is used as a key")


class _Walker:
    def __init__(self) -> None:
        self.contents = Contents()
        self.frames: list[_Frame] = []
        self.on_path: set[int] = set()
        self._seen: set[int] = set()
        self._known: dict[int, object] = {}
        self._visits = 0
        self._path_text = 0
        self._bytes = 0

    def visit(self, frame: _Frame | None, key: object, node: object) -> bool:
        """Record a leaf, or begin a container. Returns whether a new frame was pushed."""
        value = node if type(node) in _SCALARS else self._recognise(node)
        text = key_text(key)
        path = text if frame is None else frame.prefix + text
        self._spend(1, len(path))
        if isinstance(value, Opaque):
            self._leaf(frame, text, path, value.placeholder)
            return self._enter(frame, text, path, node, _opaque_children(value.call), hidden=True)
        if isinstance(value, Mapping):
            self._spend(len(value.pairs), 0)
            if value.pairs:
                return self._enter(frame, text, path, node, iter(value.pairs), is_dict=True)
            value = {}
        elif isinstance(value, (list, tuple, Bag)):
            items = value.items if isinstance(value, Bag) else value
            self._spend(len(items), 0)
            inline = self._inline(items)
            if inline is None:
                return self._enter(frame, text, path, node, enumerate(items))
            value = inline
        self._leaf(frame, text, path, value)
        return False

    def _recognise(self, node: object) -> object:
        if not isinstance(node, (Call, Name, Persistent)):
            return node
        known = self._known.get(id(node))
        if known is None:
            known = self._known[id(node)] = recognise(node)
            if isinstance(known, (bytes, str)):
                self._bytes += len(known)
            elif isinstance(known, ArrayRef):
                self._bytes += len(known.data)
            if self._bytes > MAX_PICKLE:
                raise MalformedError("it holds more data than a list of contents may")
        return known

    def _inline(self, items: list[object] | tuple[object, ...]) -> tuple[object, ...] | None:
        """The items as one value, if all of them are plain."""
        values = []
        for item in items:
            value = item if type(item) in _SCALARS else self._recognise(item)
            if type(value) not in _INLINE:
                return None
            values.append(value)
        return tuple(values)

    def _leaf(self, frame: _Frame | None, key: str, path: str, value: object) -> None:
        owner = -1 if frame is None else frame.index
        self.contents.leaves.append(Leaf(owner, key, path, value))
        if frame is not None and isinstance(value, TensorRef):
            self.contents.containers[owner].tensors += 1
        elif frame is not None and isinstance(value, ArrayRef):
            self.contents.containers[owner].arrays += 1

    def _enter(
        self,
        frame: _Frame | None,
        key: str,
        path: str,
        node: object,
        children: Iterator[tuple[object, object]],
        is_dict: bool = False,
        hidden: bool = False,
    ) -> bool:
        above = None if frame is None else self.contents.containers[frame.index]
        hidden = hidden or (above is not None and above.hidden)
        if hidden and (id(node) in self._seen or id(node) in self.on_path):
            return False
        if id(node) in self.on_path:
            raise MalformedError("a container holds itself")
        if len(self.frames) >= MAX_DEPTH:
            raise MalformedError(f"its contents are nested more than {MAX_DEPTH:,} deep")
        if hidden:
            self._seen.add(id(node))
        names = () if above is None else (*above.names, key)
        dicts_only = is_dict and not hidden and (above is None or above.dicts_only)
        # Beyond a few levels no state dict is looked for, and names would grow with the square of the depth.
        self.contents.containers.append(Container(names[:_MAX_KEY_PARTS], path, dicts_only, hidden))
        index = len(self.contents.containers) - 1
        self.frames.append(_Frame(index, node, f"{path}." if above is not None else "", children))
        self.on_path.add(id(node))
        return True

    def _spend(self, visits: int, letters: int) -> None:
        self._visits += visits
        self._path_text += letters
        if self._visits > MAX_VISITS or self._path_text > MAX_PATH_TEXT:
            raise MalformedError("its containers are shared so often that it has no end")


def _opaque_children(call: Call) -> Iterator[tuple[object, object]]:
    """What an unknown object was made from: items, attributes, arguments."""
    yield from call.pairs
    yield from enumerate(call.items)
    if isinstance(call.state, Mapping):
        yield from call.state.pairs
    elif call.state is not None:
        yield "state", call.state
    if call.args != ():
        yield "args", call.args
    if call.kwargs is not None:
        yield "kwargs", call.kwargs
