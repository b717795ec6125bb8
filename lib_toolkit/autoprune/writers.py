"""Whether another program has a file open for writing, where the system tells."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_REFUSING = frozenset({"nfs", "nfs4", "cifs", "smb3"})
"""File systems of which the server grants leases, to few."""

_OCTAL = re.compile(r"\\([0-7]{3})")


def is_held(path: Path) -> bool:
    """Whether a program writes to the file, where the system tells."""
    if sys.platform == "win32":
        try:
            os.close(os.open(path, os.O_RDWR | os.O_BINARY))
        except PermissionError:
            return os.access(path, os.W_OK)
        except OSError:
            return False
        return False
    return sys.platform == "linux" and _has_writer(path) and not _is_remote(path)


if sys.platform == "linux":
    import fcntl
    import signal

    def _has_writer(path: Path) -> bool:
        """Linux grants a lease for reading on a file that nobody has open for writing. It is given back at once; who
        opens the file in between waits for that."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except BlockingIOError:
            return True  # another program has a lease for writing
        except OSError:
            return False
        try:
            # The signal that tells of such an opening would end the process if it were not one that does nothing.
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            return True
        except OSError:
            return False  # it is of another user, or on a file system that has no leases
        finally:
            os.close(fd)
        return False

    def _is_remote(path: Path) -> bool:
        """Whether it lies where a refused lease tells nothing. It does so where the system does not say."""
        try:
            mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
            real = os.path.realpath(path)
        except OSError:
            return True
        inmost, found = "", ""
        for point, kind in _mounts(mounts):
            if f"{real}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(inmost):
                inmost, found = point, kind
        return not found or found in _REFUSING

    def _mounts(text: str) -> Iterator[tuple[str, str]]:
        """Mount points and kinds of file systems, see proc(5)."""
        for line in text.splitlines():
            fields, _, rest = line.partition(" - ")
            pieces, kind = fields.split(" "), rest.split(" ")[0]
            if len(pieces) > 4:
                yield _OCTAL.sub(lambda match: chr(int(match[1], 8)), pieces[4]), kind
