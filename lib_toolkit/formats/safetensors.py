"""Reading safetensors files: the header with every check, tensors as lazy spans.

Format: https://github.com/huggingface/safetensors (8-byte little-endian header length, JSON header, data).
The checks are at least those of the reference loader: whatever it refuses is refused here, and repeated
names, which it lets pass although the format forbids them, are refused too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError, IncompleteError
from lib_toolkit.files import SourceFile
from lib_toolkit.model import Model, Origin
from lib_toolkit.tensors import Stored, nbytes

MAX_HEADER = 100_000_000
"""Bytes of the longest header that the reference loader accepts."""

_MAX_DIGITS = 19
_LONG_NUMBER = re.compile(rb"\d{%d}" % (_MAX_DIGITS + 1))
"""Only where there may be one is each number looked at by hand: it takes longer than everything else."""

_MAX_DIMENSIONS = 64
_LIMIT = 2**63
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_TYPES = dict(DType.__members__)


def looks_like_safetensors(head: bytes) -> bool:
    """Whether the first 9 bytes are a plausible header length and the opening brace of the header."""
    return len(head) >= 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 2**40


def open_safetensors(file: SourceFile) -> Model:
    """Read and check the header; no tensor data is read.

    Raises FormatError when the header is not exactly as the format demands or does not cover the file.
    """
    header, data_start = _read_header(file)
    metadata = _metadata(header.pop("__metadata__", None), file.path)
    warnings: list[str] = []
    tensors = {key: _tensor(key, value, file, data_start, warnings) for key, value in header.items()}
    _check_cover(tensors, data_start, file)
    return Model(
        tensors=tensors,
        origin=Origin(file.path, "safetensors", file.size, file),
        metadata=metadata,
        warnings=tuple(warnings),
    )


def _read_header(file: SourceFile) -> tuple[dict[str, object], int]:
    if file.size < 10:
        raise IncompleteError(f"{file.path} is too short ({file.size} bytes) to be a model; get it again.")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > MAX_HEADER:
        raise FormatError(
            f"{file.path} states a header of {length:,} bytes, more than the format allows; get it again."
        )
    if 8 + length > file.size:
        raise IncompleteError(
            f"{file.path} is incomplete: its header takes {length:,} bytes, the file has {file.size:,}; get it again."
        )
    raw = file.read(8, length)
    if not raw.startswith(b"{"):
        raise FormatError(f"{file.path} has no safetensors header where one is due; get it again.")
    return _parse(raw, file.path), 8 + length


def _parse(raw: bytes, path: Path) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise FormatError(
                f"{path} names {twice[:80]!r} twice in its header, so readers disagree about it; refused."
            )
        return table

    def integer(digits: str) -> int:
        if len(digits) > _MAX_DIGITS + 1:
            raise FormatError(f"{path} has a number of {len(digits)} digits in its header; it is damaged.")
        return int(digits)

    def refuse(text: str) -> object:
        raise FormatError(f"{path} has {text[:20]} in its header, where only whole numbers may stand; it is damaged.")

    try:
        header = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique,
            parse_int=integer if _LONG_NUMBER.search(raw) else None,
            parse_float=refuse,
            parse_constant=refuse,
        )
    except UnicodeDecodeError:
        raise FormatError(f"{path} has a header that is not UTF-8 text; it is damaged, get it again.") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} has a header that is not valid JSON ({error}); it is damaged, get it again."
        ) from None
    if not isinstance(header, dict):
        raise FormatError(f"{path} has a header that is no JSON object; it is damaged, get it again.")
    return header


def _metadata(value: object, path: Path) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError(f"{path} has metadata that is not a mapping of text to text; it is damaged.")
    return value


def _tensor(key: str, value: object, file: SourceFile, data_start: int, warnings: list[str]) -> Stored:
    if not isinstance(value, dict):
        raise _bad(file, key, "no dtype, shape and data_offsets")
    try:
        name, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    except KeyError:
        raise _bad(file, key, "no dtype, shape and data_offsets") from None
    if len(value) > len(_FIELDS):
        extra = ", ".join(sorted(value.keys() - _FIELDS))
        warnings.append(f"The header's entry for {key[:80]!r} has unknown fields: {extra[:80]}.")
    dtype = _TYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise _bad(file, key, f"the unknown type {str(name)[:40]!r}")
    if not _whole_numbers(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _bad(file, key, "a shape that is not a list of sizes")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise _bad(file, key, "offsets that are not two positions")
    begin, end = offsets
    count = math.prod(shape)
    bits = count * dtype.bits
    if bits >= _LIMIT:
        raise _bad(file, key, "a size beyond all bounds")
    if bits != 8 * (end - begin):
        raise _bad(file, key, f"{end - begin:,} bytes for {count:,} elements of {name}")
    return Stored(file, data_start + begin, dtype, tuple(shape))


def _bad(file: SourceFile, key: str, what: str) -> FormatError:
    return FormatError(
        f"{file.path}: the header's entry for {key[:80]!r} has {what}; the file is damaged, get it again."
    )


def _whole_numbers(value: object) -> bool:
    """Whether this is a list of integers from 0 to 2^63 - 1; true and 1.0 are not integers here."""
    if not isinstance(value, list):
        return False
    for item in value:  # noqa: SIM110 (all() takes twice as long for the few numbers of each tensor)
        if type(item) is not int or not 0 <= item < _LIMIT:
            return False
    return True


def _check_cover(tensors: Mapping[str, Stored], data_start: int, file: SourceFile) -> None:
    """The tensors must fill the data part exactly: no hole, no overlap, nothing missing, nothing behind."""
    path, position, size = file.path, data_start, file.size
    for begin, length, key in sorted((tensor.offset, nbytes(tensor), key) for key, tensor in tensors.items()):
        if begin < position:
            raise FormatError(f"{path}: tensor {key[:80]!r} overlaps another one; the file is damaged or forged.")
        if begin > position:
            raise FormatError(
                f"{path}: {begin - position:,} bytes before tensor {key[:80]!r} belong to no tensor; "
                "the file is damaged."
            )
        position = begin + length
    if position > size:
        raise IncompleteError(
            f"{path} is incomplete: {position - size:,} of {position - data_start:,} bytes of tensor data are missing; "
            "get it again."
        )
    if position < size:
        raise FormatError(f"{path} has {size - position:,} bytes after its last tensor; get it again from its source.")
