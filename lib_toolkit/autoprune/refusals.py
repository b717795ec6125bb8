"""What keeps a folder from taking a file, seen without a change to it."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lib_toolkit.errors import TargetError
from lib_toolkit.target import check_room
from lib_toolkit.ways_out import closed


def stands_in_the_way(folder: Path) -> str:
    """What keeps a folder from being at a path, or from being made there: a file, a link; empty where nothing does."""
    there = _there(folder)
    if os.path.isdir(there) or not os.path.lexists(there):  # noqa: PTH112 (which never raises)
        return ""  # where there is nothing, not even a disk, the system says so itself
    return (
        f"{'it' if there == folder else there} is a {'link that leads to no folder' if there.is_symlink() else 'file'}"
    )


def check_folder(folder: Path) -> None:
    """Raise TargetError where no folder can be."""
    if what := stands_in_the_way(folder):
        raise TargetError(f"The folder {folder} cannot be made: {what}; take that away, or choose another folder.")


@dataclass
class Room:
    """The disks that files would go to one after another. ``_used``: bytes that those before would take, by disk."""

    _used: Counter[int] = field(default_factory=Counter)

    def take(self, path: Path, size: int, source: Path, stays: bool, as_it_is: bool) -> None:
        """What a run would find that writes ``size`` bytes to ``path``, or brings the source itself there
        (``as_it_is``), after which the source ``stays`` on its disk or not. Raises TargetError where it would not go.
        """
        check_folder(path.parent)
        there = _there(path.parent)
        if not os.access(there, os.W_OK | os.X_OK):
            number = errno.EROFS if _is_read_only(there) else errno.EACCES
            raise closed(path, OSError(number, os.strerror(number)))
        here, target = source.stat(), there.stat().st_dev
        if as_it_is and not stays and here.st_dev == target:
            return  # it is renamed
        check_room(path, size, there, self._used[target])
        self._used[target] += size
        if not stays:
            self._used[here.st_dev] -= here.st_size


def _there(folder: Path) -> Path:
    """The folder, or the innermost of those above it that there is."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)


def _is_read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
