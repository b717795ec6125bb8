"""Files that belong to a model by their names: previews, information, configuration, notes.

``big.preview.png`` and ``big.safetensors.json`` belong to ``big.safetensors``, and follow it under its new name as
``big(1).preview.png`` and ``big(1).safetensors.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.autoprune.folding import folded

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".mp4", ".webm")

ENDINGS = frozenset(
    {
        *_IMAGES,
        *(f".preview{ending}" for ending in _IMAGES),
        *(f".cm-preview{ending}" for ending in _IMAGES),
        *(f".thumb{ending}" for ending in _IMAGES),
        ".civitai.info",
        ".cm-info.json",
        ".rgthree-info.json",
        ".metadata.json",
        ".swarm.json",
        ".description.txt",
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
``.yaml`` configurations; ``.civitai.info``, ``.metadata.json`` and the like come from programs that manage models,
``.swarm.json`` and ``.thumb.jpg`` from SwarmUI and others."""


@dataclass(frozen=True)
class Sidecar:
    """A file beside a model. ``ending`` follows the stem of the model's name, or, with ``whole``, all of it.
    ``others`` are the names of models beside it that it belongs to as well."""

    path: Path
    ending: str
    whole: bool = False
    others: tuple[str, ...] = ()

    def name_for(self, model: Path) -> str:
        """What it is called beside a model of this name."""
        return f"{model.name if self.whole else model.stem}{self.ending}"


def models_of(sidecar: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """The models of these suffixes, there or not, that a sidecar of this name would belong to."""
    suffixes = tuple(suffixes)
    for base, ending in _splits(sidecar.name):
        if base and ending.lower() in ENDINGS:
            if base.lower().endswith(suffixes):
                yield sidecar.with_name(base)
            for suffix in suffixes:
                yield sidecar.with_name(base + suffix)
                yield sidecar.with_name(base + suffix.upper())


def belongs_to(name: str, model: str) -> bool:
    """Whether a file of this name is a sidecar of a model of that name."""
    bases = {folded(model), folded(Path(model).stem)}
    return any(folded(base) in bases for base in bases_of(name))


def bases_of(name: str) -> tuple[str, ...]:
    """Names and stems of models that a sidecar of this name would belong to; none where it is not named like one."""
    return tuple(base for base, ending in _splits(name) if ending.lower() in ENDINGS)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """A name in two, before its last piece and before its last two."""
    pieces = name.split(".")
    for count in (1, 2):
        yield ".".join(pieces[:-count]), "." + ".".join(pieces[-count:])


class Companions:
    """The sidecars of one folder's models. Names need not be alike to the letter (``folding``)."""

    def __init__(self, names: Iterable[str], models: Iterable[str]) -> None:
        """``names`` of all files, ``models`` those among them."""
        self._by_base: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            for base, ending in _splits(name):
                if base and ending.lower() in ENDINGS:
                    self._by_base.setdefault(folded(base), []).append((name, ending))
        self._own = {model: self._belonging(model) for model in models}
        self._claims: dict[str, list[str]] = {}
        for model, own in self._own.items():
            for name, _, _ in own:
                self._claims.setdefault(name, []).append(model)

    def __contains__(self, name: str) -> bool:
        """Whether a model has this file as its sidecar."""
        return name in self._claims

    def sidecars(self, model: Path) -> tuple[Sidecar, ...]:
        """What belongs to one of the models."""
        found = []
        for name, ending, whole in self._own[model.name]:
            others = tuple(other for other in self._claims[name] if other != model.name)
            found.append(Sidecar(model.with_name(name), ending, whole, others))
        return tuple(sorted(found, key=lambda one: one.path.name))

    def _belonging(self, model: str) -> list[tuple[str, str, bool]]:
        """Name, ending, and whether that follows the model's whole name. Of files that would get the same name beside
        the result there is one, spelled like the model if any is."""
        chosen: dict[tuple[bool, str], tuple[str, str, bool]] = {}
        for base, whole in ((model, True), (Path(model).stem, False)):
            fitting = self._by_base.get(folded(base), ())
            for name, ending in sorted(fitting, key=lambda one: (not one[0].startswith(base), one[0])):
                chosen.setdefault((whole, ending.lower()), (name, ending, whole))
        return list(chosen.values())
