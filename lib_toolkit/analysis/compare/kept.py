"""What a list of pairs has measured so far, kept in a file beside the results: an interrupted run goes on from there.

The file is text, one JSON list a line, and grows by a line for every row that is done: ``["pair", number, A, B]`` with
path, size and time of change of both files, and ``["row", number, name, figures]``. A line that a kill cut off ends
what is taken up. Figures are kept to the bit, so that a run in two parts ends as one in a single go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import IO, Any, TypeAlias

from lib_toolkit import __version__
from lib_toolkit.analysis.compare.alignment import Alignment
from lib_toolkit.analysis.compare.measures import Measures
from lib_toolkit.errors import TargetError
from lib_toolkit.model import Model

NAME = "compare-map.state.jsonl"
"""The file's name in the folder of the results."""

_HEAD = ["model-toolkit compare-map", 1, __version__]
_DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError)
_Sides: TypeAlias = "tuple[tuple[str, int, int], tuple[str, int, int]]"


class Kept:
    """The file in ``folder``. Closing leaves it there; ``forget`` removes it."""

    def __init__(self, folder: Path) -> None:
        """Take up what a run before left. Raises TargetError when the file cannot be used."""
        self._path = folder / NAME
        self._known: dict[_Sides, dict[str, Measures | None]] = {}
        self._numbers: dict[_Sides, int] = {}
        self._file: IO[bytes] | None = None
        end = self._load()
        try:
            self._file = self._path.open("r+b" if end else "wb")
            self._file.seek(end)
            self._file.truncate()
        except OSError as error:
            raise self._unusable(error) from None
        if not end:
            self._write(_HEAD)

    def of(self, models: tuple[Model, Model]) -> Journal:
        """The part of a pair, whose files are open."""
        a, b = (_stamp(model) for model in models)
        sides = (a, b)
        if sides not in self._numbers:
            self._numbers[sides] = len(self._numbers)
            self._write(["pair", self._numbers[sides], a, b])
        return Journal(self, self._numbers[sides], self._known.get(sides, {}))

    def add(self, number: int, name: str, found: Measures | None) -> None:
        """Note a row of a pair. Raises TargetError when the disk is full or fails."""
        self._write(["row", number, name, None if found is None else astuple(found)])

    def clear(self) -> None:
        """Forget every row: one of the files turned out to be damaged."""
        self._known.clear()
        self._numbers.clear()
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._write(_HEAD)

    def close(self) -> None:
        """Close the file and leave it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def forget(self) -> None:
        """Remove the file: the results are written."""
        self.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, line: object) -> None:
        assert self._file is not None
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> TargetError:
        return TargetError(f"{self._path} cannot be written: {error.strerror or error}; choose another folder.")

    def _load(self) -> int:
        """Read what is there; returns where its last whole line ends, 0 for none or another version's."""
        end = 0
        by_number: dict[int, _Sides] = {}
        # Whatever a damaged file holds, it only means that more is measured again.
        with suppress(*_DAMAGED), self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                table = json.loads(line)
                if not end and table != _HEAD:
                    return 0
                if end:
                    self._take(table, by_number)
                end += len(line)
        return end

    def _take(self, table: list[Any], by_number: dict[int, _Sides]) -> None:
        kind, number, *rest = table
        if kind == "pair":
            (a, size_a, time_a), (b, size_b, time_b) = rest
            by_number[number] = ((str(a), int(size_a), int(time_a)), (str(b), int(size_b), int(time_b)))
            self._numbers[by_number[number]] = number
            return
        name, figures = rest
        self._known.setdefault(by_number[number], {})[str(name)] = None if figures is None else Measures(*figures)


class Journal:
    """What is kept of one pair."""

    def __init__(self, kept: Kept, number: int, known: Mapping[str, Measures | None]) -> None:
        self._kept = kept
        self._number = number
        self._known = known

    def known(self, alignment: Alignment) -> dict[int, Measures | None]:
        """What was measured before, by the number of the row."""
        names = dict(enumerate(_names(alignment)))
        return {index: self._known[name] for index, name in names.items() if name in self._known}

    def add(self, alignment: Alignment, index: int, found: Measures | None) -> None:
        """Note a row."""
        row = alignment.rows[index]
        self._kept.add(self._number, _name(index, row.component, row.key), found)


def _names(alignment: Alignment) -> Iterator[str]:
    for index, row in enumerate(alignment.rows):
        yield _name(index, row.component, row.key)


def _name(index: int, component: str, key: str) -> str:
    """Keys alone need not differ: what is in no component has its own names."""
    return f"{index} {component} {key}"


def _stamp(model: Model) -> tuple[str, int, int]:
    try:
        status = model.origin.path.stat()
    except OSError:
        # Gone meanwhile: reading will tell; nothing that is kept may fit.
        return str(model.origin.path), -1, 0
    return str(model.origin.path.resolve()), status.st_size, status.st_mtime_ns
