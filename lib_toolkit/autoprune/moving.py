"""Bring a file to another name without ever replacing one: renamed, or, between file systems, copied and verified."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

from lib_toolkit.autoprune.identity import are_apart, have_two_names
from lib_toolkit.autoprune.looking import Mark, sight
from lib_toolkit.autoprune.refusals import check_folder
from lib_toolkit.errors import FormatError, TakenError, TargetError, UnreadableError, VerificationError
from lib_toolkit.files import SourceFile
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.renaming import rename_new
from lib_toolkit.temporary import TemporaryFile
from lib_toolkit.ways_out import way_out

_PIECE = 512 << 10
_PATIENCE = 5.0
_KEEPS_READ_ONLY = os.name == "nt"


def move_new(source: Path, final: Path, progress: Progress = SILENT) -> None:
    """Give ``source`` the name ``final``. Raises FileExistsError when that is taken, TargetError for everything else.

    On another file system the source goes only when its copy is complete, synced and read back, and when nobody has
    put another file in its place meanwhile. A move that a crash cut short, so that both names lead to one file, is
    ended.
    """
    if have_two_names(source, final):
        remove(source)
        return
    try:
        _patiently(lambda: rename_new(source, final), final)
    except _OtherDeviceError:
        mark = sight(source)
        copy_new(source, final, progress)
        try:
            remove_source(source, final, mark)
        except ReplacedError:
            raise
        except TargetError:
            if not os.path.lexists(source):
                return  # somebody else took it away: the copy may be the only one left
            # It stays where it is: a second copy would come into being at each further try.
            if are_apart(final, source):
                with contextlib.suppress(TargetError):
                    remove(final)
            raise


def copy_new(source: Path, final: Path, progress: Progress = SILENT) -> None:
    """A verified copy under a name of its own. Raises FileExistsError, FormatError when the source cannot be read,
    TargetError or VerificationError; then there is no copy."""
    with SourceFile(source) as file, TemporaryFile(final) as target:
        progress.start(f"copying {source.name}", 2 * file.size)
        before = _digest(file, progress, lambda offset, data: target.write_at(offset, data))
        target.sync()
        file.check_unchanged()
        _verify(target.path, file.size, before, source.name, progress)
        try:
            target.commit()
        except TakenError:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
    # As a rename would: programs sort models by their time. Not before: a temporary file that may not be written to
    # could not go again.
    with contextlib.suppress(OSError):
        shutil.copystat(source, final)


def _verify(path: Path, size: int, digest: bytes, name: str, progress: Progress) -> None:
    """Read the copy back. What cannot be read is our own file: the source is not to blame."""
    try:
        with SourceFile(path) as again:
            if again.size == size and _digest(again, progress, lambda offset, data: None) == digest:
                return
    except FormatError as error:
        raise VerificationError(f"The copy of {name} could not be read back ({error}); it was removed.") from error
    raise VerificationError(f"The copy of {name} does not read back as it should; it was removed. Check the disk.")


def remove(path: Path) -> None:
    """Delete a file, though it may be one that is not to be written to. Raises TargetError when the system refuses."""
    mode = _unlocked(path)
    try:
        _patiently(path.unlink, path)
    except TargetError:
        if mode is not None:
            with contextlib.suppress(OSError):
                path.chmod(mode)
        raise


def _unlocked(path: Path) -> int | None:
    """Windows removes no file with the attribute read-only: take that away, and return the rights as they were."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if _KEEPS_READ_ONLY and stat.S_ISREG(status.st_mode) and not status.st_mode & stat.S_IWRITE:
            path.chmod(status.st_mode | stat.S_IWRITE)
            return stat.S_IMODE(status.st_mode)
    return None


class ReplacedError(TargetError):
    """What was to be removed is another file now."""


def remove_source(source: Path, held_by: Path, mark: Mark | None) -> None:
    """Delete a file whose content ``held_by`` was found to hold (``is_copy``, or as a result that was verified).

    ``mark``: its ``sight`` before it was read. Raises ReplacedError when that is not its sight any more, TargetError
    when ``held_by`` is gone, a link, or the source itself by another path, and when the system refuses. Nothing is
    removed then.
    """
    if os.path.lexists(source) and sight(source) != mark:
        raise ReplacedError(f"{source} was changed or replaced meanwhile, and was left as it is now.")
    if not (are_apart(held_by, source) or have_two_names(held_by, source)):
        raise TargetError(
            f"{source} was not removed, as {held_by} is gone or leads to it; see what lies there, and run again."
        )
    remove(source)


def make_folder(folder: Path) -> None:
    """The folder and those above it. Raises TargetError when the system refuses."""
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"The folder {folder} cannot be made: {error.strerror}; {way_out(error)}.") from None


def is_copy(copy: Path, source: Path, progress: Progress = SILENT) -> bool:
    """Whether ``copy`` holds the bytes of ``source`` in a file of its own, or is another name of the same file: what
    ``source`` holds stays when it goes. Raises UnreadableError when the system will not read one of them now, and
    CancelledError."""
    if have_two_names(copy, source):
        return True
    if not are_apart(copy, source):
        return False
    try:
        with SourceFile(copy) as one, SourceFile(source) as other:
            same = _have_same_bytes(one, other, progress)
            one.check_unchanged()
            other.check_unchanged()
            return same
    except UnreadableError:
        raise
    except FormatError:
        return False


def _have_same_bytes(one: SourceFile, other: SourceFile, progress: Progress) -> bool:
    if one.size != other.size:
        return False
    progress.start(f"comparing {other.path.name} with its copy", one.size)
    for begin in range(0, one.size, _PIECE):
        count = min(_PIECE, one.size - begin)
        if one.read(begin, count) != other.read(begin, count):
            return False
        progress.advance(count)
    return True


class _OtherDeviceError(Exception):
    """The name is on another file system."""


def _patiently(step: Callable[[], None], path: Path) -> None:
    """Windows: virus scanners and previews hold files for a moment."""
    deadline = time.monotonic() + (_PATIENCE if os.name == "nt" else 0.0)
    while True:
        try:
            return step()
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno == errno.EXDEV or getattr(error, "winerror", None) == 17:  # ERROR_NOT_SAME_DEVICE
                raise _OtherDeviceError from None
            if not isinstance(error, PermissionError) or time.monotonic() >= deadline:
                held = isinstance(error, PermissionError)
                advice = "close what uses it, or give its folder the rights" if held else way_out(error)
                raise TargetError(
                    f"{path} could not be put in place or removed ({error.strerror}); {advice}."
                ) from error
            time.sleep(0.1)


def _digest(file: SourceFile, progress: Progress, take: Callable[[int, memoryview], None]) -> bytes:
    whole, buffer = hashlib.sha256(), memoryview(bytearray(min(_PIECE, max(1, file.size))))
    for begin in range(0, file.size, _PIECE):
        data = buffer[: min(_PIECE, file.size - begin)]
        file.read_at(begin, data)
        whole.update(data)
        take(begin, data)
        progress.advance(len(data))
    return whole.digest()
