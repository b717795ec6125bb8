"""Element types of tensors, by the names that safetensors files use."""

from __future__ import annotations

from enum import Enum


class DType(Enum):
    """An element type. The value holds (bits, NumPy storage type, kind); one member per safetensors name.

    BF16 and the 8-bit floats have no NumPy type: their bit patterns live in unsigned integers. Types
    below 8 bits are raw bytes, and only whole bytes of them are ever addressed.
    """

    F64 = (64, "<f8", "float")
    F32 = (32, "<f4", "float")
    F16 = (16, "<f2", "float")
    BF16 = (16, "<u2", "bfloat")
    F8_E4M3 = (8, "|u1", "fp8 e4m3")
    F8_E5M2 = (8, "|u1", "fp8 e5m2")
    F8_E8M0 = (8, "|u1", "fp8 e8m0")
    F8_E4M3FNUZ = (8, "|u1", "fp8 e4m3fnuz")
    F8_E5M2FNUZ = (8, "|u1", "fp8 e5m2fnuz")
    F6_E2M3 = (6, "|u1", "fp6 e2m3")
    F6_E3M2 = (6, "|u1", "fp6 e3m2")
    F4 = (4, "|u1", "fp4")
    C64 = (64, "<c8", "complex")
    I64 = (64, "<i8", "int")
    I32 = (32, "<i4", "int")
    I16 = (16, "<i2", "int")
    I8 = (8, "|i1", "int")
    U64 = (64, "<u8", "uint")
    U32 = (32, "<u4", "uint")
    U16 = (16, "<u2", "uint")
    U8 = (8, "|u1", "uint")
    BOOL = (8, "|b1", "bool")

    # Members are single objects; Enum would hash their names, in Python, for each tensor of each table.
    __hash__ = object.__hash__

    # The kind tells members of equal size apart: an Enum makes aliases of members with equal values.
    def __init__(self, bits: int, storage: str, kind: str) -> None:
        self.bits = bits
        self.storage = storage
        self.kind = kind

    @property
    def itemsize(self) -> int:
        """Bytes of one element, 1 for types below 8 bits (which are only addressed by whole bytes)."""
        return max(1, self.bits // 8)

    @property
    def castable(self) -> bool:
        """Whether this is one of the floating-point types that precision changes may touch."""
        return self in CASTABLE

    def nbytes(self, count: int) -> int:
        """Bytes of ``count`` elements. Raises ValueError where that is no whole number of bytes."""
        size, rest = divmod(count * self.bits, 8)
        if rest:
            raise ValueError(f"{count} elements of {self.name} are not a whole number of bytes")
        return size


CASTABLE = frozenset({DType.F64, DType.F32, DType.F16, DType.BF16})
"""Types that a precision change converts; 8-bit floats, integers and booleans keep theirs."""
