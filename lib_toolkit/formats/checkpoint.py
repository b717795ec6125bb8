"""Checkpoints that PyTorch 1.6 and later write: a zip archive of one pickle and one entry for each storage.

Format: ``torch/serialization.py`` and ``caffe2/serialize/inline_container.cc`` of PyTorch 1.6 to 2.13. Only
the zip directory and ``data.pkl`` are read here; tensors are ranges of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lib_toolkit.errors import FormatError
from lib_toolkit.files import ByteSource, SourceFile
from lib_toolkit.formats.inflate import Inflater, read_entry
from lib_toolkit.formats.pickle_machine import MAX_PICKLE
from lib_toolkit.formats.pickle_model import bind, sort_contents
from lib_toolkit.formats.pickle_values import StorageRef, TensorRef
from lib_toolkit.formats.pickles import read_pickle, shown
from lib_toolkit.formats.zip_reader import ZipEntry, read_directory
from lib_toolkit.model import Checksum, Model, Origin
from lib_toolkit.tensors import Tensor, stored_view

_PICKLE = "/data.pkl"
_KNOWN = frozenset(
    {"data.pkl", "byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id"}
)
_USUAL = re.compile(r"data/\d+|data\.pkl|version|byteorder|\.data/serialization_id", re.ASCII)
"""What WebUIs of 2023 accept in an archive before they open it (``modules/safe.py`` of A1111); others they refuse as
possibly malicious, even what newer versions of PyTorch add."""
_SHORT = 64
"""Bytes of the longest ``byteorder`` entry that is looked at."""


def open_zip_checkpoint(file: SourceFile) -> Model:
    """Read and check the directory and the pickle of a checkpoint; no tensor data is read.

    Raises FormatError when the archive is damaged, ambiguous, or not a checkpoint, UnsafeFileError when its
    pickle names something that runs programs.
    """
    label = str(file.path)
    entries = {entry.name: entry for entry in read_directory(file)}
    root = _find_root(entries, label)
    big_endian = _is_big_endian(file, entries.get(f"{root}/byteorder"))
    data = read_entry(file, entries[root + _PICKLE], MAX_PICKLE)
    pickle = read_pickle(data, 0, label)
    if pickle.end != len(data):
        raise FormatError(f"{label} is damaged or forged: something follows its list of contents; get it again.")
    found = sort_contents(pickle, label)
    storages = _Storages(file, root, entries, big_endian)
    tensors = bind(found.tensors, storages.view, label)
    outside = bind(found.outside, storages.view, label)
    if not tensors:
        raise FormatError(f"{label} holds no tensors, so it is not a model; it may be a configuration or a log.")
    notes, warnings = _unused(root, entries, storages.used)
    unusual = [name for name in entries if not _USUAL.fullmatch(name.removeprefix(f"{root}/"))]
    return Model(
        tensors=tensors,
        origin=Origin(file.path, "torch-zip", file.size, file),
        metadata=found.metadata,
        container=found.container,
        outside=outside,
        values=found.values,
        notes=(*found.notes, *notes),
        warnings=(*found.warnings, *warnings),
        checksums=storages.checksums(),
        foreign=tuple(found.foreign),
        unusual=tuple(unusual),
    )


def _find_root(entries: Mapping[str, ZipEntry], label: str) -> str:
    """The folder that everything lies in. Raises FormatError when the archive is something else."""
    pickles = [name for name in entries if name.endswith(_PICKLE) or name == _PICKLE[1:]]
    if not pickles:
        raise FormatError(
            f"{label} is a zip archive but not a PyTorch checkpoint; unpack it and open the model that may be inside."
        )
    root = pickles[0][: -len(_PICKLE)]
    if len(pickles) > 1 or not root or "/" in root:
        raise FormatError(f"{label} is misleading: it does not hold exactly one list of contents; get it again.")
    if f"{root}/constants.pkl" in entries or any(name.startswith(f"{root}/code/") for name in entries):
        raise FormatError(
            f"{label} is a TorchScript archive, a program rather than a model file; "
            "look for the model's checkpoint or safetensors version."
        )
    return root


def _is_big_endian(file: SourceFile, entry: ZipEntry | None) -> bool:
    order = read_entry(file, entry, _SHORT).strip() if entry is not None else b"little"
    if order not in (b"little", b"big"):
        raise FormatError(f"{file.path} is damaged: it states an unknown byte order; get it again.")
    return order == b"big"


class _Storages:
    """The entries that hold storages, opened as the tensors ask for them."""

    def __init__(self, file: SourceFile, root: str, entries: Mapping[str, ZipEntry], big_endian: bool) -> None:
        self.used: dict[str, ZipEntry] = {}
        self._file = file
        self._prefix = f"{root}/data/"
        self._entries = entries
        self._big_endian = big_endian
        self._inflater = Inflater(file)
        self._sources: dict[str, tuple[ByteSource, int]] = {}

    def view(self, ref: TensorRef) -> Tensor:
        """The tensor behind a reference. Raises FormatError when its entry is missing or has another size."""
        source, start = self._open(ref.storage)
        offset = start + ref.storage.view_offset
        return stored_view(source, offset, ref.dtype, ref.shape, ref.stride, ref.offset, self._big_endian)

    def checksums(self) -> tuple[Checksum, ...]:
        """What the archive states for the entries in use that lie in the file as they are."""
        return tuple(
            Checksum(entry.name, entry.data_offset, entry.size, entry.crc)
            for entry in self.used.values()
            if entry.stored and entry.size
        )

    def _open(self, storage: StorageRef) -> tuple[ByteSource, int]:
        name = self._prefix + storage.key
        entry = self._entries.get(name)
        if entry is None:
            raise FormatError(f"{self._file.path} is incomplete: {shown(name)!r} is missing in it; get it again.")
        if entry.size != storage.nbytes:
            raise FormatError(
                f"{self._file.path} is damaged or forged: {shown(name)!r} has {entry.size:,} bytes "
                f"where {storage.nbytes:,} are due; get it again."
            )
        if name not in self._sources:
            self.used[name] = entry
            stored = entry.stored
            self._sources[name] = (self._file, entry.data_offset) if stored else (self._inflater.source(entry), 0)
        return self._sources[name]


def _unused(
    root: str, entries: Mapping[str, ZipEntry], used: Mapping[str, ZipEntry]
) -> tuple[Sequence[str], Sequence[str]]:
    """A note on storages that no tensor refers to, a warning on entries that no checkpoint has."""
    idle, foreign = 0, []
    for name, entry in entries.items():
        inner = name[len(root) + 1 :] if name.startswith(f"{root}/") else None
        folder = name.endswith("/") and entry.size == 0
        if folder or inner in _KNOWN or name in used:
            continue
        if inner is not None and inner.startswith("data/"):
            idle += 1
        else:
            foreign.append(name)
    notes = (
        [f"{idle:,} stored parts belong to no tensor"] if idle > 1 else ["1 stored part belongs to no tensor"] * idle
    )
    if not foreign:
        return notes, []
    listed = ", ".join(shown(name) for name in foreign[:3])
    one = len(foreign) == 1
    told = "1 entry that is no part" if one else f"{len(foreign):,} entries that are no part"
    return notes, [f"holds {told} of a checkpoint and {'is' if one else 'are'} ignored: {listed}"]
