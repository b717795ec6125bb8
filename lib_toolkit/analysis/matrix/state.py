"""A sweep that was interrupted: its sums so far, kept in a file beside the results, and taken up again.

The file is a NumPy archive of plain numbers (no pickles) and one array of bytes that holds JSON: the version, what
files they are (path, size, time of change), which tasks there were, and how many are done. Sums are kept to the bit,
so that a sweep in two parts ends as one in a single go.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib_toolkit.analysis.matrix.sums import Sums
from lib_toolkit.analysis.matrix.sweep import block_of
from lib_toolkit.analysis.matrix.tasks import Work
from lib_toolkit.model import Model
from lib_toolkit.temporary import TemporaryFile

NAME = "matrix.state.npz"
"""The file's name in the folder of the results."""

_VERSION = 3
_HEAD = "head"
_LARGEST = 4 << 30


def key_of(models: Sequence[Model], work: Work) -> str:
    """A digest of everything that must be unchanged for sums to be added to."""
    files = []
    for model in models:
        stat = model.origin.path.stat()
        files.append([str(model.origin.path.resolve()), stat.st_size, stat.st_mtime_ns])
    tasks = [[task.key, list(task.tensors), list(task.groups)] for task in work.tasks]
    groups = [[group.kind, group.id] for group in work.groups]
    told = json.dumps([_VERSION, block_of(len(files)), files, groups, tasks])
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Keeper:
    """Writes the state to ``folder`` now and then; a folder of None keeps nothing."""

    folder: Path | None
    key: str
    every: float = 30.0
    _last: float = field(default_factory=time.monotonic)

    def load(self, sums: Sums, failed: dict[int, str]) -> int:
        """Take up what a sweep of the same files left; returns how many tasks are done, 0 for none."""
        if self.folder is None:
            return 0
        try:
            if (self.folder / NAME).stat().st_size > _LARGEST:
                return 0
            with np.load(self.folder / NAME, allow_pickle=False) as archive:
                head = json.loads(archive[_HEAD].tobytes())
                stored = {name: archive[name] for name in sums.arrays()}
                gained = {name: archive[name] for name in sums.gains.arrays()}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return 0
        own = sums.arrays()
        fits = all(stored[name].shape == own[name].shape and stored[name].dtype == own[name].dtype for name in own)
        if not isinstance(head, dict) or head.get("key") != self.key or not fits:
            return 0
        try:
            sums.gains.take_up(head["gains"], gained)
        except (ValueError, TypeError, KeyError):
            return 0
        for name, array in own.items():
            array[...] = stored[name]
        failed.update({int(place): str(why) for place, why in head["failed"].items()})
        return int(head["done"])

    def note(self, sums: Sums, failed: dict[int, str], done: int) -> None:
        """Keep the state if it is time to."""
        if self.folder is not None and time.monotonic() - self._last >= self.every:
            self.save(sums, failed, done)

    def save(self, sums: Sums, failed: dict[int, str], done: int) -> None:
        """Keep the state. Raises TargetError when the folder cannot be written to."""
        if self.folder is None:
            return
        told = {"key": self.key, "done": done, "failed": {str(k): v for k, v in failed.items()}}
        head = json.dumps({**told, "gains": sums.gains.keys()})
        data = io.BytesIO()
        arrays: dict[str, object] = {**sums.arrays(), **sums.gains.arrays()}
        np.savez(data, **{_HEAD: np.frombuffer(head.encode(), dtype=np.uint8), **arrays})  # type: ignore[arg-type]
        with TemporaryFile(self.folder / NAME) as file:
            file.write_at(0, data.getbuffer())
            file.sync()
            file.commit(force=True)
        self._last = time.monotonic()


def forget(folder: Path) -> None:
    """Remove what is kept in a folder: the results are written."""
    (folder / NAME).unlink(missing_ok=True)
