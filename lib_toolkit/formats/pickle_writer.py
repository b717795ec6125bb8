"""Writes the pickle of a checkpoint: dicts, texts, numbers and tensors, in the opcodes that PyTorch itself uses.

Protocol 2, as ``torch.save`` has always written it, with the four kinds of names that every reader of
checkpoints allows: ``OrderedDict``, ``_rebuild_tensor_v2`` and the storage classes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from lib_toolkit.dtypes import DType

Scalar: TypeAlias = "int | float | str | bool | None"

STORAGE_CLASSES = {
    DType.F64: "DoubleStorage",
    DType.F32: "FloatStorage",
    DType.F16: "HalfStorage",
    DType.BF16: "BFloat16Storage",
    DType.I64: "LongStorage",
    DType.I32: "IntStorage",
}
"""Element types that all readers of checkpoints know, by the class that names them."""

_PROTOCOL, _STOP = b"\x80\x02", b"."
_EMPTY_DICT, _MARK, _SET_ITEMS, _TUPLE, _CALL = b"}", b"(", b"u", b"t", b"R"
_EMPTY_TUPLE, _TUPLES = b")", (b")", b"\x85", b"\x86", b"\x87")
_NONE, _FALSE, _TRUE, _PERSISTENT = b"N", b"\x89", b"\x88", b"Q"
_MEMO_SIZE = 256


@dataclass(frozen=True, slots=True)
class Storage:
    """A dense tensor that lies alone in the storage called ``key``."""

    key: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def stride(self) -> tuple[int, ...]:
        """Elements between neighbours in each dimension, in C order; a dimension of zero counts as one."""
        steps, step = [], 1
        for size in reversed(self.shape):
            steps.append(step)
            step *= max(1, size)
        return tuple(reversed(steps))

    @property
    def numel(self) -> int:
        """Elements of the tensor and of its storage."""
        count = 1
        for size in self.shape:
            count *= size
        return count


Value: TypeAlias = "Scalar | Storage | Mapping[str, Value]"


def write_pickle(value: Mapping[str, Value]) -> bytes:
    """The pickle of nested dicts of storages, texts and numbers."""
    writer = _Writer()
    writer.out += _PROTOCOL
    writer.dict(value)
    writer.out += _STOP
    return bytes(writer.out)


@dataclass
class _Writer:
    """Collects opcodes. ``memo`` numbers the names and texts that come again and again."""

    out: bytearray = field(default_factory=bytearray)
    memo: dict[bytes, int] = field(default_factory=dict)

    def dict(self, table: Mapping[str, Value]) -> None:
        self.out += _EMPTY_DICT
        if not table:
            return
        self.out += _MARK
        for key, value in table.items():
            self.text(key)
            self.value(value)
        self.out += _SET_ITEMS

    def value(self, value: Value) -> None:
        if isinstance(value, Storage):
            self.tensor(value)
        elif isinstance(value, Mapping):
            self.dict(value)
        elif value is None:
            self.out += _NONE
        elif isinstance(value, bool):
            self.out += _TRUE if value else _FALSE
        elif isinstance(value, int):
            self.integer(value)
        elif isinstance(value, float):
            self.out += b"G" + struct.pack(">d", value)
        else:
            self.text(value)

    def text(self, text: str) -> None:
        raw = text.encode("utf-8", "surrogatepass")
        self.out += b"X" + struct.pack("<I", len(raw)) + raw

    def integer(self, number: int) -> None:
        if 0 <= number < 1 << 8:
            self.out += b"K" + struct.pack("<B", number)
        elif 0 <= number < 1 << 16:
            self.out += b"M" + struct.pack("<H", number)
        elif -(1 << 31) <= number < 1 << 31:
            self.out += b"J" + struct.pack("<i", number)
        else:
            raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
            self.out += (b"\x8a" + struct.pack("<B", len(raw)) if len(raw) < 256 else _long4(raw)) + raw

    def integers(self, numbers: tuple[int, ...]) -> None:
        short = len(numbers) < len(_TUPLES)
        if not short:
            self.out += _MARK
        for number in numbers:
            self.integer(number)
        self.out += _TUPLES[len(numbers)] if short else _TUPLE

    def again(self, code: bytes) -> None:
        """Opcodes whose result is remembered, so that the next time they take two bytes."""
        if code in self.memo:
            self.out += b"h" + struct.pack("<B", self.memo[code])
            return
        self.out += code
        if len(self.memo) < _MEMO_SIZE:
            self.memo[code] = len(self.memo)
            self.out += b"q" + struct.pack("<B", self.memo[code])

    def tensor(self, storage: Storage) -> None:
        self.again(b"ctorch._utils\n_rebuild_tensor_v2\n")
        self.out += _MARK + _MARK
        self.again(b"X\x07\x00\x00\x00storage")
        self.again(f"ctorch\n{STORAGE_CLASSES[storage.dtype]}\n".encode("ascii"))
        self.text(storage.key)
        self.again(b"X\x03\x00\x00\x00cpu")
        self.integer(storage.numel)
        self.out += _TUPLE + _PERSISTENT
        self.integer(0)
        self.integers(storage.shape)
        self.integers(storage.stride)
        # requires_grad, and an empty dict of hooks.
        self.out += _FALSE
        self.again(b"ccollections\nOrderedDict\n")
        self.out += _EMPTY_TUPLE + _CALL + _TUPLE + _CALL


def _long4(raw: bytes) -> bytes:
    return b"\x8b" + struct.pack("<i", len(raw))
