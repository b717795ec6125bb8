"""The place of a new file: checks before any work, a temporary file, and the step that makes it final.

A final name never holds a part of a file: everything is written to a temporary file in the same folder, which
is renamed when it is complete, synced and verified. Temporary files that a killed process left behind are
removed by the next write into that folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from lib_toolkit.errors import TakenError, TargetError, UsageError
from lib_toolkit.flushing import Flusher

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
_HOST = f"{zlib.crc32(_NAME.encode()):08x}"
_TEMPORARY = re.compile(r"^\.model-toolkit-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.part$")
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?$", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_LONGEST_NAME = 255
_PATIENCE = 5.0
_ROOM_IS_SHORT = "make room, or choose a folder on another disk"
_IS_GONE = "the folder was moved or deleted, or its disk is not there: bring it back, or choose another one"
_IS_CLOSED = "give the folder the rights, or choose another one"
_WAYS_OUT = {
    errno.ENOSPC: _ROOM_IS_SHORT,
    getattr(errno, "EDQUOT", errno.ENOSPC): _ROOM_IS_SHORT,
    errno.EFBIG: "its disk or this account takes no file so large, so choose a folder on another disk",
    errno.ENOENT: _IS_GONE,
    errno.ENOTDIR: _IS_GONE,
    errno.EACCES: _IS_CLOSED,
    errno.EPERM: _IS_CLOSED,
    errno.EROFS: "its disk takes no changes, so choose a folder on another one",
}
_ROOM = 16 << 20
"""Bytes that a disk keeps free beside the new file."""

_FOREIGN = 24 * 3600.0
"""Seconds since the last byte after which a file of another computer counts as left behind: a container has another
name each time that it is made."""

_mine: set[str] = set()
"""Temporary files that this process is writing now, for systems without file locks."""


def safe_output_name(name: str) -> str:
    """``name`` if it can be a bare file name on every system. Raises UsageError with the reason otherwise."""
    if not name or name in {".", ".."}:
        raise UsageError("The new file needs a name.")
    if bad := _FORBIDDEN.search(name):
        raise UsageError(
            f"{name!r} cannot be a file name: {bad.group()!r} may not stand in it; use letters and digits."
        )
    if name.startswith("."):
        raise UsageError(f"{name!r} begins with a dot, which hides a file; choose another name.")
    if name[-1] in ". " or name[0] == " ":
        raise UsageError(f"{name!r} cannot be a file name on every system: it begins or ends in a blank or a dot.")
    if _RESERVED.match(name):
        raise UsageError(f"{name!r} is a device name on Windows; choose another one.")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{name!r} is not valid text; choose another name.") from None
    if length > _LONGEST_NAME:
        raise UsageError(f"The name {name[:40]!r}… is longer than {_LONGEST_NAME} bytes; choose a shorter one.")
    return name


def free_name(folder: Path, stem: str, ending: str) -> Path:
    """``stem + ending`` in ``folder``, or the first of stem(1), stem(2) … that does not exist.

    What cannot stand in a file name on every system is replaced by ``_``, since a proposed name must be one that
    can be written (a source may well have such a name).
    """
    stem = _usable(stem, ending)
    path, number = folder / f"{stem}{ending}", 0
    while os.path.lexists(path):
        number += 1
        path = folder / f"{stem}({number}){ending}"
    return path


def _usable(stem: str, ending: str) -> str:
    text = _FORBIDDEN.sub("_", stem.encode("utf-8", "replace").decode("utf-8")).lstrip(". ")
    room = _LONGEST_NAME - len(ending.encode()) - len("(9999)")
    text = text.encode()[:room].decode("utf-8", "ignore").rstrip(". ") or "model"
    return f"_{text}" if _RESERVED.match(text + ending) else text


def check_target(
    path: Path,
    size: int,
    sources: tuple[Path, ...] = (),
    force: bool = False,
    in_use: Callable[[Path], bool] | None = None,
    at_once: bool = False,
) -> Path:
    """Make sure that ``size`` bytes can be written to ``path``; returns the path with links resolved.

    ``in_use`` tells of files that may never be replaced (the checkpoint that a WebUI has loaded). ``at_once``: the
    temporary file is made next, which tells whether the folder takes files. Raises
    UsageError for a name that cannot be, TakenError for one that exists, TargetError for everything else; nothing is
    changed on disk.
    """
    refuse_folder(path)
    safe_output_name(path.name)
    folder = path.parent
    if not folder.is_dir():
        raise TargetError(f"The folder {folder} does not exist; make it first, or choose another one.")
    for source in sources:
        if _same_file(path, source):
            raise TargetError(f"{path} is the source itself, which is never overwritten; choose another name.")
    if in_use is not None and in_use(path):
        raise TargetError(f"{path.name} is the model that the WebUI has loaded; choose another name.")
    if os.path.lexists(path):
        if not force:
            raise TakenError(f"{path} exists already; choose another name.")
        path = Path(os.path.realpath(path))  # unlike Path.resolve it takes a loop of links on every Python
    check_room(path, size, path.parent)
    if not at_once:
        _check_rights(path)
    return path


def refuse_folder(path: Path) -> None:
    """Raise TargetError where a folder is named and not a file in it."""
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for names that are too long)
        folder = path if path.name else path.resolve()
        raise TargetError(f"{folder} is a folder; give the name of a file in it.")


def check_room(path: Path, size: int, folder: Path, promised: int = 0) -> None:
    """Raise TargetError where the disk of ``folder`` has no room for the file, once ``promised`` bytes are taken."""
    try:
        free = shutil.disk_usage(folder).free - promised
    except OSError as error:
        raise TargetError(
            f"{path} cannot be written: its folder cannot be used ({error}); mend it, or choose another one."
        ) from None
    if free < size + _ROOM:
        by_then = " by then" if promised > 0 else ""
        raise TargetError(
            f"{path} takes {size:,} bytes, beside which {_ROOM:,} must stay free, and its folder has "
            f"{max(0, free):,} free{by_then}; make room, or choose another disk."
        )


def _check_rights(path: Path) -> None:
    probe = path.parent / _temporary_name()
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        probe.unlink(missing_ok=True)  # another process may have taken it for one that a killed writer left
    except OSError as error:
        raise closed(path, error) from None


def closed(path: Path, error: OSError) -> TargetError:
    """What to say where no file can be made."""
    return TargetError(f"{path} cannot be written: its folder takes no files ({error.strerror}); {way_out(error)}.")


def _failed(path: Path, error: OSError) -> TargetError:
    """What to say where bytes could not be written or brought to the disk."""
    return TargetError(f"{path} could not be written ({error.strerror}), and nothing was kept; {way_out(error)}.")


def way_out(error: OSError) -> str:
    """What the user can do where a folder would not have a file."""
    return _WAYS_OUT.get(error.errno or 0, "check the disk, or choose another one")


def _same_file(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return os.path.realpath(path) == os.path.realpath(source)


def _temporary_name() -> str:
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
            path = self.final.parent / _temporary_name()
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
            raise _failed(self.final, error) from error

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
            raise _failed(self.final, error) from error

    def commit(self, force: bool = False) -> None:
        """Give the file its final name, replacing another one only with ``force``; sync the folder.

        Raises TakenError when the name was taken meanwhile, TargetError when the system refuses.
        """
        deadline = time.monotonic() + _PATIENCE
        if sys.platform == "win32":
            self._close()
        while True:
            try:
                _rename(self.path, self.final, force)
                break
            except FileExistsError:
                raise TakenError(f"{self.final} has come into being meanwhile; choose another name.") from None
            except _BothNamesError as error:
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
        _sync_folder(self.final.parent)

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


class _BothNamesError(OSError):
    """The file has its new name, but neither that one nor the old one can be taken away."""


def rename_new(source: Path, final: Path) -> None:
    """Rename without ever replacing a file. Raises FileExistsError for a taken name, OSError for everything else."""
    _rename(source, final, False)


def _rename(temporary: Path, final: Path, force: bool) -> None:
    if force:
        temporary.replace(final)
        return
    if sys.platform == "win32":
        temporary.rename(final)  # refuses an existing name there
        return
    if hasattr(os, "link"):
        try:
            os.link(temporary, final)
        except FileExistsError:
            raise
        except OSError:
            pass  # a file system without hard links (FAT, some network shares)
        else:
            try:
                temporary.unlink()
            except FileNotFoundError:
                pass  # somebody else took the old name away: the new one may be the only one left
            except OSError as error:
                # It cannot go: then it has not moved, and is not to be there twice.
                try:
                    final.unlink(missing_ok=True)
                except OSError:
                    raise _BothNamesError(error.errno, error.strerror) from error
                raise
            return
    if os.path.lexists(final):
        raise FileExistsError(final)
    temporary.rename(final)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
