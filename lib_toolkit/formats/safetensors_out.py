"""The layout of a safetensors file: aligned data, all metadata, room in the header for later edits."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lib_toolkit.dtypes import DType
from lib_toolkit.errors import TargetError
from lib_toolkit.formats.layout import Frame, Layout, Slot
from lib_toolkit.formats.safetensors import MAX_HEADER
from lib_toolkit.tensors import Tensor, nbytes

ALIGNMENT = 256
"""Tensor data begins at a multiple of this, so that every reader may map it."""

_NAMES = {dtype: dtype.name for dtype in DType}
_WIDTHS = {dtype: dtype.itemsize for dtype in DType}

SPARE = 2048
"""Bytes of blanks in the header at the least: later edits of metadata need not move the data."""


def safetensors_layout(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Layout:
    """Place the tensors: widest element type first, then by name, which keeps each aligned to its element size.

    Raises TargetError when the header would be longer than readers accept.
    """
    if "__metadata__" in tensors:
        raise TargetError("A tensor is called __metadata__, a name that safetensors files reserve; rename it first.")
    order = sorted((-_WIDTHS[tensor.dtype], key, tensor) for key, tensor in tensors.items())
    begin, spans, table = 0, [], {}
    for _, key, tensor in order:
        size = nbytes(tensor)
        spans.append((begin, size))
        table[key] = {"dtype": _NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": (begin, begin + size)}
        begin += size
    entries = _encoded(table)

    def header(texts: Mapping[str, str]) -> bytes:
        head = _encoded({"__metadata__": dict(texts)})
        return head[:-1] + b"," + entries[1:] if order else head

    length = len(header(metadata))
    data_start = -(-(8 + length + SPARE) // ALIGNMENT) * ALIGNMENT
    if data_start - 8 > MAX_HEADER:
        raise TargetError(f"The header would take {data_start - 8:,} bytes, more than readers of safetensors accept.")

    def frame(texts: Mapping[str, str], crcs: Mapping[str, int]) -> Frame:
        raw = header(texts)
        if len(raw) != length:
            raise AssertionError("metadata changed its length after the layout was made")
        padded = raw.ljust(data_start - 8, b" ")
        return [(0, len(padded).to_bytes(8, "little") + padded)]

    slots = tuple(
        Slot(key, tensor, data_start + start, size)
        for (_, key, tensor), (start, size) in zip(order, spans, strict=True)
    )
    return Layout(slots, data_start + begin, frame)


def _encoded(table: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise TargetError("A name or a metadata entry is not valid text, which safetensors cannot hold.") from None
