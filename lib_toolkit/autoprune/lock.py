"""One run at a time in a drop folder, among all processes and computers that share it.

A lock of the system is taken where there is one: it ends with its process, however that ends. Where there is none
(some network shares), a file with its owner is made exclusively and touched every few seconds; one that nobody
has touched for two minutes, or whose process on this computer is gone, is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from lib_toolkit.errors import TargetError
from lib_toolkit.ways_out import way_out

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK, OWNER = ".autoprune.lock", ".autoprune.owner"
_TOUCH, _STALE = 15.0, 120.0
_PATIENCE = 0.3
_HELD = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})


class BusyError(Exception):
    """Another run holds the folder."""


class FolderLock:
    """Held for the length of a ``with`` block. Entering raises BusyError, TargetError when nothing can be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None
        self._owner: _Owner | None = None

    def __enter__(self) -> FolderLock:
        try:
            self._fd = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise TargetError(
                f"Nothing can be written to the drop folder {self._folder} ({error.strerror}); {way_out(error)}."
            ) from None
        try:
            if not _system_lock(self._fd, time.monotonic() + _PATIENCE):
                self._owner = _Owner(self._folder / OWNER)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owner is not None:
            self._owner.release()
            self._owner = None
        self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)  # which gives the lock back
            self._fd = None


def is_held(folder: Path) -> bool:
    """Whether a run works on the folder now."""
    if not os.path.exists(folder / LOCK):  # noqa: PTH110 (Path.exists raises where a folder is closed)
        return False
    try:
        with FolderLock(folder):
            return False
    except BusyError:
        return True
    except TargetError:
        return False


def _system_lock(fd: int, deadline: float) -> bool:
    """Take the system's lock; False where there is none. Raises BusyError."""
    while True:
        try:
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif sys.platform == "win32":
                import msvcrt

                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            else:
                return False
            return True
        except OSError as error:
            if error.errno not in _HELD:
                return False
            # Whoever asks whether it is held has it for a moment.
            if time.monotonic() >= deadline:
                raise BusyError from None
            time.sleep(0.02)


class _Owner:
    """The file that says who works here, for file systems without locks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = os.urandom(8).hex()
        self._take()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._touch, name="autoprune lock", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        for _ in range(2):
            try:
                fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                self._remove_if_stale()
                continue
            except OSError as error:
                raise self._refused(error) from None
            try:
                with os.fdopen(fd, "w", encoding="utf-8") as file:
                    json.dump({"host": _host(), "pid": os.getpid(), "mark": self._mark}, file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._path.unlink()  # without its text it would keep every other run away for a while
                raise self._refused(error) from None
            return
        raise BusyError

    def _refused(self, error: OSError) -> TargetError:
        return TargetError(f"{self._path} cannot be made ({error.strerror}); {way_out(error)}.")

    def _remove_if_stale(self) -> None:
        """Raises BusyError while the owner lives."""
        with contextlib.suppress(FileNotFoundError):
            try:
                told = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError:
                told = {}  # just being written, or cut off by a crash: its age decides
            told = told if isinstance(told, dict) else {}
            age = time.time() - self._path.stat().st_mtime
            pid = told.get("pid")
            gone = told.get("host") == _host() and isinstance(pid, int) and not _lives(pid)
            if not gone and age < _STALE:
                raise BusyError
            # Of several that find it stale, one renames it.
            aside = self._path.with_name(f"{OWNER}.{os.urandom(4).hex()}")
            self._path.rename(aside)
            aside.unlink()

    def _touch(self) -> None:
        while not self._stop.wait(_TOUCH):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self) -> None:
        """Remove the file, if it is still ours."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if json.loads(self._path.read_text(encoding="utf-8")).get("mark") == self._mark:
                self._path.unlink()


def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")


def _lives(pid: int) -> bool:
    """Whether a process of that number runs on this computer; where that cannot be asked, yes."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
