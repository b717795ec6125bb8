"""A model: names and lazy tensors, with everything else that its file holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from lib_toolkit.files import SourceFile
from lib_toolkit.tensors import Tensor, nbytes, numel


@dataclass(frozen=True)
class Origin:
    """Where a model came from. ``format``: ``safetensors``, ``torch-zip``, ``torch-legacy`` or ``pickle``;
    ``new``: an empty model of the architecture that the path names, without a file."""

    path: Path
    format: str
    size: int
    file: SourceFile | None = None


@dataclass(frozen=True, slots=True)
class Checksum:
    """CRC-32 of ``length`` bytes at ``offset`` of the file, as its container states it. ``name`` is for messages."""

    name: str
    offset: int
    length: int
    crc: int


@dataclass(frozen=True)
class Model:
    """Tensors by key, and what else was in the file.

    ``tensors`` is the state dict in use, in file order. ``container`` is its path inside a pickle
    ("state_dict"), empty at the top level. ``outside`` holds tensors of other containers (optimizer state,
    a second state dict) by their dotted paths, ``values`` all that is not a tensor (epoch, callbacks …) as
    inert data by dotted path. ``notes`` are facts, ``warnings`` need attention. ``checksums`` are those that
    the container states for its parts. ``foreign`` are names in a pickle, anywhere in it, that tensors and plain
    values do not need, ``unusual`` entries of an archive that older WebUIs refuse to open.
    """

    tensors: Mapping[str, Tensor]
    origin: Origin
    metadata: Mapping[str, str] = field(default_factory=dict)
    container: str = ""
    outside: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    checksums: tuple[Checksum, ...] = ()
    foreign: tuple[str, ...] = ()
    unusual: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.origin.path.name

    def close(self) -> None:
        """Close the file behind the tensors; they can then no longer be read."""
        if self.origin.file is not None:
            self.origin.file.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def count_parameters(tensors: Iterable[Tensor]) -> int:
    """Elements of all tensors together."""
    return sum(numel(tensor) for tensor in tensors)


def count_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all tensors together, stored densely."""
    return sum(nbytes(tensor) for tensor in tensors)
