"""What a user can do where a folder or a disk will not have a file."""

from __future__ import annotations

import errno
from pathlib import Path

from lib_toolkit.errors import TargetError

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


def way_out(error: OSError) -> str:
    """What the user can do where a folder would not have a file."""
    return _WAYS_OUT.get(error.errno or 0, "check the disk, or choose another one")


def closed(path: Path, error: OSError) -> TargetError:
    """What to say where no file can be made."""
    return TargetError(f"{path} cannot be written: its folder takes no files ({error.strerror}); {way_out(error)}.")


def failed(path: Path, error: OSError) -> TargetError:
    """What to say where bytes could not be written or brought to the disk."""
    return TargetError(f"{path} could not be written ({error.strerror}), and nothing was kept; {way_out(error)}.")
