"""Files that the tab hands to the browser: a private folder, limited in number, size and age, gone at the end.

Gradio copies what a File component shows into a folder of its own and serves the copy. ``holds`` tells such copies
from everything else by their very bytes, so that a guard can let them pass and nothing else.
"""

from __future__ import annotations

import atexit
import filecmp
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.errors import TargetError


@dataclass(frozen=True, slots=True)
class _Set:
    """Files that were handed out together. ``size`` in bytes, ``made`` on the monotonic clock."""

    folder: Path
    paths: tuple[Path, ...]
    size: int
    made: float


class Handouts:
    """At most ``most`` sets of files with ``size`` bytes together, none older than ``seconds``; the newest stays."""

    def __init__(self, most: int = 16, size: int = 256_000_000, seconds: float = 6 * 3600.0) -> None:
        self._most, self._size, self._seconds = most, size, seconds
        self._folder: Path | None = None
        self._sets: list[_Set] = []
        self._lock = threading.Lock()

    def add(self, files: Mapping[str, str | bytes]) -> tuple[Path, ...]:
        """Write texts and bytes under their names (as ``safe_output_name`` gives them) and return where they are.

        Raises TargetError when they cannot be written; nothing of them is then left.
        """
        with self._lock:
            folder = self._new_folder()
            try:
                paths = tuple(_written(folder / name, content) for name, content in files.items())
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise TargetError(
                    f"{next(iter(files))} cannot be written into the folder for temporary files "
                    f"({tempfile.gettempdir()}): {error.strerror}; make room there and try again."
                ) from None
            size = sum(path.stat().st_size for path in paths)
            self._sets.append(_Set(folder, paths, size, time.monotonic()))
            self._drop_old()
            return paths

    def holds(self, path: Path) -> bool:
        """Whether the file at ``path`` is one that was handed out here and is still kept, or a copy of one."""
        with self._lock:
            self._drop_old()
            # Gradio takes letters out of names that it copies; the ending stays.
            kept = [own for one in self._sets for own in one.paths if own.suffix == path.suffix]
        try:
            return path.is_file() and any(filecmp.cmp(path, own, shallow=False) for own in kept)
        except OSError:
            return False

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            self._sets.clear()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _new_folder(self) -> Path:
        try:
            if self._folder is None or not self._folder.is_dir():
                self._sets.clear()
                self._folder = Path(tempfile.mkdtemp(prefix="model-toolkit-"))
                atexit.register(self.close)
            return Path(tempfile.mkdtemp(dir=self._folder))
        except OSError as error:
            raise TargetError(
                f"There is no folder for temporary files ({error.strerror}); make room on the system's disk."
            ) from None

    def _drop_old(self) -> None:
        limit = time.monotonic() - self._seconds
        # The newest was just made for somebody who waits for it.
        while len(self._sets) > 1 and (
            len(self._sets) > self._most
            or self._sets[0].made < limit
            or sum(one.size for one in self._sets) > self._size
        ):
            shutil.rmtree(self._sets.pop(0).folder, ignore_errors=True)


def _written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
    return path


def private_folder() -> Path:
    """A new folder that only this user can read, and that is removed when the process ends: for Gradio's copies."""
    folder = tempfile.mkdtemp(prefix="model-toolkit-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


HANDED_OUT = Handouts()
"""Those of this process."""
