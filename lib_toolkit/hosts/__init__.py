"""The programs that the tab can live in."""

from __future__ import annotations

from pathlib import Path

from lib_toolkit.hosts.host import Entry, Host
from lib_toolkit.hosts.standalone import StandaloneHost

__all__ = ["Entry", "Host", "StandaloneHost", "detect"]


def detect(models_dir: Path) -> Host:
    """The host of this process: a WebUI counts only once it has loaded itself, and is never imported from here.

    ``models_dir`` is the models folder outside of a WebUI. Raises UsageError when it cannot be used.
    """
    return StandaloneHost(models_dir)
