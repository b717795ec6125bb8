"""Write a model as one flat array and its description (``flat`` says what they are), streamed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.compare.flat import SCHEMA, STEP, SUFFIX, array_type, to_array
from lib_toolkit.casting import scratch
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import UsageError
from lib_toolkit.model import Model
from lib_toolkit.plan import plan_of
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.target import check_target, refuse_folder
from lib_toolkit.temporary import TemporaryFile
from lib_toolkit.tensors import Tensor, nbytes, numel

if TYPE_CHECKING:
    from lib_toolkit.tensors import Bytes

_ALIGNMENT = 64
_MAGIC = b"\x93NUMPY\x01\x00"


@dataclass(frozen=True)
class Flattened:
    """What was written. ``exact``: keys of tensors whose stored bytes stand in the description too."""

    array: Path
    description: Path
    dtype: DType
    count: int
    exact: tuple[str, ...]


def flatten(model: Model, target: Path, force: bool = False, progress: Progress = SILENT) -> Flattened:
    """Write ``target`` (.npy) and its description beside it; both or neither come into being.

    Raises UsageError for another ending, TargetError when they cannot be written, FormatError when the model cannot
    be read, and CancelledError.
    """
    refuse_folder(target)
    if target.suffix.lower() != ".npy":
        raise UsageError(f"{target.name} must end in .npy, so that other programs know what it is.")
    wide = array_type(model.tensors)
    count = sum(numel(tensor) for tensor in model.tensors.values())
    head = _head(wide, count)
    source = (model.origin.path,)
    array = check_target(target, len(head) + wide.nbytes(count), source, force)
    description = check_target(target.with_name(target.name + SUFFIX), 0, source, force)
    with ExitStack() as stack:
        flat, text = (stack.enter_context(TemporaryFile(path)) for path in (array, description))
        flat.write_at(0, memoryview(head))
        exact = _stream(model, flat, len(head), wide, progress)
        position = 0
        for part in _description(model, wide, count, exact):
            text.write_at(position, memoryview(part))
            position += len(part)
        if model.origin.file is not None:
            model.origin.file.check_unchanged()
        flat.sync()
        text.sync()
        flat.commit(force)
        text.commit(force)
    return Flattened(array, description, wide, count, tuple(exact))


def _head(wide: DType, count: int) -> bytes:
    """The beginning of the .npy file, version 1.0, padded so that data are aligned."""
    words = f"{{'descr': '{wide.storage}', 'fortran_order': False, 'shape': ({count},), }}".encode()
    length = -(-(len(_MAGIC) + 2 + len(words) + 1) // _ALIGNMENT) * _ALIGNMENT - len(_MAGIC) - 2
    return _MAGIC + length.to_bytes(2, "little") + words.ljust(length - 1) + b"\n"


def _stream(model: Model, file: TemporaryFile, start: int, wide: DType, progress: Progress) -> list[str]:
    """Write every tensor's elements; the keys of those that need their bits beside them."""
    progress.start("flattening", sum(nbytes(tensor) for tensor in model.tensors.values()))
    exact: list[str] = []
    position = start
    for key, tensor in model.tensors.items():
        survives = True
        for raw, count in _pieces(tensor):
            with scratch(wide.nbytes(count)) as out:
                survives = to_array(raw, tensor.dtype, out, wide) and survives
                file.write_at(position, out.data)
            position += wide.nbytes(count)
            progress.advance(raw.size)
        if not survives:
            exact.append(key)
    return exact


def _pieces(tensor: Tensor) -> Iterator[tuple[Bytes, int]]:
    """The stored bytes of a tensor in pieces, each with its number of elements."""
    count = numel(tensor)
    step = max(1, count) if tensor.whole else STEP
    for begin in range(0, count, step):
        end = min(begin + step, count)
        raw = np.empty(tensor.dtype.nbytes(end - begin), dtype=np.uint8)
        tensor.read_into(begin, end, raw)
        yield raw, end - begin


def _description(model: Model, wide: DType, count: int, exact: list[str]) -> Iterator[bytes]:
    """The JSON text in parts, so that bits of any size fit."""
    plan = plan_of(model)
    head: dict[str, object] = {
        "schema": SCHEMA,
        "source": {"name": model.name, "format": model.origin.format},
        "dtype": wide.storage,
        "count": count,
        "metadata": dict(model.metadata),
        "values": dict(plan.values),
    }
    yield json.dumps(head, indent=1)[:-2].encode() + b',\n "tensors": ['
    offset = 0
    for number, (key, tensor) in enumerate(model.tensors.items()):
        entry = {"key": key, "dtype": tensor.dtype.name, "shape": list(tensor.shape), "offset": offset}
        line = ("," if number else "") + "\n  " + json.dumps(entry)
        if key in exact:
            yield line[:-1].encode() + b', "bits": "'
            yield from _base64(tensor)
            yield b'"}'
        else:
            yield line.encode()
        offset += numel(tensor)
    yield b"\n ]\n}\n"


def _base64(tensor: Tensor) -> Iterator[bytes]:
    left = b""
    for raw, _ in _pieces(tensor):
        data = left + raw.tobytes()
        cut = len(data) - len(data) % 3
        yield base64.b64encode(data[:cut])
        left = data[cut:]
    yield base64.b64encode(left)
