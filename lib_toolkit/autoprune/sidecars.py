"""Files that belong to a model by their names: previews, information, configuration, notes.

``big.preview.png`` and ``big.safetensors.json`` belong to ``big.safetensors``, and follow it under its new name as
``big(1).preview.png`` and ``big(1).safetensors.json``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".mp4", ".webm")

ENDINGS = frozenset(
    {
        *_IMAGES,
        *(f".preview{ending}" for ending in _IMAGES),
        ".civitai.info",
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


@dataclass(frozen=True)
class Sidecar:
    """A file beside a model. ``ending`` follows the stem of the model's name, or, with ``whole``, all of it."""

    path: Path
    ending: str
    whole: bool = False

    def name_for(self, model: Path) -> str:
        """What it is called beside a model of this name."""
        return f"{model.name if self.whole else model.stem}{self.ending}"


class Companions:
    """The files of one folder by what their names begin with, so that each model finds its own at once."""

    def __init__(self, names: Iterable[str], partial: tuple[str, ...]) -> None:
        """``partial`` are the endings of files that are not complete."""
        self._endings: dict[str, list[str]] = {}
        self._partial: dict[str, str] = {}
        for name in names:
            pieces = name.split(".")
            for count in (1, 2):
                base, ending = ".".join(pieces[:-count]), "." + ".".join(pieces[-count:])
                if base and ending.lower() in ENDINGS:
                    self._endings.setdefault(base, []).append(ending)
            if name.lower().endswith(partial):
                for count in range(1, len(pieces)):
                    self._partial.setdefault(".".join(pieces[:count]), name)

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
