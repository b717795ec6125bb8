"""The state that a pickle is read with: stack, marks, memo, and budgets that end the work of forged files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lib_toolkit.formats.pickle_names import PYTHON2_MODULES
from lib_toolkit.formats.pickle_nodes import Name, Persistent

MAX_PICKLE = 256 << 20
"""Bytes of the longest pickle that is read, and so of its longest piece."""
MAX_OPERATIONS = 5_000_000
MAX_NODES = 1_000_000
"""Containers, names and objects; numbers and text are not counted."""
MAX_DEPTH = 1000
"""Containers inside of each other."""
MAX_TEXT = 16 << 20
"""Bytes of one text."""
_MAX_NAME = 4096
_STOP = ord(".")


class BrokenPickleError(Exception):
    """Something no pickler writes; the text, which follows "its list of contents", says what."""


class CutPickleError(Exception):
    """The bytes end in the middle of the pickle."""


class Machine:
    """The state of reading one pickle: a stack, the stacks below its marks, a memo, and what is left to spend."""

    __slots__ = ("below", "data", "end", "memo", "names", "nodes", "persistent", "position", "stack")

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.position = start
        self.end = len(data)
        self.stack: list[object] = []
        self.below: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.names: dict[tuple[str, str], Name] = {}
        self.persistent: list[Persistent] = []
        self.nodes = 0

    def run(self, table: Sequence[Callable[[Machine], None]]) -> object:
        """Carry out the operations of ``table`` (one for each byte value) up to the end; the value left on top."""
        data = self.data
        for _ in range(MAX_OPERATIONS):
            if self.position >= self.end:
                raise CutPickleError
            code = data[self.position]
            self.position += 1
            if code == _STOP:
                return self.stack.pop()
            table[code](self)
        raise BrokenPickleError(f"has more than {MAX_OPERATIONS:,} steps")

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        start, self.position = self.position, self.position + count
        if self.position > self.end:
            raise CutPickleError
        return self.data[start : self.position]

    def byte(self) -> int:
        """The next byte. Most arguments are single bytes, so this is where reading spends its time."""
        position = self.position
        if position >= self.end:
            raise CutPickleError
        self.position = position + 1
        return self.data[position]

    def number(self, width: int) -> int:
        """The next ``width`` bytes as a number."""
        return int.from_bytes(self.take(width), "little")

    def line(self, most: int = MAX_TEXT) -> bytes:
        """A line without its end; the position moves behind it."""
        stop = self.data.find(b"\n", self.position, min(self.end, self.position + most + 1))
        if stop < 0:
            if self.end - self.position <= most:
                raise CutPickleError
            raise BrokenPickleError(f"holds a line of more than {most:,} bytes")
        start, self.position = self.position, stop + 1
        return self.data[start:stop]

    def counted(self, width: int, most: int) -> bytes:
        """Bytes that follow their own length."""
        length = self.number(width)
        if length > most:
            raise BrokenPickleError(f"holds a piece of {length:,} bytes where {most:,} are the most")
        return self.take(length)

    def add(self, node: object) -> None:
        """Put a container, name or object on the stack."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise BrokenPickleError(f"has more than {MAX_NODES:,} parts")
        self.stack.append(node)

    def mark(self) -> None:
        """Begin a new stack above the present one."""
        if len(self.below) >= MAX_DEPTH:
            raise BrokenPickleError(f"is nested more than {MAX_DEPTH:,} deep")
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[object]:
        """Everything above the last mark, which goes."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def put(self, index: int) -> None:
        """Remember what lies on top of the stack."""
        if not 0 <= index < MAX_OPERATIONS:
            raise BrokenPickleError(f"numbers its parts up to {index:,}")
        self.memo[index] = self.stack[-1]

    def name(self, module: str, name: str) -> Name:
        """The one node for a name, by what Python 3 calls its module."""
        module = PYTHON2_MODULES.get(module, module)
        if len(module) + len(name) > _MAX_NAME:
            raise BrokenPickleError(f"names something with more than {_MAX_NAME:,} letters")
        known = self.names.get((module, name))
        if known is None:
            known = self.names[module, name] = Name(module, name)
        return known
