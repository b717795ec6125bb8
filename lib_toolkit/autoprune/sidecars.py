"""Files that belong to a model by their names: previews, information, configuration, notes.

``big.preview.png`` and ``big.safetensors.json`` belong to ``big.safetensors``, and follow it under its new name as
``big(1).preview.png`` and ``big(1).safetensors.json``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".mp4", ".webm")

ENDINGS = frozenset(
    {
        *_IMAGES,
        *(f".preview{ending}" for ending in _IMAGES),
        *(f".cm-preview{ending}" for ending in _IMAGES),
        ".civitai.info",
        ".cm-info.json",
        ".rgthree-info.json",
        ".metadata.json",
        ".json",
        ".yaml",
        ".yml",
        ".txt",
        ".info",
        ".html",
        ".md",
        ".sha256",
    }
)
"""What stands behind the model's name, in small letters. Some are those of the WebUI's extra networks and its
``.yaml`` configurations; ``.civitai.info`` and ``.metadata.json`` come from programs that manage models."""


_RANDOM = re.compile(r"(?=.*[A-Z])(?=.*[a-z0-9])[\w-]{4,}", re.ASCII)
"""What browsers put into the name of a download, unlike the words that people put there."""


@dataclass(frozen=True)
class Sidecar:
    """A file beside a model. ``ending`` follows the stem of the model's name, or, with ``whole``, all of it."""

    path: Path
    ending: str
    whole: bool = False

    def name_for(self, model: Path) -> str:
        """What it is called beside a model of this name."""
        return f"{model.name if self.whole else model.stem}{self.ending}"


def models_of(sidecar: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """The models of these suffixes, there or not, that a sidecar of this name would belong to."""
    for base, ending in _splits(sidecar.name):
        if base and ending.lower() in ENDINGS:
            yield sidecar.with_name(base)
            for suffix in suffixes:
                yield sidecar.with_name(base + suffix)
                yield sidecar.with_name(base + suffix.upper())


def is_sidecar(name: str) -> bool:
    """Whether a file is named like one, whatever lies beside it."""
    return any(ending.lower() in ENDINGS for _, ending in _splits(name))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """A name in two, before its last piece and before its last two."""
    pieces = name.split(".")
    for count in (1, 2):
        yield ".".join(pieces[:-count]), "." + ".".join(pieces[-count:])


class Companions:
    """The files of one folder by what their names begin with, so that each model finds its own at once."""

    def __init__(self, names: Iterable[str], partial: tuple[str, ...]) -> None:
        """``partial`` are the endings of files that are not complete."""
        self._endings: dict[str, list[str]] = {}
        self._partial: dict[str, str] = {}
        for name in names:
            for base, ending in _splits(name):
                if base and ending.lower() in ENDINGS:
                    self._endings.setdefault(base, []).append(ending)
            for ending in partial:
                if name.lower().endswith(ending):
                    for model in _downloaded(name[: -len(ending)]):
                        self._partial.setdefault(model, name)

    def sidecars(self, model: Path) -> tuple[Sidecar, ...]:
        """What belongs to a model of this folder."""
        found = [
            Sidecar(model.with_name(base + ending), ending, whole)
            for base, whole in ((model.name, True), (model.stem, False))
            for ending in self._endings.get(base, ())
        ]
        return tuple(sorted(found, key=lambda one: one.path.name))

    def download_of(self, model: Path) -> str | None:
        """A file that says that this model is being downloaded."""
        return self._partial.get(model.name) or self._partial.get(model.stem)


def _downloaded(name: str) -> Iterator[str]:
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
