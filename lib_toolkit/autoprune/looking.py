"""What lies in the drop folder: models that are ready, files that are still coming, and what is left alone.

Nothing is opened and no link is followed. A file is ready when two looks find the same size and time, and nothing
beside it says that a download goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib_toolkit.autoprune.policy import DONE, FAILED
from lib_toolkit.autoprune.sidecars import Companions, Sidecar, is_sidecar

SUFFIXES = frozenset({".safetensors", ".sft", ".st", ".ckpt", ".pt", ".pth", ".bin"})
"""Endings of model files; what they are is decided by their content."""

PARTIAL = (
    ".part",
    ".partial",
    ".crdownload",
    ".aria2",
    ".tmp",
    ".download",
    ".incomplete",
    ".opdownload",
    ".filepart",
    ".!ut",
    ".!qb",
    ".bc!",
)
"""Endings that browsers and download programs give to files that are not complete."""

_STRAY = (
    "It is not named like a model that is known (.safetensors, .ckpt, .pt, .pth, .bin); give it such an ending if it "
    "is one."
)
_OWN_FILE = re.compile(r"journal(\.\d+)?\.jsonl")
_OWN_FOLDERS = frozenset({DONE.casefold(), FAILED.casefold()})
_MOST = 100_000
_DEEPEST = 16

Mark = tuple[int, int, int]
"""Size, time of the last change in nanoseconds, number on the file system: what a file is while nobody changes it."""


@dataclass(frozen=True)
class Found:
    """A model file of the drop folder. ``name`` is its path below the folder, with ``/``."""

    name: str
    path: Path
    mark: Mark
    sidecars: tuple[Sidecar, ...] = ()

    @property
    def size(self) -> int:
        return self.mark[0]

    @property
    def folder(self) -> Path:
        """Its sub-folder of the drop folder, as a relative path."""
        return Path(self.name).parent


@dataclass(frozen=True)
class Aside:
    """Something that is not taken, and why. ``waits``: it may be taken later."""

    name: str
    size: int
    reason: str
    waits: bool


@dataclass(frozen=True)
class Look:
    """All that lies in the drop folder at one moment."""

    models: tuple[Found, ...] = ()
    aside: tuple[Aside, ...] = ()


@dataclass
class _Folder:
    """One folder's entries, sorted out."""

    files: dict[str, os.stat_result] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)


def look(drop: Path) -> Look:
    """One look; an absent folder is empty. Names come in order."""
    models: list[Found] = []
    aside: list[Aside] = []
    for relative, folder in _walk(drop, aside):
        companions = Companions(folder.files, PARTIAL)
        for name, status in folder.files.items():
            told, path = (relative / name).as_posix(), drop / relative / name
            lower = name.lower()
            if lower.endswith(PARTIAL):
                if not lower.endswith(".aria2"):
                    aside.append(Aside(told, status.st_size, "It is a download that has not ended.", True))
            elif is_model(name):
                if other := companions.download_of(path):
                    why = f"{other} beside it says that a download goes on; delete that file if it has ended."
                    aside.append(Aside(told, status.st_size, why, True))
                else:
                    models.append(Found(told, path, mark_of(status), companions.sidecars(path)))
            elif not (_OWN_FILE.fullmatch(name) or is_sidecar(name)):
                aside.append(Aside(told, status.st_size, _STRAY, False))
    return Look(tuple(sorted(models, key=_order)), tuple(sorted(aside, key=_order)))


def is_model(name: str) -> bool:
    """Whether a file is taken for a model by its name."""
    return Path(name).suffix.lower() in SUFFIXES


def _order(one: Found | Aside) -> tuple[str, str]:
    return one.name.casefold(), one.name


def stable(before: Look, after: Look) -> tuple[list[Found], list[Aside]]:
    """The models of the second look that the first found just so, and those that changed in between."""
    marks: Mapping[str, Mark] = {found.name: found.mark for found in before.models}
    ready, changing = [], []
    for found in after.models:
        if marks.get(found.name) != found.mark:
            changing.append(Aside(found.name, found.size, "It is still being copied or downloaded.", True))
        elif _held(found.path):
            changing.append(Aside(found.name, found.size, "Another program holds it open.", True))
        else:
            ready.append(found)
    return ready, changing


def mark_of(status: os.stat_result) -> Mark:
    """What tells that a file is still the same."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def unchanged(found: Found) -> bool:
    """Whether the file is still what the look found: neither changed nor replaced, moved or made a link."""
    try:
        status = found.path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and mark_of(status) == found.mark


def _walk(drop: Path, aside: list[Aside]) -> Iterator[tuple[Path, _Folder]]:
    pending, count = [(Path(), 0)], 0
    while pending and count < _MOST:
        relative, depth = pending.pop()
        folder = _read(drop / relative, top=depth == 0)
        if depth and "model_index.json" in folder.files:
            aside.append(Aside(relative.as_posix(), 0, "It is a diffusers folder, which is left as it is.", False))
            continue
        count += len(folder.files)
        aside += [Aside((relative / name).as_posix(), 0, why, False) for name, why in folder.others]
        yield relative, folder
        if depth < _DEEPEST:
            pending += [(relative / name, depth + 1) for name in folder.folders]


def _read(path: Path, top: bool) -> _Folder:
    folder = _Folder()
    with contextlib.suppress(OSError), os.scandir(path) as items:
        for item in items:
            if item.name.startswith("."):
                continue
            try:
                # Not item.stat(): on Windows that does not know the file's number.
                status = (path / item.name).lstat()
            except OSError:
                continue  # it went away
            if stat.S_ISREG(status.st_mode):
                folder.files[item.name] = status
            elif item.is_symlink():
                folder.others.append((item.name, "It is a link; links are never followed, moved or removed."))
            elif stat.S_ISDIR(status.st_mode):
                if not (top and item.name.casefold() in _OWN_FOLDERS):
                    folder.folders.append(item.name)
            else:
                folder.others.append((item.name, "It is not a regular file (a pipe, a device …)."))
    return folder


def _held(path: Path) -> bool:
    """Whether a program writes to the file: only Windows tells."""
    if sys.platform != "win32":
        return False
    try:
        os.close(os.open(path, os.O_RDWR | os.O_BINARY))
    except PermissionError:
        return os.access(path, os.W_OK)
    except OSError:
        return False
    return False
