"""A new file while it is written: under a name of its own, locked, and removed if it does not become final.

A final name never holds a part of a file: everything is written to a temporary file in the same folder, which
is renamed when it is complete, synced and verified. Temporary files that a killed process left behind are
removed by the next write into that folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
import zlib
from pathlib import Path

from lib_toolkit.errors import TakenError, TargetError
from lib_toolkit.flushing import Flusher
from lib_toolkit.renaming import BothNamesError, rename, sync_folder
from lib_toolkit.ways_out import closed, failed, way_out

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
_HOST = f"{zlib.crc32(_NAME.encode()):08x}"
_TEMPORARY = re.compile(r"^\.model-toolkit-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.part$")
_PATIENCE = 5.0

_FOREIGN = 24 * 3600.0
"""Seconds since the last byte after which a file of another computer counts as left behind: a container has another
name each time that it is made."""

_mine: set[str] = set()
"""Temporary files that this process is writing now, for systems without file locks."""


def temporary_name() -> str:
    return f".model-toolkit-{_HOST}-{os.getpid()}-{os.urandom(4).hex()}.part"


class TemporaryFile:
    """An exclusively created file beside its final name, with positional writes from any thread.

    Leaving the ``with`` block removes it, unless ``commit`` has given it its final name.
    """

    def __init__(self, final: Path) -> None:
        """Create the file and take its lock. Raises TargetError when the folder does not allow it."""
        self.final = final
        remove_stale(final.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            self.path, self._fd = self._create(flags)
        except OSError as error:
            raise closed(final, error) from None
        _mine.add(self.path.name)
        self._open = True
        self._exists = True
        self._flusher = Flusher(self._fd)

    def _create(self, flags: int) -> tuple[Path, int]:
        while True:
            path = self.final.parent / temporary_name()
            fd = os.open(path, flags, 0o666)
            if fcntl is None:
                return path, fd
            # Another process may take the new file for a stale one before it is locked: then make another.
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours = path.stat().st_ino == os.fstat(fd).st_ino
            except (BlockingIOError, FileNotFoundError):
                ours = False
            except OSError:  # a file system without locks
                ours = True
            if ours:
                return path, fd
            os.close(fd)

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write all of ``data`` at ``offset``. Raises TargetError when the disk is full or fails."""
        try:
            if hasattr(os, "pwrite"):
                self._flusher.note(len(data))
                while len(data):
                    count = os.pwrite(self._fd, data, offset)
                    offset, data = offset + count, data[count:]
            else:
                self._write_by_handle(offset, data)
        except OSError as error:
            raise failed(self.final, error) from error

    def _write_by_handle(self, offset: int, data: memoryview) -> None:
        with self.path.open("r+b", buffering=0) as handle:
            handle.seek(offset)
            while len(data):
                data = data[handle.write(data) :]

    def sync(self) -> None:
        """Bring the bytes to the disk. Raises TargetError when that fails."""
        try:
            self._flusher.stop()
            os.fsync(self._fd)
        except OSError as error:
            raise failed(self.final, error) from error

    def commit(self, force: bool = False) -> None:
        """Give the file its final name, replacing another one only with ``force``; sync the folder.

        Raises TakenError when the name was taken meanwhile, TargetError when the system refuses.
        """
        deadline = time.monotonic() + _PATIENCE
        if sys.platform == "win32":
            self._close()
        while True:
            try:
                rename(self.path, self.final, force)
                break
            except FileExistsError:
                raise TakenError(f"{self.final} has come into being meanwhile; choose another name.") from None
            except BothNamesError as error:
                self._exists = False
                raise TargetError(
                    f"{self.final} is in place, but its folder lets nothing be removed or renamed ({error.strerror}), "
                    f"so that it stays there as {self.path.name} too; {way_out(error)}."
                ) from error
            except OSError as error:
                # Windows: virus scanners and previews hold new files for a moment.
                if not isinstance(error, PermissionError) or time.monotonic() > deadline:
                    raise TargetError(
                        f"{self.final} could not be put in place: {error.strerror}; is it in use?"
                    ) from error
                time.sleep(0.1)
        self._exists = False
        self._close()
        sync_folder(self.final.parent)

    def _close(self) -> None:
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                self._flusher.stop()
            os.close(self._fd)

    def _remove(self) -> None:
        try:
            self.path.unlink()
        except OSError:
            with contextlib.suppress(OSError):
                status = self.path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
                    os.truncate(self.path, 0)  # what cannot go is not to fill the disk

    def __enter__(self) -> TemporaryFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
        if self._exists:
            self._remove()
        _mine.discard(self.path.name)


def remove_stale(folder: Path) -> list[Path]:
    """Remove temporary files of ours in ``folder`` whose writer no longer lives; returns what was removed."""
    removed = []
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 (a thousand paths are not needed)
            match = _TEMPORARY.match(name) if name.startswith(".") else None
            if match is None or name in _mine:
                continue
            with contextlib.suppress(OSError):
                path, foreign = folder / name, match["host"] != _HOST
                if foreign and time.time() - path.stat().st_mtime < _FOREIGN:
                    continue
                if _remove_if_stale(path, None if foreign else int(match["pid"])):
                    removed.append(path)
    return removed


def _remove_if_stale(path: Path, pid: int | None) -> bool:
    """A living writer holds a lock on its file; where there are no locks, its process is looked for. ``pid`` None:
    it ran on another computer, or on this one under another name."""
    if fcntl is None:
        # On Windows an open file cannot be deleted, so that unlink itself decides.
        if sys.platform != "win32" and _lives(pid):
            return False
        path.unlink()
        return True
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        if _lives(pid):
            return False
    else:
        path.unlink()  # still under the lock
        return True
    finally:
        os.close(handle)
    path.unlink()
    return True


def _lives(pid: int | None) -> bool:
    """Whether another process of that number runs, or may; our own files are told by ``_mine``."""
    if pid is None:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return pid != os.getpid()
