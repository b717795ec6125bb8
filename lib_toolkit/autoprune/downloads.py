"""Files that are still coming, told by the names that browsers and download programs give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lib_toolkit.autoprune.folding import folded

ENDINGS = (
    ".part",
    ".partial",
    ".crdownload",
    ".aria2",
    ".aria2__temp",
    ".tmp",
    ".download",
    ".downloading",
    ".fdmdownload",
    ".incomplete",
    ".lock",
    ".lftp-pget-status",
    ".opdownload",
    ".filepart",
    ".ytdl",
    ".dtapart",
    ".xltd",
    ".xltd.cfg",
    ".td",
    ".td.cfg",
    ".!ut",
    ".!qb",
    ".bc!",
    ".jc!",
    ".ob!",
)
"""What they put behind the name of a file that is not complete, or of one beside it that remembers how far it is."""

_PIECE = re.compile(r"\.part(\.?\d+|-frag\d+(\.part)?)$", re.IGNORECASE)
"""Pieces of one file that come side by side."""

_STATES = (".aria2", ".aria2__temp", ".st", ".lock", ".lftp-pget-status", ".ytdl")
"""Those that say no more than what the file beside them is told of."""

_AXEL = ".st"
"""That of axel's state, and of models too: it is a state only beside the file that its name begins with."""

_RANDOM = re.compile(r"(?=.*[A-Z])(?=.*[a-z0-9])[\w-]{4,}", re.ASCII)
"""What browsers put into the name of a download, unlike the words that people put there."""


class Downloads:
    """The downloads of one folder by what they are of, so that each model finds its own at once."""

    def __init__(self, names: Iterable[str], suffixes: frozenset[str]) -> None:
        """``names`` of the folder's files and folders; ``suffixes`` of models."""
        names = list(names)
        models = {folded(name) for name in names if Path(name).suffix.lower() in suffixes}
        self._of: dict[str, str] = {}
        self._signs: set[str] = set()
        self._expected: set[str] = set()
        for name in names:
            whole = of_download(name)
            if whole is None and name.lower().endswith(_AXEL) and folded(name[: -len(_AXEL)]) in models:
                whole = name[: -len(_AXEL)]
            if whole is not None:
                self._signs.add(name)
                for model in _possible(whole):
                    self._of.setdefault(folded(model), name)
                    self._expected |= {folded(model), folded(Path(model).stem)}

    def __contains__(self, name: str) -> bool:
        """Whether a file or folder of this name is a sign of a download."""
        return name in self._signs

    def of(self, model: str) -> str | None:
        """The sign that a model of this name is being downloaded."""
        return self._of.get(folded(model)) or self._of.get(folded(Path(model).stem))

    def expects(self, base: str) -> bool:
        """Whether a model of this name, or of this stem, is coming."""
        return folded(base) in self._expected


def of_download(name: str) -> str | None:
    """What a file of this name is a download of, None where it is not named like one."""
    lower = name.lower()
    if lower.endswith(ENDINGS):
        ending = next(ending for ending in ENDINGS if lower.endswith(ending))
        return name[: -len(ending)]
    piece = _PIECE.search(name)
    return name[: piece.start()] if piece else None


def is_state(name: str) -> bool:
    """Whether a download's sign tells no more than that the file beside it is not complete."""
    return name.lower().endswith(_STATES)


def _possible(name: str) -> Iterator[str]:
    """What a download of this name, without its ending, may be of: names and stems of models.

    Browsers put a few random letters into the name, before or behind the model's ending.
    """
    yield name
    before, _, last = name.rpartition(".")
    if "." in before and last:
        yield before
        stem, _, random = before.rpartition(".")
        if stem and _RANDOM.fullmatch(random):
            yield f"{stem}.{last}"
