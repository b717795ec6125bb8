"""Whether two paths lead to one file: who removes one of them must know whether what it holds stays.

A link, a folder that is reached by two paths, and a disk that numbers every file 0 make one file look like two, or two
like one. Where nothing is sure, neither ``have_two_names`` nor ``are_apart`` is true.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lib_toolkit.autoprune.folding import folded


def have_two_names(one: Path, other: Path) -> bool:
    """Whether these are two names of one file, which is there by either when the other goes."""
    first, second = _regular(one), _regular(other)
    if first is None or second is None or min(first.st_nlink, second.st_nlink) < 2:
        return False
    same = _have_one_number(first, second) and _size_and_time(first) == _size_and_time(second)
    return same and not _is_one_name(one, other)


def are_apart(one: Path, other: Path) -> bool:
    """Whether these are two files, neither of them a link: each is there when the other goes."""
    first, second = _regular(one), _regular(other)
    if first is None or second is None:
        return False
    if first.st_ino and second.st_ino:
        return not _have_one_number(first, second)
    return not _is_one_name(one, other)


def is_one_folder(one: Path, other: Path) -> bool:
    """Whether two paths lead to one folder."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return _have_one_number(one.stat(), other.stat())
    except OSError:
        return False


def is_link_to(link: Path, path: Path) -> bool:
    """Whether a symbolic link ends at the file ``path``, and would lead nowhere without it."""
    return link.is_symlink() and not are_apart(Path(os.path.realpath(link)), path)


def _regular(path: Path) -> os.stat_result | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _have_one_number(one: os.stat_result, other: os.stat_result) -> bool:
    """Some network shares and FUSE disks number every file 0, which says nothing."""
    return one.st_ino != 0 and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _size_and_time(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _is_one_name(one: Path, other: Path) -> bool:
    """Whether both are the same name in the same folder, by whichever path that is reached. Names that differ in their
    letters' form alone count as one, as they do on some disks."""
    return folded(one.name) == folded(other.name) and is_one_folder(one.parent, other.parent)
