"""Whether a model that is to be filed away stands in its folder already, told by fingerprints.

Only files of the folder with the same tensors (names, types, shapes) and a fitting size are looked at, and only
those whose first values agree are read in full. Fingerprints know values as FP16 rounds them: where tensors are of
another precision, their bytes are compared as well. What was found out is remembered by path, size and time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from lib_toolkit.analysis.collect import collect
from lib_toolkit.analysis.fingerprint import fingerprints, parts_by_key
from lib_toolkit.analysis.values import Request
from lib_toolkit.autoprune.looking import SUFFIXES
from lib_toolkit.casting import Cast, scratch
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError, TargetError, UnreadableError
from lib_toolkit.files import open_regular
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.model import Model, count_bytes
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.streaming import PIECE
from lib_toolkit.temporary import TemporaryFile
from lib_toolkit.tensors import Tensor, numel

CACHE = ".autoprune.cache.json"
SCHEMA = 2

_AROUND = 16 << 20
"""Bytes that a file may have beside its tensors."""

_SAMPLED, _SAMPLE = 4, 256
_MOST_FILES = 20_000


@dataclass
class _Entry:
    """What is known of a file. ``table`` stands for its tensors' names, types and shapes, ``sample`` for its first
    values; empty for what is no model. ``fingerprint``: of the file; empty until it was needed."""

    size: int
    time: int
    table: str = ""
    sample: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class _Kept:
    """A source that was dealt with and stays where it is: its size and time, what was wished (``Policy.mark``), and
    where the result is."""

    size: int
    time: int
    wishes: str
    target: str


@dataclass
class _Folder:
    """The model files of a folder: size, path and time of each. ``strange`` ones, by size, were not looked at yet;
    those in ``about`` are found by what is told of them."""

    strange: list[_Listed]
    about: dict[About, list[_Listed]] = field(default_factory=dict)

    def fitting(self, least: int, most: int) -> list[_Listed]:
        """The strange files of these sizes, which are then no longer strange."""
        begin, end = (bisect_left(self.strange, size, key=lambda listed: listed[0]) for size in (least, most + 1))
        found = self.strange[begin:end]
        del self.strange[begin:end]
        return found


_Listed: TypeAlias = "tuple[int, Path, int]"

About: TypeAlias = "tuple[str, str]"
"""What can be told of a model at little cost: ``table`` and ``sample`` of its entry."""


def describe(model: Model) -> About:
    """Reads a few values. Raises FormatError when they cannot be read."""
    return _table(model), _sample(model)


class Known:
    """What is known of the models in target folders, and of sources that were kept where they are."""

    def __init__(self, drop: Path, threads: int | None = None, wishes: str = "") -> None:
        """``wishes`` are those of now, as sources are kept with them."""
        self._path = drop / CACHE
        self._threads = threads
        self._wishes = wishes
        self._folders: dict[Path, _Folder] = {}
        self._entries: dict[str, _Entry] = {}
        self._kept: dict[str, _Kept] = {}
        self._changed = False
        self._read()

    def equal_to(self, model: Model, about: About, folder: Path, progress: Progress = SILENT) -> Path | None:
        """A file in or below ``folder`` that holds what ``model`` (of a plan), so described, would; None where there
        is none.

        Raises FormatError when the model cannot be read, and CancelledError.
        """
        data, own = count_bytes(model.tensors.values()), ""
        known = self._folder(folder)
        for size, path, time in known.fitting(data, data + _AROUND):
            entry = self._entry(path, size, time)
            known.about.setdefault((entry.table, entry.sample), []).append((size, path, time))
        for size, path, time in known.about.get(about, ()):
            own = own or _fingerprint(model, progress, self._threads)
            same = self._fingerprint_of(path, self._entry(path, size, time), progress) == own
            if same and _holds_the_bytes(path, model, progress):
                return path
        return None

    def is_equal(self, model: Model, path: Path, progress: Progress = SILENT) -> bool:
        """Whether the file holds what ``model`` would."""
        try:
            status = path.stat()
        except OSError:
            return False
        entry = self._entry(path, status.st_size, status.st_mtime_ns)
        if (entry.table, entry.sample) != (_table(model), _sample(model)):
            return False
        same = self._fingerprint_of(path, entry, progress) == _fingerprint(model, progress, self._threads)
        return same and _holds_the_bytes(path, model, progress)

    def add(self, folder: Path, path: Path, about: About) -> None:
        """A file that is so described has come into the folder."""
        with contextlib.suppress(OSError):
            status = path.stat()
            if folder in self._folders:
                listed = (status.st_size, path, status.st_mtime_ns)
                self._folders[folder].about.setdefault(about, []).append(listed)
            entry = _Entry(status.st_size, status.st_mtime_ns, *about)
            self._entries[str(path)] = entry
            self._changed = True

    def keep(self, name: str, mark: tuple[int, int, int], target: str) -> None:
        """A source was dealt with and stays where it is; ``target`` holds what became of it."""
        self._kept[name] = _Kept(*mark[:2], self._wishes, target)
        self._changed = True

    def was_kept(self, name: str, mark: tuple[int, int, int]) -> bool:
        """Whether this source, unchanged, was dealt with before as is wished now, and the result is still there."""
        kept = self._kept.get(name)
        if kept is None or kept != _Kept(*mark[:2], self._wishes, kept.target):
            return False
        return os.path.isfile(kept.target)  # noqa: PTH113 (Path.is_file raises where a folder is closed)

    def save(self) -> None:
        """Remember it for the next run; when that fails, it is found out again then."""
        if not self._changed:
            return
        entries = {path: asdict(entry) for path, entry in self._entries.items() if not _is_gone(path)}
        kept = {name: asdict(one) for name, one in self._kept.items() if not _is_gone(self._path.parent / name)}
        data = json.dumps({"schema": SCHEMA, "models": entries, "kept": kept}).encode()
        with contextlib.suppress(TargetError, OSError), TemporaryFile(self._path) as file:
            file.write_at(0, memoryview(data))
            file.sync()
            file.commit(force=True)
            self._changed = False

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            with open_regular(self._path) as file:
                told = json.load(file)
            if told.get("schema") == SCHEMA:
                self._kept = {str(name): _checked(_Kept(**one)) for name, one in told["kept"].items()}
                self._entries = {str(path): _checked(_Entry(**entry)) for path, entry in told["models"].items()}

    def _folder(self, folder: Path) -> _Folder:
        if folder not in self._folders:
            found = []
            for path in _models_below(folder, without=self._path.parent):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    found.append((status.st_size, path, status.st_mtime_ns))
            self._folders[folder] = _Folder(sorted(found))
        return self._folders[folder]

    def _entry(self, path: Path, size: int, time: int) -> _Entry:
        entry = self._entries.get(str(path))
        if entry is None or (entry.size, entry.time) != (size, time):
            entry = _Entry(size, time)
            try:
                with open_model(path) as model:
                    entry.table, entry.sample = _table(model), _sample(model)
            except (UnreadableError, OSError):
                return _Entry(size, time)  # it may be a model: a later run looks again
            except FormatError:
                pass
            self._entries[str(path)] = entry
            self._changed = True
        return entry

    def _fingerprint_of(self, path: Path, entry: _Entry, progress: Progress) -> str:
        if not entry.fingerprint:
            with contextlib.suppress(FormatError, OSError), open_model(path) as model:
                entry.fingerprint = _fingerprint(model, progress, self._threads)
                self._changed = True
        return entry.fingerprint


_Record = TypeVar("_Record", _Kept, _Entry)


def _checked(record: _Record) -> _Record:
    """The record of a cache, which may hold anything. Raises TypeError where it is not of numbers and texts."""
    for one in fields(record):
        if not isinstance(getattr(record, one.name), int if one.type == "int" else str):
            raise TypeError(one.name)
    return record


def _is_gone(path: str | Path) -> bool:
    """Whether nothing is there for sure: what cannot be asked for now may be there again later."""
    try:
        os.stat(path)  # noqa: PTH116 (a thousand paths are not needed)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False


def _models_below(folder: Path, without: Path) -> Iterator[Path]:
    """Model files, save those of the drop folder, should that lie here."""
    count = 0
    for here, folders, files in os.walk(os.path.realpath(folder)):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(here, name) != without]
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(here) / name
                count += 1
        if count > _MOST_FILES:
            return


def _table(model: Model) -> str:
    names = {dtype: dtype.name for dtype in DType}
    lines = sorted(f"{key!r} {names[tensor.dtype]} {tensor.shape}" for key, tensor in model.tensors.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _sample(model: Model) -> str:
    """A few values of a few tensors, rounded as fingerprints are."""
    filled = sorted(key for key, tensor in model.tensors.items() if 0 not in tensor.shape)
    chosen = {index * (len(filled) - 1) // (_SAMPLED - 1) for index in range(_SAMPLED)} if filled else set[int]()
    whole = hashlib.sha256()
    for key in (filled[index] for index in sorted(chosen)):
        whole.update(_beginning(model.tensors[key]))
    return whole.hexdigest()[:32]


def _beginning(tensor: Tensor) -> bytes:
    if tensor.dtype.castable and tensor.dtype is not DType.F16:
        tensor = Cast(tensor, DType.F16)  # of the values as the file holds them, also where those are a cast
    count = min(_SAMPLE, numel(tensor))
    if tensor.dtype.bits < 8:
        count = count // 8 * 8
    out = np.empty(tensor.dtype.nbytes(count), dtype=np.uint8)
    tensor.read_into(0, count, out)
    if tensor.dtype is DType.F16:
        values = out.view("<f2")
        values[np.isnan(values)] = np.nan
    return out.tobytes()


def _holds_the_bytes(path: Path, model: Model, progress: Progress) -> bool:
    """Whether the file has the bytes of those tensors of the model that a fingerprint rounds."""
    rounded = {
        key: tensor for key, tensor in model.tensors.items() if tensor.dtype.castable and tensor.dtype is not DType.F16
    }
    if not rounded:
        return True
    progress.start("comparing with an equal model", count_bytes(rounded.values()))
    try:
        other = open_model(path)
    except (FormatError, OSError):
        return False  # it went away
    with other:
        return all(_have_same_bytes(tensor, other.tensors.get(key), progress) for key, tensor in rounded.items())


def _have_same_bytes(one: Tensor, other: Tensor | None, progress: Progress) -> bool:
    if other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    count = numel(one)
    step = count if one.whole or other.whole else PIECE
    for start in range(0, count, max(1, step)):
        stop = min(start + step, count)
        size = one.dtype.nbytes(stop - start)
        with scratch(size) as here, scratch(size) as there:
            one.read_into(start, stop, here)
            try:
                other.read_into(start, stop, there)
            except (FormatError, OSError):
                return False
            if not np.array_equal(here, there):
                return False
        progress.advance(size)
    return True


def _fingerprint(model: Model, progress: Progress, threads: int | None) -> str:
    """The fingerprint of the whole file that the model is, or would be."""
    found = identify(model)
    requests = {key: Request(parts=parts) for key, parts in parts_by_key(model, found).items()}
    facts = collect(model, requests, (), progress, "looking for an equal model", threads).facts
    return fingerprints(found, [record for fact in facts.values() for record in fact.records], {})[1]
