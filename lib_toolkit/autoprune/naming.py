"""Names in the target folder: usable on every system, free for the model and all of its sidecars, one number for all.

Names that differ in their letters' form alone count as one (``folding``).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lib_toolkit.autoprune.folding import folded
from lib_toolkit.autoprune.sidecars import Sidecar
from lib_toolkit.errors import TargetError, UsageError
from lib_toolkit.target import safe_output_name

_UNUSABLE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
_LONGEST = 255
_ROOM = len("(99999)")
_MOST_FOLDERS = 100
_TRIES = 20
"""Names that may prove to be taken, one after another, before no more are tried: for each of them a model may have been
written in vain."""


@dataclass(frozen=True)
class Group:
    """A model and its sidecars under one name in a folder; ``number`` 0 stands for no number."""

    folder: Path
    stem: str
    ending: str
    sidecars: tuple[Sidecar, ...] = ()
    number: int = 0

    @property
    def model(self) -> Path:
        number = f"({self.number})" if self.number else ""
        return self.folder / f"{self.stem}{number}{self.ending}"

    def place(self, sidecar: Sidecar) -> Path:
        """Where a sidecar goes."""
        return self.folder / sidecar.name_for(self.model)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.model.name, *(self.place(sidecar).name for sidecar in self.sidecars))

    @property
    def places(self) -> frozenset[Path]:
        """One path for each of the names, the same for names that count as one."""
        return frozenset(self.folder / folded(name) for name in self.names)


def free_group(group: Group, begin: int = 0, more: Callable[[str], tuple[str, ...]] = lambda name: ()) -> Group:
    """The group with the first number from ``begin`` on at which every one of its names is free.

    ``more`` gives further names that a model of the given name needs. Folders are listed once a second at most, since
    a thousand files would else list a thousand names each: ``note`` what was made, ``forget`` where a free name proved
    to be taken.
    """
    taken, sure = _taken(group.folder), False
    number = begin
    while True:
        numbered = replace(group, number=number)
        names = (*numbered.names, *more(numbered.model.name))
        if taken is None:  # the folder does not show its names: each of them is asked for
            free = not any(os.path.lexists(group.folder / name) for name in names)
            sure = True
        else:
            free = taken.isdisjoint(map(folded, names))
        if free:
            return numbered
        if sure:
            number += 1
        else:
            forget(group.folder)  # a file may have gone meanwhile
            taken, sure = _taken(group.folder), True


class Names:
    """The names that a group may get, one after another: what proved to be taken is not offered again, whatever the
    folder shows of it."""

    def __init__(self, group: Group) -> None:
        """They begin with the group's own number."""
        self._group, self._begin, self._left = group, group.number, _TRIES

    def free(self) -> Group:
        """The group with the first number that is free, as far as can be seen."""
        return free_group(self._group, self._begin)

    def refuse(self, group: Group) -> None:
        """One of its names proved to be taken. Raises TargetError when that went on for too long."""
        forget(group.folder)
        self._begin = group.number + 1
        self._left -= 1
        if not self._left:
            raise TargetError(
                f"{_TRIES} names that {group.folder} does not show proved to be taken, last {group.model.name}; "
                "give the folder the rights to be listed, or choose another one."
            )


def note(group: Group) -> None:
    """The group has come into being."""
    _, names = _LISTED.get(group.folder, (0.0, None))
    if names is not None:
        names.update(map(folded, group.names))


def forget(folder: Path) -> None:
    """What is known of the folder is out of date."""
    _LISTED.pop(folder, None)


def usable(stem: str, ending: str, sidecars: tuple[Sidecar, ...] = ()) -> str:
    """``stem``, changed as little as makes it a file name on every system, with its ending and those of sidecars."""
    longest = max([0, *(len(f"{ending if one.whole else ''}{one.ending}".encode()) for one in sidecars)])
    room = _LONGEST - _ROOM - max(longest, len(ending.encode()))
    stem = _UNUSABLE.sub("_", stem).lstrip(" .").rstrip(" .")
    while len(stem.encode()) > room:
        stem = stem[:-1]
    stem = stem.rstrip(" .") or "model"
    with suppress(UsageError):
        safe_output_name(stem + ending)
        return stem
    return f"_{stem}"  # a device name


_FRESH = 1.0
_LISTED: dict[Path, tuple[float, set[str] | None]] = {}


def _taken(folder: Path) -> set[str] | None:
    """The names in the folder; None where it does not show them."""
    now = time.monotonic()
    if folder not in _LISTED or now - _LISTED[folder][0] > _FRESH:
        names: set[str] | None
        try:
            names = {folded(name) for name in os.listdir(folder)}  # noqa: PTH208 (a thousand paths are not needed)
        except FileNotFoundError:
            names = set()
        except OSError:
            names = None
        if len(_LISTED) >= _MOST_FOLDERS:
            _LISTED.clear()
        _LISTED[folder] = now, names
    return _LISTED[folder][1]
