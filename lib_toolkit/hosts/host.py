"""What the tab asks of the program that it lives in; no type of Gradio and none of a WebUI stands here."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lib_toolkit.hosts.settings import Value

MODEL_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".st", ".sft"})
"""Endings of files that are listed as models; what they are is decided by their content."""

CHECKPOINT, VAE, LORA, CONTROLNET, TEXT_ENCODER, COMPONENT, AUTOPRUNE, EMBEDDING, UPSCALER, HYPERNETWORK = (
    "checkpoint",
    "vae",
    "lora",
    "controlnet",
    "text_encoder",
    "component",
    "autoprune",
    "embedding",
    "upscaler",
    "hypernetwork",
)
"""Kinds of folders. ``autoprune`` is the drop folder, ``component`` takes all that has no folder of its own."""

LISTED = (CHECKPOINT, VAE, LORA, CONTROLNET, TEXT_ENCODER, COMPONENT, AUTOPRUNE)
"""Kinds whose files can be chosen as a source."""

KINDS = (*LISTED, EMBEDDING, UPSCALER, HYPERNETWORK)

FORWARDING = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via", "cf-connecting-ip", "true-client-ip"}
)
"""Headers by which proxies and tunnels give themselves away, in lower case."""


@dataclass(frozen=True)
class Visitor:
    """Who clicked: the client's address as the server sees it (empty: unknown), the request's Host header, whether
    a forwarding header came along, and the Origin header (empty: none)."""

    address: str
    host: str
    forwarded: bool
    origin: str = ""

    @classmethod
    def of(cls, address: str | None, headers: Mapping[str, str]) -> Visitor:
        """The visitor of a request, whatever the case of its headers' names."""
        named = {str(name).lower(): str(value) for name, value in headers.items()}
        forwarded = not FORWARDING.isdisjoint(named)
        return cls(address or "", named.get("host", ""), forwarded, named.get("origin", ""))

    @property
    def is_local(self) -> bool:
        """Whether the click came from a browser on this computer, on a page of this server under a local name: not
        through a proxy or tunnel, not by another web site, not by a foreign name for this computer."""
        if self.forwarded or not is_loopback(self.address) or not is_loopback(host_name(self.host)):
            return False
        return not self.origin or self.origin.partition("://")[2].lower() == self.host.lower()


LOCAL_VISITOR = Visitor("127.0.0.1", "localhost", False)
"""For calls without a browser."""


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


def nothing() -> None:
    """What is called where nobody waits for it."""


class Host(Protocol):
    """The program around the tab: where models are, where results go, what must not be touched."""

    @property
    def name(self) -> str:
        """For messages: ``standalone``, ``WebUI`` …"""
        ...

    def write_refusal(self, visitor: Visitor) -> str | None:
        """None, or the sentence why this visitor may not save, move or delete anything here."""
        ...

    def folders(self, kind: str) -> tuple[Path, ...]:
        """The folders that models of ``kind`` are looked for in; they need not exist."""
        ...

    def models(self, kind: str | None = None) -> tuple[Entry, ...]:
        """The model files of a kind, or all that can be a source, as they are on disk now; each file once."""
        ...

    def find(self, value: str) -> Entry:
        """The entry that a label, a name, or the file name of just one entry stands for, looked up now.

        Raises UsageError when there is none: only what is listed can be had.
        """
        ...

    def refresh(self, kind: str) -> str:
        """Tell the host that a file of ``kind`` came or went, so that its own lists show it. Never raises; returns a
        sentence on what the user has to do to see it, empty where that is nothing."""
        ...

    def output_folder(self, kind: str) -> Path:
        """Where new models of ``kind`` are saved; it is made by whoever writes the first one."""
        ...

    def private(self, text: str) -> str:
        """The text with the names of folders in place of where they lie: a page may be looked at from elsewhere."""
        ...

    def setting(self, key: str, default: Value) -> Value:
        """A setting of the user, of the default's type; the default where it is not set or not usable."""
        ...

    def in_use(self, path: Path) -> bool:
        """Whether the host has this file loaded, so that it may never be replaced."""
        ...

    @property
    def settings_place(self) -> str:
        """Where the user changes settings, in words."""
        ...

    def register(
        self,
        build: Callable[[], object],
        started: Callable[[], None] = nothing,
        ended: Callable[[], None] = nothing,
    ) -> None:
        """Show the tab that ``build`` makes, when the host puts its page together.

        ``started`` is called each time that the page is up, ``ended`` before the host lets go of it (Reload UI).
        """
        ...


def host_name(header: str) -> str:
    """A Host header without its port: ``[::1]:80`` → ``::1``, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def is_loopback(name: str) -> bool:
    """Whether an address or a host's name means this computer and no other."""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1 on a server that listens on both
    return (mapped or address).is_loopback
