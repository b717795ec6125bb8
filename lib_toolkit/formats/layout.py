"""The plan of a file that is to be written: where each tensor goes and what stands around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lib_toolkit.tensors import Tensor

Frame: TypeAlias = "list[tuple[int, bytes]]"
"""Pieces of a file that are not tensor data (header, directory), as (offset, bytes)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one tensor: ``offset`` in the file; its ``size`` bytes follow densely in C order."""

    key: str
    tensor: Tensor
    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """A whole file before it is written. ``size`` is exact, to the byte.

    ``frame(metadata, crcs)`` gives everything that is not tensor data. ``metadata`` may differ from what the
    layout was made with only in characters, never in length (fields of fixed width are filled in after the
    pass); ``crcs`` holds the CRC-32 of each slot's bytes by key, where ``needs_crcs`` says that the format wants them.
    """

    slots: tuple[Slot, ...]
    size: int
    frame: Callable[[Mapping[str, str], Mapping[str, int]], Frame]
    needs_crcs: bool = False
