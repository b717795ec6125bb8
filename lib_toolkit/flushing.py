"""Writing ahead: what has been written goes to the disk while the rest is still being read and cast.

A system keeps new bytes in memory until a sync asks for them, so that the disk would idle through the whole pass and
the caller through the whole sync. Without ``fdatasync`` (Windows, macOS) nothing is sent ahead.
"""

from __future__ import annotations

import os
import threading

FLUSH = 64 << 20
"""Bytes after which a file that is being written is sent to the disk."""


class Flusher:
    """Sends what was written to the disk while more is being read and cast, so that the last sync finds little to do.

    The system tells of a failed write once only: an error that comes up here is kept for ``stop``.
    """

    def __init__(self, fd: int) -> None:
        """For a file that is open for writing; it must be stopped before the file is closed."""
        self._fd = fd
        self._waiting = 0
        self._due = threading.Semaphore(0)
        self._ended = False
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def note(self, count: int) -> None:
        """``count`` more bytes are being written."""
        with self._lock:
            self._waiting += count
            if self._waiting < FLUSH or self._ended or not hasattr(os, "fdatasync"):
                return
            self._waiting = 0
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
                self._thread.start()
        self._due.release()

    def stop(self) -> None:
        """End it before the file is closed. Raises the OSError that a flush met."""
        with self._lock:
            self._ended = True
        if self._thread is not None:
            self._due.release()
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        try:
            while self._due.acquire() and not self._ended:
                os.fdatasync(self._fd)
        except OSError as error:
            self._error = error
