"""The model files of a host's folders: each once, under a name of its own, and the way back from a name."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.errors import UsageError
from lib_toolkit.hosts.host import CHECKPOINT, MODEL_SUFFIXES, VAE, Entry
from lib_toolkit.reports.numbers import human_bytes
from lib_toolkit.reports.plain import printable

_SEPARATOR = " · "
_MOST_FILES = 20_000
_DEEPEST = 16

_VAE_NAME = re.compile(r"\.vae\.[^.]+$", re.IGNORECASE)
"""Beside checkpoints, WebUIs tell VAEs by name (A1111 sd_models.py:165, sd_vae.py:75)."""


@dataclass(frozen=True)
class Place:
    """A folder with models of a kind. ``shown`` stands before the names of its files; not ``deep``: its sub-folders
    are not looked into."""

    folder: Path
    kind: str
    shown: str
    deep: bool = True


def entries_of(places: Sequence[Place]) -> tuple[Entry, ...]:
    """The model files of all places, by name. A place inside of another counts for itself only."""
    found: list[tuple[str, Path, str]] = []
    for place, path in _walk(places):
        name = path.relative_to(place.folder).as_posix()
        kind = VAE if place.kind == CHECKPOINT and _VAE_NAME.search(path.name) else place.kind
        found.append((f"{place.shown}/{name}" if place.shown else name, path, kind))
        if len(found) == _MOST_FILES:
            break
    return tuple(_named(found))


def find(entries: Iterable[Entry], value: str, where: str) -> Entry:
    """The entry that a label, a name, or the file name of just one entry stands for; ``where`` names the listing.

    Raises UsageError when there is none, or more than one.
    """
    entries = tuple(entries)
    for entry in entries:
        if value.startswith(entry.label + _SEPARATOR):
            return entry  # the list said more of it
    without_size = value.rpartition(_SEPARATOR)[0]
    for wanted in (value, without_size):
        for entry in entries:
            if wanted and wanted in {entry.label, entry.name}:
                return entry
    if not value:
        raise UsageError("No model is chosen; choose one under Source, then press Load.")
    typed = [entry for entry in entries if entry.name.rpartition("/")[2] == value]
    if len(typed) == 1:
        return typed[0]
    if typed:
        names = ", ".join(entry.name for entry in typed[:5])
        raise UsageError(f"{printable(value, 200)} stands for {len(typed)} models ({names}); choose one of the list.")
    raise UsageError(
        f"{printable(value, 200)} is not among the models of {where}: it was moved, renamed or never there; "
        "refresh the list and choose again."
    )


def _named(found: list[tuple[str, Path, str]]) -> Iterator[Entry]:
    """Entries with names that are unique: escaping could make two of them alike."""
    taken = set()
    for shown, path, kind in sorted(found, key=lambda item: (item[0].casefold(), item[0], str(item[1]))):
        try:
            size = path.stat().st_size
        except OSError:
            continue  # it went away, or is a link to nothing
        base = name = printable(shown)
        number = 2
        while name in taken:
            name, number = f"{base} ({number})", number + 1
        taken.add(name)
        yield Entry(name, f"{name}{_SEPARATOR}{human_bytes(size)}", path, size, kind)


def _walk(places: Sequence[Place]) -> Iterator[tuple[Place, Path]]:
    """Model files of the places; linked folders are followed, but none is read twice."""
    roots = {_mark(place.folder) for place in places}
    seen: set[Path | None] = {None}
    for place in places:
        pending = [(place.folder, 0)]
        while pending:
            here, depth = pending.pop()
            mark = _mark(here)
            if mark in seen or (depth and mark in roots):
                continue
            seen.add(mark)
            for path, is_folder in _items(here):
                if not is_folder:
                    yield place, path
                elif place.deep and depth < _DEEPEST:
                    pending.append((path, depth + 1))


def _mark(folder: Path) -> Path | None:
    """What tells a folder apart from all others; None for a loop of links."""
    try:
        return folder.resolve()
    except (OSError, RuntimeError):
        return None


def _items(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The sub-folders (True) and model files of a folder; nothing where it is absent or closed."""
    try:
        items = list(os.scandir(folder))
    except OSError:
        return
    for item in items:
        path = folder / item.name
        try:
            is_folder = item.is_dir()
        except OSError:
            continue
        if is_folder or (path.suffix.lower() in MODEL_SUFFIXES and not item.name.startswith(".")):
            yield path, is_folder


def without_places(text: str, shown: Mapping[Path, str]) -> str:
    """A text, or HTML, with what folders are called in place of their paths, links on the way resolved or not."""
    spelled = {str(path): name for folder, name in shown.items() for path in (folder, os.path.realpath(folder))}
    spelled |= {html.escape(path): name for path, name in spelled.items()}
    spelled = {path: name for path, name in spelled.items() if len(path) > 1}  # the root of all says nothing
    longest_first = "|".join(map(re.escape, sorted(spelled, key=len, reverse=True)))
    # Whole paths alone: a folder called /data is not meant by archive/data/1, nor by /data2.
    found = re.compile(rf"(?<![\w./\\-])(?:{longest_first})(?![\w-])")
    return found.sub(lambda match: spelled[match[0]], text)
