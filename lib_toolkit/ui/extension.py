"""What the WebUI's script calls: the tab and the settings are registered, once per load of the scripts.

Reload UI runs the script again but does not import this package again, so what lives here goes on over a reload:
running jobs end what they began, and two builds of the page share them.
"""

from __future__ import annotations

import atexit

from lib_toolkit import hosts
from lib_toolkit.hosts import Host
from lib_toolkit.jobs import Jobs
from lib_toolkit.ui import tab
from lib_toolkit.ui.pruner import Pruner
from lib_toolkit.ui.workspace import Workspace

JOBS = Jobs()
SESSIONS = Workspace()

_started: list[tuple[Host, Pruner]] = []

atexit.register(JOBS.close)


def start() -> None:
    """Register the tab and its settings with the running WebUI. Raises UsageError outside of one."""
    if not _started:
        found = hosts.detect()
        _started.append((found, Pruner(found, JOBS)))
    host, pruner = _started[0]
    host.register(lambda: tab.build(host, JOBS, SESSIONS, pruner), pruner.started, pruner.ended)
