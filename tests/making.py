"""Model files with known contents, made without the package under test.

A stamped file is sparse: a model of gigabytes takes kilobytes of disk. Every tensor carries non-zero values,
derived from its key and the position, at its ends and around the borders between pieces of work.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U8": "<u1", "BOOL": "|b1", "F8_E4M3": "<u1", "F8_E5M2": "<u1",
}  # fmt: skip

BORDER = 256 << 10


def safetensors_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], metadata=None) -> bytes:
    """A dense file in the order given: key → (dtype name, shape, data)."""
    table: dict[str, object] = {}
    if metadata is not None:
        table["__metadata__"] = metadata
    position, parts = 0, []
    for key, (dtype, shape, data) in tensors.items():
        table[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(data)]}
        position += len(data)
        parts.append(data)
    header = json.dumps(table).encode()
    return len(header).to_bytes(8, "little") + header + b"".join(parts)


def of_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    names = {np.dtype(v): k for k, v in NUMPY.items() if k not in {"BF16", "F8_E4M3", "F8_E5M2"}}
    return {key: (names[a.dtype], a.shape, np.ascontiguousarray(a).tobytes()) for key, a in arrays.items()}


def stamp_positions(count: int) -> list[int]:
    """The first and last elements, and those on both sides of the first borders."""
    near = {0, 1, count - 2, count - 1}
    near |= {border + shift for border in (BORDER, 2 * BORDER, 3 * BORDER) for shift in (-1, 0)}
    return sorted(p for p in near if 0 <= p < count)


def stamp_value(key: str, position: int) -> float:
    """From 1/1024 to 2, exact in 11 bits of mantissa, so that FP16 and BF16-free casts keep it."""
    return (1 + zlib.crc32(f"{key}:{position}".encode()) % 2047) / 1024


def stamped_safetensors(path: Path, table: Mapping[str, tuple[str, tuple[int, ...]]], metadata=None) -> None:
    """A sparse file with every tensor of the table, zero but for its stamps (positions themselves for integers)."""
    header_table: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for key, (dtype, shape) in table.items():
        size = math.prod(shape) * np.dtype(NUMPY[dtype]).itemsize
        header_table[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    header = json.dumps(header_table).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        start = file.tell()
        file.truncate(start + position)
        for key, (dtype, shape) in table.items():
            unit = np.dtype(NUMPY[dtype])
            begin = start + header_table[key]["data_offsets"][0]
            for index in stamp_positions(math.prod(shape)):
                file.seek(begin + index * unit.itemsize)
                file.write(stamp_bytes(key, index, dtype))


def stamp_bytes(key: str, index: int, dtype: str) -> bytes:
    if dtype == "BF16":
        value = np.array(stamp_value(key, index), "<f4").view("<u4")
        return ((value >> 16) & 0xFFFF).astype("<u2").tobytes()
    if dtype.startswith("F8"):
        return bytes([1 + zlib.crc32(f"{key}:{index}".encode()) % 100])
    if dtype[0] in "IUB":
        return np.array(index % 100, NUMPY[dtype]).tobytes()
    return np.array(stamp_value(key, index), NUMPY[dtype]).tobytes()


def read_header(path: Path) -> tuple[dict, int]:
    """Header and start of data, read in the simplest way."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length
