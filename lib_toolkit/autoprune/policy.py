"""What Autoprune is to do, and where: a drop folder, a folder for each kind of model, and a few wishes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

from lib_toolkit.edits.precision import precision_table
from lib_toolkit.edits.recipes import Wishes
from lib_toolkit.errors import UsageError
from lib_toolkit.streaming import MOST_WORKERS

COMPONENT = "component"
"""The kind of folder that takes what has none of its own."""

KINDS = (
    "checkpoint",
    "vae",
    "lora",
    "controlnet",
    "text_encoder",
    "embedding",
    "upscaler",
    "hypernetwork",
    COMPONENT,
)
"""Kinds of folders that files are sorted into."""

DONE, FAILED = "Done", "Failed"
"""Sub-folders of the drop folder: sources that were dealt with, and files that cannot be used."""

FORMATS = ("safetensors", "pt")
SOURCES = ("done", "keep", "delete")


class Library(Protocol):
    """What a policy is made of: any host's folders and settings."""

    def output_folder(self, kind: str) -> Path: ...

    def setting(self, key: str, default: str | bool | int) -> str | bool | int: ...


@dataclass(frozen=True)
class Policy:
    """``folders`` by kind: ``component`` must be there; models of the other KINDS go there too where they have no
    folder.

    ``vae_format`` and ``component_format`` are of FORMATS, ``precision`` of ``edits.precision.PRECISIONS``. ``sources``
    says what becomes of a file once its result is verified: moved to ``Done``, kept where it is, or deleted.
    ``workers`` are the threads of the work, MOST_WORKERS at most, 0 to choose. Raises UsageError for what makes no
    sense.
    """

    drop: Path
    folders: Mapping[str, Path]
    vae_format: str = "pt"
    component_format: str = "safetensors"
    precision: str = "auto"
    keep_ema: bool = False
    fix_clip: bool = False
    sources: str = "done"
    workers: int = 0

    def __post_init__(self) -> None:
        precision_table(self.precision)
        for name, value, known in (
            ("VAE format", self.vae_format, FORMATS),
            ("component format", self.component_format, FORMATS),
            ("fate of sources", self.sources, SOURCES),
        ):
            if value not in known:
                raise UsageError(f"{value!r} is no {name} that Autoprune knows; choose {' or '.join(known)}.")
        if COMPONENT not in self.folders:
            raise UsageError("Autoprune needs a folder for components, which takes what has no folder of its own.")
        if not 0 <= self.workers <= MOST_WORKERS:
            raise UsageError(
                f"{self.workers} cannot be a number of workers; choose 0 to {MOST_WORKERS} (0 lets the program choose)."
            )
        for kind, folder in self.folders.items():
            if _real(folder).is_relative_to(self.real_drop):
                raise UsageError(f"The folder for {kind} ({folder}) lies in the drop folder; choose another one.")

    @property
    def real_drop(self) -> Path:
        """The drop folder with links resolved, as far as they lead anywhere."""
        return _real(self.drop)

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.precision, self.keep_ema, self.fix_clip)

    @property
    def mark(self) -> str:
        """The same for policies that make the same of a file, and leave it in the same place."""
        return "; ".join((str(self.wishes), self.vae_format, self.component_format, self.sources))

    @property
    def threads(self) -> int | None:
        """Workers as ``writing`` wants them."""
        return self.workers or None

    def folder(self, kind: str) -> Path:
        """Where models of a kind go."""
        return self.folders.get(kind) or self.folders[COMPONENT]

    def to_json(self) -> str:
        """One line, for the process that does the work; ``from_json`` reads it."""
        table = {**asdict(self), "drop": str(self.drop)}
        table["folders"] = {kind: str(folder) for kind, folder in self.folders.items()}
        return json.dumps(table)

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """The policy of a line. Raises UsageError when it is none."""
        try:
            table = json.loads(text)
            known = {field.name: table[field.name] for field in fields(cls) if field.name in table}
            known["drop"] = Path(known["drop"])
            known["folders"] = {str(kind): Path(folder) for kind, folder in known["folders"].items()}
            return cls(**known)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UsageError(f"This is no policy for Autoprune ({type(error).__name__}: {error}).") from None


def _real(folder: Path) -> Path:
    """Unlike Path.resolve it takes a link in a circle on every Python."""
    return Path(os.path.realpath(folder))


def policy_of(library: Library) -> Policy:
    """The policy of a host's folders and settings. Raises UsageError for what makes no sense."""
    folders = {}
    for kind in KINDS:
        with suppress(UsageError):  # a kind that this host has no folder for
            folders[kind] = library.output_folder(kind)
    return Policy(
        drop=library.output_folder("autoprune"),
        folders=folders,
        vae_format=str(library.setting("vae_format", "pt")),
        component_format=str(library.setting("component_format", "safetensors")),
        precision=str(library.setting("precision", "auto")),
        keep_ema=library.setting("keep_ema", False) is True,
        fix_clip=library.setting("fix_clip", False) is True,
        sources=str(library.setting("sources", "done")),
        workers=int(library.setting("workers", 0)),
    )
