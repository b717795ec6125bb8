"""Make a model of a flat array and its description again: keys in their order, types, shapes, bits and metadata."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.compare.flat import SCHEMA, SUFFIX, WIDTHS, from_array
from lib_toolkit.casting import scratch
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError, VerificationError
from lib_toolkit.files import SourceFile
from lib_toolkit.formats import open_model
from lib_toolkit.formats.layout import Frame, Layout, Slot
from lib_toolkit.formats.safetensors_out import ALIGNMENT
from lib_toolkit.plan import Scalar, file_format_of
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.streaming import source_bytes, stream
from lib_toolkit.target import check_target, refuse_folder
from lib_toolkit.temporary import TemporaryFile
from lib_toolkit.tensors import Filled, Tensor, nbytes

if TYPE_CHECKING:
    from lib_toolkit.tensors import Bytes

_HEAD = 4096
_LARGEST_TEXT = 4 << 30


@dataclass(frozen=True, slots=True)
class FromArray:
    """A tensor whose values are elements of a flat array from the byte ``offset`` on."""

    source: SourceFile
    offset: int
    wide: DType
    dtype: DType
    shape: tuple[int, ...]

    @property
    def whole(self) -> bool:
        return False

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        with scratch(self.wide.nbytes(stop - start)) as flat:
            self.source.read_at(self.offset + self.wide.nbytes(start), flat.data)
            from_array(flat, self.wide, out, self.dtype)


@dataclass(frozen=True)
class Described:
    """The description: the tensors that the array makes, and what else the model's file held."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    values: Mapping[str, Scalar]


def unflatten(array: Path, target: Path, force: bool = False, progress: Progress = SILENT) -> int:
    """Write the model of ``array`` and its description to ``target``; returns the bytes written.

    Raises FormatError where the two do not fit or are damaged, UsageError and TargetError for the target, and
    CancelledError.
    """
    description = array.with_name(array.name + SUFFIX)
    refuse_folder(target)
    file_format = file_format_of(target)
    with closing(SourceFile(array)) as file:
        told = _described(file, description)
        layout = _layout(told, file_format)
        path = check_target(target, layout.size, (array, description), force)
        with TemporaryFile(path) as out:
            progress.start("writing", source_bytes(layout.slots))
            outcome = stream(layout.slots, out.write_at, progress, by_key=layout.needs_crcs)
            for offset, data in layout.frame(told.metadata, outcome.crcs):
                out.write_at(offset, memoryview(data))
            file.check_unchanged()
            out.sync()
            _check(out.path, told)
            out.commit(force)
    return layout.size


def _described(file: SourceFile, path: Path) -> Described:
    wide, count, start = _read_head(file)
    table = _read_json(path)
    if (table.get("schema"), table.get("dtype"), table.get("count")) != (SCHEMA, wide.storage, count):
        raise FormatError(f"{path} does not describe {file.path.name}: type or length differ; use the pair as made.")
    entries, metadata, values = table.get("tensors"), table.get("metadata"), table.get("values")
    try:
        if not (isinstance(entries, list) and isinstance(metadata, dict) and isinstance(values, dict)):
            raise ValueError("tensors, metadata or values are missing")
        tensors: dict[str, Tensor] = {}
        position = 0
        for entry in entries:
            dtype, shape = DType[entry["dtype"]], tuple(int(size) for size in entry["shape"])
            if entry["offset"] != position or min(shape, default=0) < 0:
                raise ValueError("an offset or shape is wrong")
            plain = FromArray(file, start + wide.nbytes(position), wide, dtype, shape)
            tensors[str(entry["key"])] = _tensor(entry, dtype, shape, plain)
            position += math.prod(shape)
        if position != count or len(tensors) != len(entries):
            raise ValueError("the tensors do not fill the array")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path} does not describe a flat array ({error}); make the pair again.") from None
    return Described(tensors, {str(key): str(text) for key, text in metadata.items()}, dict(values))


def _tensor(entry: Mapping[str, str], dtype: DType, shape: tuple[int, ...], plain: Tensor) -> Tensor:
    if "bits" not in entry:
        return plain
    data = base64.b64decode(entry["bits"], validate=True)
    if len(data) != nbytes(plain):
        raise ValueError("the bits of a tensor are too few or too many")
    return Filled(data, dtype, shape)


def _read_head(file: SourceFile) -> tuple[DType, int, int]:
    """Type, number of elements and start of the data of a .npy file."""
    words = io.BytesIO(file.read(0, min(_HEAD, file.size)))
    try:
        version = np.lib.format.read_magic(words)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(words)
        wide, (count,) = WIDTHS[np.dtype(dtype).str], shape
    except (ValueError, KeyError, TypeError, SyntaxError):
        raise FormatError(f"{file.path} is no flat array of float32 or float64 in .npy form; name one.") from None
    if file.size != words.tell() + wide.nbytes(count):
        raise FormatError(f"{file.path} is not as long as its header says; it is incomplete, make it again.")
    return wide, count, words.tell()


def _read_json(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise FormatError(f"{path} is too large for a description; make the pair again with flatten.")
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror or error}); it belongs beside the array.") from None
    except (ValueError, RecursionError):
        raise FormatError(f"{path} is not JSON text; make the pair again with flatten.") from None
    if not isinstance(table, dict):
        raise FormatError(f"{path} does not describe a flat array; make the pair again with flatten.")
    return table


def _layout(told: Described, file_format: str) -> Layout:
    if file_format == "ckpt":
        from lib_toolkit.formats.checkpoint_out import checkpoint_layout

        return checkpoint_layout(told.tensors, told.metadata, told.values)
    return _safetensors_layout(told.tensors, told.metadata)


def _safetensors_layout(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Layout:
    """Keys in the header in the order given, data with the widest types first, no word of metadata added."""
    spans: dict[str, tuple[int, int]] = {}
    end = 0
    for key in sorted(tensors, key=lambda key: -tensors[key].dtype.itemsize):
        spans[key] = (end, end + nbytes(tensors[key]))
        end = spans[key][1]
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for key, tensor in tensors.items():
        table[key] = {"dtype": tensor.dtype.name, "shape": list(tensor.shape), "data_offsets": list(spans[key])}
    raw = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    begin = -(-(8 + len(raw)) // ALIGNMENT) * ALIGNMENT
    padded = (begin - 8).to_bytes(8, "little") + raw.ljust(begin - 8)

    def frame(texts: Mapping[str, str], crcs: Mapping[str, int]) -> Frame:
        return [(0, padded)]

    return Layout(
        tuple(Slot(key, tensors[key], begin + first, last - first) for key, (first, last) in spans.items()),
        begin + end,
        frame,
    )


def _check(path: Path, told: Described) -> None:
    """The strict reader must find what was meant to be written."""
    try:
        with open_model(path) as model:
            found = [(key, tensor.dtype, tensor.shape) for key, tensor in model.tensors.items()]
    except FormatError as error:
        raise VerificationError(f"The new file could not be opened again ({error}); it was removed.") from error
    if found != [(key, tensor.dtype, tensor.shape) for key, tensor in told.tensors.items()]:
        raise VerificationError("The new file does not hold the tensors that were written; it was removed.")
