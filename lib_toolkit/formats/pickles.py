"""A reader of pickles that runs nothing: it turns the opcodes into inert nodes, under stated budgets.

Nothing is imported, called, looked up or hashed on behalf of the file; no length or index that a file states
makes this allocate more than the file has bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lib_toolkit.errors import FormatError, IncompleteError, UnsafeFileError
from lib_toolkit.formats.pickle_machine import BrokenPickleError, CutPickleError, Machine
from lib_toolkit.formats.pickle_names import runs_programs
from lib_toolkit.formats.pickle_nodes import Name, Persistent
from lib_toolkit.formats.pickle_opcodes import OPERATIONS


class CutShortError(IncompleteError):
    """The bytes end before the pickle does; with more of them it could be read."""


@dataclass(frozen=True, slots=True)
class Pickle:
    """A pickle that was read: its value, where it ends in the bytes, all references to outside, and all names in it,
    those of things that it makes and throws away included."""

    value: object
    end: int
    persistent: tuple[Persistent, ...]
    names: tuple[Name, ...]


def read_pickle(data: bytes, start: int, label: str) -> Pickle:
    """Read the pickle that begins at ``start``; ``label`` names the file in messages.

    Raises UnsafeFileError when it names something that runs programs, CutShortError when the bytes end too early,
    FormatError when it is damaged or exceeds a budget.
    """
    machine = Machine(data, start)
    try:
        value = machine.run(OPERATIONS)
    except CutPickleError:
        _refuse_programs(machine, label)
        raise CutShortError(
            f"{label} is incomplete: it ends in the middle of its list of contents; get it again."
        ) from None
    except BrokenPickleError as error:
        _refuse_programs(machine, label)
        raise FormatError(f"{label} is damaged or forged: its list of contents {error}; get it again.") from None
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error):
        _refuse_programs(machine, label)
        raise FormatError(
            f"{label} is damaged: its list of contents makes no sense at byte {machine.position:,}; get it again."
        ) from None
    _refuse_programs(machine, label)
    return Pickle(value, machine.position, tuple(machine.persistent), tuple(machine.names.values()))


def shown(text: str, most: int = 100) -> str:
    """Text out of a file, fit for one line of a message: printable and not too long."""
    short = text if len(text) <= most else f"{text[:most]}…"
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def _refuse_programs(machine: Machine, label: str) -> None:
    found = [name.text for name in machine.names.values() if runs_programs(name.module, name.name)]
    if found:
        names = ", ".join(shown(text) for text in found[:3])
        raise UnsafeFileError(
            f"{label} tries to run programs ({names}); nothing was run, but do not open it with anything else: "
            "get the model from a source that you trust, best as safetensors."
        )
