"""What the tab has found out about the files of its lists: once it is known, they tell the architecture too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lib_toolkit.errors import FormatError
from lib_toolkit.hosts.host import Entry
from lib_toolkit.reports.plain import printable
from lib_toolkit.ui.drafts import Stamp, Taken, stamp_of

_MOST = 20_000
_LONGEST = 60


class Known:
    """Architectures by file; what is said of a file goes when the file changes."""

    def __init__(self) -> None:
        self._names: dict[Path, tuple[Stamp, str]] = {}

    def note(self, taken: Taken, name: str) -> Entry:
        """A file is of this architecture; its entry as lists show it from now on."""
        if len(self._names) >= _MOST:
            self._names.clear()
        self._names[taken.entry.path] = taken.stamp, printable(name, _LONGEST)
        return self._shown(taken.entry)

    def shown(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """The entries as lists show them."""
        return tuple(map(self._shown, entries))

    def _shown(self, entry: Entry) -> Entry:
        stamp, name = self._names.get(entry.path, (None, ""))
        with contextlib.suppress(FormatError):  # it went away
            if stamp is not None and stamp_of(entry.path) == stamp:
                return replace(entry, label=f"{entry.label} · {name}")
        return entry
