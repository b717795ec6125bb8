"""Checkpoints that are no zip archives: those of PyTorch before 1.6, and plain pickles of arrays.

The old format is five pickles (magic number, version, system, contents, keys of the storages) and then, for each
key, a count of elements in 8 bytes and the elements. Source: ``_legacy_save`` in ``torch/serialization.py``;
its writers store little-endian elements.
"""

from __future__ import annotations

import re
from dataclasses import replace

from lib_toolkit.errors import FormatError, IncompleteError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats.pickle_machine import MAX_PICKLE
from lib_toolkit.formats.pickle_model import Sorted, bind, sort_contents
from lib_toolkit.formats.pickle_nodes import Mapping
from lib_toolkit.formats.pickle_values import MalformedError, RefusedTensor, StorageRef, TensorRef
from lib_toolkit.formats.pickles import CutShortError, Pickle, read_pickle, shown
from lib_toolkit.formats.torch_objects import storage_of
from lib_toolkit.model import Model, Origin
from lib_toolkit.tensors import Tensor, stored_view

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
"""The first pickle up to its last byte: protocol 2 and the number 0x1950a86a20f9469cfc6c."""

_VERSION = 1001
_FIRST_WINDOW = 1 << 20
_COUNT = 8

_NEW_PICKLE = re.compile(rb"\x80[\x02-\x05][\x00-\xff]")
_OLD_PICKLE = re.compile(
    rb"(?:\(d|\(l|[\]}])(?:p\d+\r?\n|q[\x00-\xff])|c[A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n[(p)q]"
)
_OLD_MARK = re.compile(rb"\((?:i[A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n|X[\x00-\xff]{2}\0\0|S['\"])")


def looks_legacy(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (14 bytes or more) is a checkpoint of PyTorch before 1.6."""
    return head.startswith(MAGIC)


def looks_pickled(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a plain pickle, of any protocol."""
    return any(pattern.match(head) is not None for pattern in (_NEW_PICKLE, _OLD_PICKLE, _OLD_MARK))


def open_legacy_checkpoint(file: SourceFile) -> Model:
    """Read the pickles and the places of all storages; no tensor data is read.

    Raises FormatError when the file is damaged, incomplete, or longer than its storages, UnsafeFileError when
    it names something that runs programs.
    """
    label = str(file.path)
    contents, keys, end = _read_pickles(file, label)
    storages = _expected(contents, label)
    listed = _listed_keys(keys, label)
    if set(listed) != set(storages) or len(set(listed)) != len(listed):
        raise FormatError(f"{label} is damaged or forged: its list of storages does not fit its tensors; get it again.")
    places = _locate(file, end, listed, storages, label)

    def view(ref: TensorRef) -> Tensor:
        offset = places[ref.storage.key] + ref.storage.view_offset
        return stored_view(file, offset, ref.dtype, ref.shape, ref.stride, ref.offset)

    found = sort_contents(contents, label)
    tensors = bind(found.tensors, view, label)
    outside = bind(found.outside, view, label)
    return _model(file, "torch-legacy", found, tensors, outside)


def open_bare_pickle(file: SourceFile) -> Model:
    """Read a plain pickle, whose tensors can only be NumPy arrays inside of it.

    Raises FormatError when it holds none, when it is damaged, or larger than MAX_PICKLE; UnsafeFileError when it
    names something that runs programs.
    """
    label = str(file.path)
    if file.size > MAX_PICKLE:
        raise FormatError(
            f"{label} is a plain pickle of {file.size:,} bytes, more than the {MAX_PICKLE:,} that are read; "
            "save its arrays as safetensors where it was made."
        )
    pickle = read_pickle(file.read(0, file.size), 0, label)
    if pickle.end != file.size:
        raise FormatError(f"{label} is not a model: something follows its only pickle; get it again.")
    if pickle.persistent:
        raise FormatError(f"{label} is one part of an unpacked checkpoint without its data; get the whole checkpoint.")

    def view(ref: TensorRef) -> Tensor:
        raise FormatError(f"{label} refers to the storage {shown(ref.storage.key)!r}, which it lacks; get it again.")

    found = sort_contents(pickle, label)
    return _model(file, "pickle", found, bind(found.tensors, view, label), bind(found.outside, view, label))


def _model(file: SourceFile, kind: str, found: Sorted, tensors: dict[str, Tensor], outside: dict[str, Tensor]) -> Model:
    if not tensors:
        raise FormatError(
            f"{file.path} holds no tensors, so it is not a model; it may be a configuration, a log or a data set."
        )
    return Model(
        tensors=tensors,
        origin=Origin(file.path, kind, file.size, file),
        metadata=found.metadata,
        container=found.container,
        outside=outside,
        values=found.values,
        notes=tuple(found.notes),
        warnings=tuple(found.warnings),
        foreign=tuple(found.foreign),
    )


def _read_pickles(file: SourceFile, label: str) -> tuple[Pickle, Pickle, int]:
    """The pickles of contents and of keys, and where they end.

    How long they are is not stated, so more is read until they are whole.
    """
    window = _FIRST_WINDOW
    while True:
        data = file.read(0, min(window, file.size))
        try:
            return _parse(data, label)
        except CutShortError:
            if len(data) == file.size:
                raise
            if window >= MAX_PICKLE:
                raise FormatError(
                    f"{label} is damaged: its list of contents takes more than {MAX_PICKLE:,} bytes; get it again."
                ) from None
        window *= 8


def _parse(data: bytes, label: str) -> tuple[Pickle, Pickle, int]:
    magic = read_pickle(data, 0, label)
    version = read_pickle(data, magic.end, label)
    if magic.value != int.from_bytes(MAGIC[4:], "little") or version.value != _VERSION:
        raise FormatError(f"{label} is in an unknown version of PyTorch's old format; save it as safetensors.")
    system = read_pickle(data, version.end, label)
    if isinstance(system.value, Mapping):
        for key, value in system.value.pairs[:100]:
            if isinstance(key, str) and key == "little_endian" and value is not True:
                raise FormatError(
                    f"{label} was written on a big-endian machine in PyTorch's old format, which cannot be opened; "
                    "save it again with PyTorch 1.6 or later."
                )
    contents = read_pickle(data, system.end, label)
    keys = read_pickle(data, contents.end, label)
    names = (name for pickle in (contents, magic, version, system, keys) for name in pickle.names)
    return replace(contents, names=tuple(names)), keys, keys.end


def _expected(contents: Pickle, label: str) -> dict[str, StorageRef]:
    """Every storage that the contents refer to, by key."""
    storages: dict[str, StorageRef] = {}
    for node in contents.persistent:
        try:
            storage = storage_of(node.identity)
        except MalformedError as error:
            raise FormatError(f"{label} is damaged or forged: {error}; get it again.") from None
        if isinstance(storage, RefusedTensor):
            raise FormatError(
                f"{label} holds {storage.reason} ({shown(storage.name)}), so where its data lie cannot be told; "
                "save it as safetensors where it was made."
            )
        known = storages.setdefault(storage.key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            raise FormatError(f"{label} is damaged or forged: a storage has two sizes; get it again.")
    return storages


def _listed_keys(keys: Pickle, label: str) -> list[str]:
    if not isinstance(keys.value, list) or not all(type(key) in (str, int) for key in keys.value):
        raise FormatError(f"{label} is damaged: its list of storages is no list; get it again.")
    return [str(key) for key in keys.value]


def _locate(
    file: SourceFile, start: int, keys: list[str], storages: dict[str, StorageRef], label: str
) -> dict[str, int]:
    """The first byte of each storage. Raises FormatError unless they fill the file exactly."""
    places: dict[str, int] = {}
    position = start
    for key in keys:
        storage = storages[key]
        if position + _COUNT + storage.nbytes > file.size:
            raise IncompleteError(f"{label} is incomplete: it ends before its tensors do; get it again.")
        if int.from_bytes(file.read(position, _COUNT), "little") != storage.numel:
            raise FormatError(
                f"{label} is damaged or forged: a storage has another size than its tensors say; get it again."
            )
        places[key] = position + _COUNT
        position += _COUNT + storage.nbytes
    if position != file.size:
        raise FormatError(f"{label} is damaged or forged: {file.size - position:,} bytes follow its end; get it again.")
    return places
