"""The place of a new file: its name, and checks before any work is done for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from lib_toolkit.errors import TakenError, TargetError, UsageError
from lib_toolkit.temporary import temporary_name
from lib_toolkit.ways_out import closed

_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?$", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_LONGEST_NAME = 255
_ROOM = 16 << 20
"""Bytes that a disk keeps free beside the new file."""


def safe_output_name(name: str) -> str:
    """``name`` if it can be a bare file name on every system. Raises UsageError with the reason otherwise."""
    if not name or name in {".", ".."}:
        raise UsageError("The new file needs a name.")
    if bad := _FORBIDDEN.search(name):
        raise UsageError(
            f"{name!r} cannot be a file name: {bad.group()!r} may not stand in it; use letters and digits."
        )
    if name.startswith("."):
        raise UsageError(f"{name!r} begins with a dot, which hides a file; choose another name.")
    if name[-1] in ". " or name[0] == " ":
        raise UsageError(f"{name!r} cannot be a file name on every system: it begins or ends in a blank or a dot.")
    if _RESERVED.match(name):
        raise UsageError(f"{name!r} is a device name on Windows; choose another one.")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{name!r} is not valid text; choose another name.") from None
    if length > _LONGEST_NAME:
        raise UsageError(f"The name {name[:40]!r}… is longer than {_LONGEST_NAME} bytes; choose a shorter one.")
    return name


def free_name(folder: Path, stem: str, ending: str) -> Path:
    """``stem + ending`` in ``folder``, or the first of stem(1), stem(2) … that does not exist.

    What cannot stand in a file name on every system is replaced by ``_``, since a proposed name must be one that
    can be written (a source may well have such a name).
    """
    stem = _usable(stem, ending)
    path, number = folder / f"{stem}{ending}", 0
    while os.path.lexists(path):
        number += 1
        path = folder / f"{stem}({number}){ending}"
    return path


def _usable(stem: str, ending: str) -> str:
    text = _FORBIDDEN.sub("_", stem.encode("utf-8", "replace").decode("utf-8")).lstrip(". ")
    room = _LONGEST_NAME - len(ending.encode()) - len("(9999)")
    text = text.encode()[:room].decode("utf-8", "ignore").rstrip(". ") or "model"
    return f"_{text}" if _RESERVED.match(text + ending) else text


def check_target(
    path: Path,
    size: int,
    sources: tuple[Path, ...] = (),
    force: bool = False,
    in_use: Callable[[Path], bool] | None = None,
    at_once: bool = False,
) -> Path:
    """Make sure that ``size`` bytes can be written to ``path``; returns the path with links resolved.

    ``in_use`` tells of files that may never be replaced (the checkpoint that a WebUI has loaded). ``at_once``: the
    temporary file is made next, which tells whether the folder takes files. Raises
    UsageError for a name that cannot be, TakenError for one that exists, TargetError for everything else; nothing is
    changed on disk.
    """
    refuse_folder(path)
    safe_output_name(path.name)
    folder = path.parent
    if not folder.is_dir():
        raise TargetError(f"The folder {folder} does not exist; make it first, or choose another one.")
    for source in sources:
        if _same_file(path, source):
            raise TargetError(f"{path} is the source itself, which is never overwritten; choose another name.")
    if in_use is not None and in_use(path):
        raise TargetError(f"{path.name} is the model that the WebUI has loaded; choose another name.")
    if os.path.lexists(path):
        if not force:
            raise TakenError(f"{path} exists already; choose another name.")
        path = Path(os.path.realpath(path))  # unlike Path.resolve it takes a loop of links on every Python
    check_room(path, size, path.parent)
    if not at_once:
        _check_rights(path)
    return path


def refuse_folder(path: Path) -> None:
    """Raise TargetError where a folder is named and not a file in it."""
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for names that are too long)
        folder = path if path.name else path.resolve()
        raise TargetError(f"{folder} is a folder; give the name of a file in it.")


def check_room(path: Path, size: int, folder: Path, promised: int = 0) -> None:
    """Raise TargetError where the disk of ``folder`` has no room for the file, once ``promised`` bytes are taken."""
    try:
        free = shutil.disk_usage(folder).free - promised
    except OSError as error:
        raise TargetError(
            f"{path} cannot be written: its folder cannot be used ({error}); mend it, or choose another one."
        ) from None
    if free < size + _ROOM:
        by_then = " by then" if promised > 0 else ""
        raise TargetError(
            f"{path} takes {size:,} bytes, beside which {_ROOM:,} must stay free, and its folder has "
            f"{max(0, free):,} free{by_then}; make room, or choose another disk."
        )


def _check_rights(path: Path) -> None:
    probe = path.parent / temporary_name()
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        probe.unlink(missing_ok=True)  # another process may have taken it for one that a killed writer left
    except OSError as error:
        raise closed(path, error) from None


def _same_file(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return os.path.realpath(path) == os.path.realpath(source)
