"""Reading a file by position: any thread, any range, no seek pointer, no memory map."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from lib_toolkit.errors import FormatError, IncompleteError, UnreadableError

_MAX_READ = 1 << 30
"""Linux moves at most 2 GiB - 4 KiB in one call; stay clear of it."""

_IS_SHORT = "close programs that need much, then try again"
_IS_MISNAMED = "check the name, or give another file"
_IS_AWAY = "check that its disk or share is there, then try again"
_WAYS_OUT = {
    errno.EMFILE: _IS_SHORT,
    errno.ENFILE: _IS_SHORT,
    errno.ENOMEM: _IS_SHORT,
    errno.ENAMETOOLONG: _IS_MISNAMED,
    errno.ENOTDIR: _IS_MISNAMED,
    errno.EINVAL: _IS_MISNAMED,
    errno.EACCES: "check its permissions",
    errno.EIO: "check the disk and its cable, then try again, or get the file again",
}


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading. Raises OSError, also where it is a pipe or a device, for which nobody waits."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "It is no regular file", str(path))
    return os.fdopen(fd, "rb")


class ByteSource(Protocol):
    """Anything that can fill a buffer from a position. Thread-safe."""

    def read_at(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes that begin at ``offset``. Raises FormatError when they are not there."""
        ...


class ReadObserver(Protocol):
    """Is told of every range that was read, with the buffer that holds it."""

    def __call__(self, offset: int, data: memoryview) -> None: ...


def _not_opened(path: Path, error: OSError) -> UnreadableError:
    """What to say where the system does not open a file that it knows; the name itself may hold anything."""
    if error.errno == errno.ELOOP:
        return UnreadableError(f"{path} is a symbolic link in a circle, which leads to no file; name the file itself.")
    if isinstance(error, PermissionError):
        return UnreadableError(f"{path} may not be read; check its permissions.")
    advice = _WAYS_OUT.get(error.errno or 0, _IS_AWAY)
    return UnreadableError(f"{str(path)!r} cannot be opened ({error.strerror or error}); {advice}.")


class SourceFile:
    """A regular file opened once for positional reads, which remembers what it was when it was opened."""

    def __init__(self, path: Path) -> None:
        """Open ``path``. Raises FormatError with a sentence for a folder, a device or no file, UnreadableError where
        the system refuses."""
        self.path = path
        try:
            kind = path.stat().st_mode
            if stat.S_ISDIR(kind):
                raise FormatError(f"{path} is a folder, not a model file; name a file inside it.")
            if not stat.S_ISREG(kind):
                raise FormatError(f"{path} is not a regular file; only files on disk can be opened as models.")
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            raise FormatError(f"{path} does not exist; check the name, or refresh the list.") from None
        except OSError as error:
            raise _not_opened(path, error) from None
        except ValueError as error:  # a name that no system has
            raise FormatError(f"{str(path)!r} cannot be opened ({error}); {_IS_MISNAMED}.") from None
        self._identity = self._stat()
        self.size = self._identity[0]
        self.observer: ReadObserver | None = None
        self._closed = False
        self._local = threading.local()
        self._handles: list[int] = [self._fd]
        self._lock = threading.Lock()

    def _stat(self) -> tuple[int, int, int]:
        status = os.fstat(self._fd)
        return status.st_size, status.st_mtime_ns, status.st_ino

    def read_at(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` (contiguous bytes) from ``offset``. Raises FormatError past the end or after close()."""
        if self._closed:
            raise FormatError(f"{self.path} has been closed; load it again.")
        view = out.cast("B") if out.format != "B" or out.ndim != 1 else out
        if offset < 0 or offset + len(view) > self.size:
            raise IncompleteError(
                f"{self.path} ends before byte {offset + len(view):,}; it is incomplete, get it again."
            )
        position = 0
        while position < len(view):
            count = self._read_some(offset + position, view[position : position + _MAX_READ])
            if count <= 0:
                raise FormatError(f"{self.path} became shorter while it was read; load it again when it is complete.")
            position += count
        if self.observer is not None:
            self.observer(offset, view)

    def read(self, offset: int, count: int) -> bytes:
        """The ``count`` bytes at ``offset``. Raises FormatError when the file does not hold them."""
        if count < 0 or offset < 0 or offset + count > self.size:
            raise IncompleteError(f"{self.path} ends before byte {offset + count:,}; it is incomplete, get it again.")
        data = bytearray(count)
        self.read_at(offset, memoryview(data))
        return bytes(data)

    def _read_some(self, offset: int, view: memoryview) -> int:
        try:
            if hasattr(os, "preadv"):
                return os.preadv(self._fd, [view], offset)
            if hasattr(os, "pread"):
                data = os.pread(self._fd, len(view), offset)
            else:
                handle = self._own_handle()
                os.lseek(handle, offset, os.SEEK_SET)
                data = os.read(handle, len(view))
        except OSError as error:
            advice = _WAYS_OUT.get(error.errno or 0, _IS_AWAY)
            raise UnreadableError(
                f"{self.path} could not be read at byte {offset:,} ({error.strerror}); {advice}."
            ) from error
        view[: len(data)] = data
        return len(data)

    def _own_handle(self) -> int:
        """One handle a thread, for systems (Windows) without positional reads."""
        handle: int | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            if os.fstat(handle).st_ino != self._identity[2]:
                os.close(handle)
                raise FormatError(f"{self.path} was replaced while it was read; load it again.")
            self._local.handle = handle
            with self._lock:
                self._handles.append(handle)
        return handle

    def check_unchanged(self) -> None:
        """Raise FormatError when the file has changed since it was opened."""
        if not self._closed and self._stat() != self._identity:
            raise FormatError(f"{self.path} was changed while it was read; load it again when nobody writes to it.")

    def reopen(self) -> SourceFile:
        """A second, independent handle on the same file. Raises FormatError when it is no longer the same."""
        again = SourceFile(self.path)
        if again._identity != self._identity:
            again.close()
            raise FormatError(f"{self.path} was changed while it was read; load it again when nobody writes to it.")
        return again

    def close(self) -> None:
        """Close the file; it may then be moved or deleted on every system."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for handle in self._handles:
                os.close(handle)
            self._handles.clear()

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
