"""What the tab asks of the program that it lives in; no type of Gradio and none of a WebUI stands here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MODEL_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".st", ".sft"})
"""Endings of files that are listed as models; what they are is decided by their content."""

CHECKPOINT, VAE, LORA, CONTROLNET, COMPONENT, AUTOPRUNE = (
    "checkpoint",
    "vae",
    "lora",
    "controlnet",
    "component",
    "autoprune",
)
"""Kinds of folders. ``autoprune`` is the drop folder, ``component`` takes all that has no folder of its own."""

KINDS = (CHECKPOINT, VAE, LORA, CONTROLNET, COMPONENT, AUTOPRUNE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A model file of a listing.

    ``name`` tells it apart from all others of the listing (its path below the models folder, with ``/``, made
    printable); ``label`` is what a list shows: the name and the size. ``kind`` is that of its folder, empty for
    a file that lies in none of them. ``size`` is in bytes.
    """

    name: str
    label: str
    path: Path
    size: int
    kind: str


class Host(Protocol):
    """The program around the tab: where models are, where results go, what must not be touched."""

    @property
    def name(self) -> str:
        """For messages: ``standalone``, ``WebUI`` …"""
        ...

    @property
    def may_write(self) -> bool:
        """Whether results may be saved at all."""
        ...

    def folders(self, kind: str) -> tuple[Path, ...]:
        """The folders that models of ``kind`` are looked for in; they need not exist."""
        ...

    def models(self, kind: str | None = None) -> tuple[Entry, ...]:
        """The model files of a kind, or all of them, as they are on disk now; each file once."""
        ...

    def find(self, value: str) -> Entry:
        """The entry that a label, a name, or the file name of just one entry stands for, looked up now.

        Raises UsageError when there is none: only what is listed can be had.
        """
        ...

    def refresh(self, kind: str) -> None:
        """Tell the host that a file of ``kind`` came or went, so that its own lists show it."""
        ...

    def output_folder(self, kind: str) -> Path:
        """Where new models of ``kind`` are saved; it is made by whoever writes the first one."""
        ...

    def setting(self, key: str, default: str | bool) -> str | bool:
        """A setting of the user, of the default's type; the default where it is not set."""
        ...

    def in_use(self, path: Path) -> bool:
        """Whether the host has this file loaded, so that it may never be replaced."""
        ...

    def report_url(self, path: Path) -> str | None:
        """Where the browser finds a report file, or None where the host serves no files."""
        ...

    def register(self, build: Callable[[], object]) -> None:
        """Show the tab that ``build`` makes, when the host puts its page together."""
        ...
