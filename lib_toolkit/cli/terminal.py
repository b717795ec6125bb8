"""The terminal's side of long work: a progress line on stderr, and Ctrl+C as a wish to stop cleanly."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeAlias

from lib_toolkit.progress import Progress, Status
from lib_toolkit.reports.numbers import human_bytes, human_time

_Handler: TypeAlias = "Callable[[int, FrameType | None], object] | int | None"


@contextmanager
def progress_line() -> Iterator[Progress]:
    """A Progress that shows on the terminal; an interrupt or a request to end cancels it, a second one ends at once."""
    stop = threading.Event()
    previous: dict[int, _Handler] = {}

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, previous[number])

    if threading.current_thread() is threading.main_thread():
        for number in map(int, (signal.SIGINT, signal.SIGTERM)):
            with suppress(ValueError, OSError):
                previous[number] = signal.signal(number, ask_to_stop)
    line = _Line()
    try:
        yield Progress(line.show if sys.stderr.isatty() else None, stop.is_set)
    finally:
        line.clear()
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Line:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown = False

    def show(self, status: Status) -> None:
        left = f", {human_time(status.left)} left" if status.left is not None and status.done < status.total else ""
        bar = "█" * int(status.share * 24)
        text = (
            f"{status.phase} {bar:░<24} {status.share:4.0%}  "
            f"{human_bytes(status.done)} of {human_bytes(status.total)}, {human_bytes(int(status.speed))}/s{left}"
        )
        with self._lock, suppress(OSError):
            sys.stderr.write(f"\r\x1b[2K{text[:118]}")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        with self._lock, suppress(OSError):
            if self._shown:
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()
