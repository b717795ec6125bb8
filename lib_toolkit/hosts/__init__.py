"""The programs that the tab can live in."""

from __future__ import annotations

from pathlib import Path

from lib_toolkit.errors import UsageError
from lib_toolkit.hosts import webui
from lib_toolkit.hosts.host import Entry, Host
from lib_toolkit.hosts.standalone import StandaloneHost
from lib_toolkit.hosts.webui import WebuiHost

__all__ = ["Entry", "Host", "StandaloneHost", "WebuiHost", "detect"]


def detect(models_dir: Path | None = None) -> Host:
    """The host of this process: a WebUI counts only once it has loaded itself, and is never imported from here.

    ``models_dir`` is the models folder outside of a WebUI. Raises UsageError when it is missing or cannot be used.
    """
    if webui.is_running():
        return WebuiHost()
    if models_dir is None:
        raise UsageError("This is not a running WebUI; name your models folder.")
    return StandaloneHost(models_dir)
