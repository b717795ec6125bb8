"""Progress of long work: counted in bytes, with speed, time left and a way to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from lib_toolkit.errors import CancelledError

_REPORT_EVERY = 0.1
_SPEED_WINDOW = 3.0


@dataclass(frozen=True)
class Status:
    """A moment of some long work. ``speed`` is in bytes a second, ``left`` in seconds (None: not known yet)."""

    phase: str
    done: int
    total: int
    speed: float
    left: float | None

    @property
    def share(self) -> float:
        """The part that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0


class Progress:
    """Counts the bytes of one phase of work after another; every method may be called from any thread."""

    def __init__(
        self,
        report: Callable[[Status], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._report = report
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._phase = ""
        self._done = 0
        self._total = 0
        self._marks: list[tuple[float, int]] = []
        self._last_report = 0.0

    def start(self, phase: str, total: int) -> None:
        """Begin a phase of ``total`` bytes. Raises CancelledError when the user has asked to stop."""
        with self._lock:
            self._phase, self._done, self._total = phase, 0, total
            self._marks = [(time.monotonic(), 0)]
            self._last_report = 0.0
        self.advance(0)

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes. Raises CancelledError when the user has asked to stop."""
        self.check()
        now = time.monotonic()
        with self._lock:
            self._done += count
            due = now - self._last_report >= _REPORT_EVERY or self._done >= self._total
            if self._report is None or not due:
                return
            self._last_report = now
            self._marks.append((now, self._done))
            while len(self._marks) > 2 and now - self._marks[0][0] > _SPEED_WINDOW:
                self._marks.pop(0)
            status = self._status(now)
        self._report(status)

    def check(self) -> None:
        """Raise CancelledError when the user has asked to stop."""
        if self._cancelled is not None and self._cancelled():
            raise CancelledError("Cancelled; nothing was left behind.")

    def _status(self, now: float) -> Status:
        since, before = self._marks[0]
        speed = (self._done - before) / (now - since) if now > since else 0.0
        left = (self._total - self._done) / speed if speed > 0 else None
        return Status(self._phase, self._done, self._total, speed, left)


class Portion(Progress):
    """One of several pieces of a phase: however its own phases count, they fill ``size`` bytes of ``whole`` once."""

    def __init__(self, whole: Progress, size: int) -> None:
        super().__init__()
        self._whole = whole
        self._size = size
        self._passed = 0

    def start(self, phase: str, total: int) -> None:
        """Begin again to count, up to ``total`` bytes. Raises CancelledError when the user has asked to stop."""
        with self._lock:
            self._done, self._total = 0, total
        self.check()

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes of the piece's own. Raises CancelledError when the user has asked to stop."""
        with self._lock:
            self._done += count
            reached = self._size * min(self._done, self._total) // self._total if self._total else 0
            step = max(0, reached - self._passed)
            self._passed += step
        self._whole.advance(step)

    def finish(self) -> None:
        """Count what is left of the piece. Raises CancelledError when the user has asked to stop."""
        with self._lock:
            step, self._passed = self._size - self._passed, self._size
        self._whole.advance(step)

    def check(self) -> None:
        """Raise CancelledError when the user has asked to stop."""
        self._whole.check()


SILENT = Progress()
"""Counts for nobody and is never cancelled."""
