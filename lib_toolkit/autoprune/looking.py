"""What lies in the drop folder: models that are ready, files that are still coming, and what is left alone.

Nothing is opened and no link is followed. A file is ready when two looks find the same size and time, and nothing
beside it says that a download goes on.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lib_toolkit.autoprune.downloads import Downloads, is_state, of_download
from lib_toolkit.autoprune.folding import folded
from lib_toolkit.autoprune.policy import DONE, FAILED
from lib_toolkit.autoprune.sidecars import Companions, Sidecar, bases_of
from lib_toolkit.autoprune.strays import NAMES_OF_SYSTEMS, why_left
from lib_toolkit.autoprune.writers import is_held

SUFFIXES = frozenset({".safetensors", ".sft", ".st", ".ckpt", ".pt", ".pth", ".bin"})
"""Endings of model files; what they are is decided by their content."""

_COMING = "It is a download that has not ended."
_COMING_FOLDER = "It is named like the folder of a download that has not ended; rename it if it is none."
_LINK = "It is a link; links in the drop folder are never followed, moved or removed."
_LONELY = "It is named like what belongs to a model, but no model of its name lies here; put it beside its model."
_SECOND = "Another file of nearly the same name follows the model that it belongs to; give it another name."
_TOO_DEEP = "It lies more than {} folders deep and was not looked into; move it further up."
_TOO_MANY = "More than {:,} files lie in the drop folder; this folder was not looked into before others are dealt with."

_OWN_FILE = re.compile(r"journal(\.\d+)?\.jsonl|.+\.why\.txt")
_OWN_FOLDERS = {name.casefold(): name for name in (DONE, FAILED)}
_MOST = 100_000
_DEEPEST = 16

_FRESH = 60.0
"""Seconds after its last change in which a file that ends too early is taken for one that still comes: programs that
load over a network give up, or go on, within about as long."""

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
    trouble: str = ""


def look(drop: Path) -> Look:
    """One look; an absent folder is empty. Names come in order."""
    models: list[Found] = []
    aside: list[Aside] = []
    for relative, folder in _walk(drop, aside):
        _sort_out(drop, relative, folder, models, aside)
    return Look(tuple(sorted(models, key=_order)), tuple(sorted(aside, key=_order)))


def _sort_out(drop: Path, relative: Path, folder: _Folder, models: list[Found], aside: list[Aside]) -> None:
    """What the files of one folder are."""
    downloads = Downloads(folder.files, SUFFIXES)
    named = [name for name in folder.files if is_model(name) and name not in downloads]
    companions = Companions(folder.files, named)
    there = {folded(base) for name in named for base in (name, Path(name).stem)}
    strange: dict[str, Aside] = {}
    for name, status in folder.files.items():
        told, path = (relative / name).as_posix(), drop / relative / name
        if name in downloads:
            if not is_state(name):
                aside.append(Aside(told, status.st_size, _COMING, True))
        elif is_model(name):
            if sign := downloads.of(name):
                why = f"{sign} beside it says that a download goes on; delete that file if it has ended."
                aside.append(Aside(told, status.st_size, why, True))
            else:
                models.append(Found(told, path, mark_of(status), companions.sidecars(path)))
        elif bases := bases_of(name):
            if not (name in companions or _OWN_FILE.fullmatch(name) or any(map(downloads.expects, bases))):
                why = _SECOND if any(folded(base) in there for base in bases) else _LONELY
                strange[name] = Aside(told, status.st_size, why, False)
        elif not (_OWN_FILE.fullmatch(name) or name.lower() in NAMES_OF_SYSTEMS):
            aside.append(Aside(told, status.st_size, why_left(name), False))
    # What belongs to something else that is told of already (a link, a GGUF file …) needs no sentence of its own.
    others = [*(name for name, _ in folder.others), *(name for name in folder.files if not bases_of(name))]
    known = {folded(base) for name in others if name not in named for base in (name, Path(name).stem)}
    aside += [one for name, one in strange.items() if known.isdisjoint(map(folded, bases_of(name)))]


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
        elif is_held(found.path):
            changing.append(Aside(found.name, found.size, "Another program holds it open.", True))
        else:
            ready.append(found)
    return ready, changing


def mark_of(status: os.stat_result) -> Mark:
    """What tells that a file is still the same."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def sight(path: Path) -> Mark | None:
    """The mark of the regular file at the path now, None where there is none: taken before a file is read, it tells
    afterwards whether another one was put in its place."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return mark_of(status) if stat.S_ISREG(status.st_mode) else None


def is_fresh(found: Found) -> bool:
    """Whether it was written to so lately that more of it may come, after a pause of the network for instance."""
    return abs(time.time() - found.mark[1] / 1e9) < _FRESH  # clocks of shared disks may be ahead


def unchanged(found: Found) -> bool:
    """Whether the file is still what the look found: neither changed nor replaced, moved or made a link."""
    return sight(found.path) == found.mark


def looks_into(folder: Path, drop: Path) -> bool:
    """Whether what lies in the folder, there or not, is found in the drop folder (whose links are resolved)."""
    real = Path(os.path.realpath(folder))
    if not real.is_relative_to(drop):
        return False
    below = real.relative_to(drop).parts
    if not below or below[0].casefold() not in _OWN_FOLDERS:
        return True
    return os.path.lexists(drop / below[0]) and not _is_own(drop, below[0])


def _walk(drop: Path, aside: list[Aside]) -> Iterator[tuple[Path, _Folder]]:
    pending, count = [(Path(), 0)], 0
    while pending:
        relative, depth = pending.pop()
        if depth > _DEEPEST or count >= _MOST:
            why = _TOO_DEEP.format(_DEEPEST) if depth > _DEEPEST else _TOO_MANY.format(_MOST)
            aside.append(Aside(relative.as_posix(), 0, why, False))
            continue
        folder = _read(drop / relative, top=depth == 0)
        if folder.trouble:
            aside.append(Aside(relative.as_posix(), 0, folder.trouble, False))
        if depth and "model_index.json" in folder.files:
            aside.append(Aside(relative.as_posix(), 0, "It is a diffusers folder, which is left as it is.", False))
            continue
        count += len(folder.files)
        aside += [Aside((relative / name).as_posix(), 0, why, False) for name, why in folder.others]
        yield relative, folder
        for name in folder.folders:
            if of_download(name) is not None:
                aside.append(Aside((relative / name).as_posix(), 0, _COMING_FOLDER, True))
            else:
                pending.append((relative / name, depth + 1))


def _read(path: Path, top: bool) -> _Folder:
    folder = _Folder()
    try:
        with os.scandir(path) as items:
            for item in items:
                if not ((top and _is_own(path, item.name)) or item.name.startswith(".")):
                    _take(folder, path, item.name)
    except FileNotFoundError:
        pass  # the drop folder was not made yet, or this one went away
    except OSError as error:
        folder.trouble = f"The folder cannot be read ({error.strerror}); give it the rights, or check the disk."
    return folder


def _is_own(drop: Path, name: str) -> bool:
    """Whether it is Done or Failed, also by a name in other letters where the disk takes that for the same. They may be
    links, to another disk for instance."""
    own = _OWN_FOLDERS.get(name.casefold(), "")
    if not own or not os.path.isdir(drop / name):  # noqa: PTH112 (Path.is_dir may raise)
        return False
    with suppress(OSError):
        return name == own or (drop / name).samefile(drop / own)
    return False


def _take(folder: _Folder, path: Path, name: str) -> None:
    try:
        # Not DirEntry.stat(): on Windows that does not know the file's number.
        status = (path / name).lstat()
    except FileNotFoundError:
        return  # it went away
    except OSError as error:
        folder.others.append((name, f"It cannot be looked at ({error.strerror}); give its folder the rights."))
        return
    if stat.S_ISREG(status.st_mode):
        folder.files[name] = status
    elif stat.S_ISLNK(status.st_mode):
        folder.others.append((name, _LINK))
    elif stat.S_ISDIR(status.st_mode):
        folder.folders.append(name)
    else:
        folder.others.append((name, "It is not a regular file (a pipe, a device …)."))
