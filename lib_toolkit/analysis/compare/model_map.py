"""The published tool's list of pairs: groups of pairs of named files, checked before anything is opened.

A list of groups; a group is ``[name, [pair, …]]``; a pair is ``[[name A, path A], [name B, path B]]``. Paths are those
of the file system, relative ones as seen from the map's own folder. Source of the form: as in ``figures``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.errors import UsageError
from lib_toolkit.target import safe_output_name

_LARGEST = 16 << 20
_MOST_TOGETHER = 64
"""Models that are read in one pass: each takes 1.5 MiB (FP16; at most 4 MiB) for each worker, and one open file."""


@dataclass(frozen=True, slots=True)
class MapPair:
    """A pair of a group; ``number`` counts from 1 within it."""

    group: str
    number: int
    names: tuple[str, str]
    paths: tuple[Path, Path]

    @property
    def stem(self) -> str:
        """What its files are called, as the published tool does."""
        return f"{self.group}_{self.names[0]}_{self.names[1]}"


def read_map(path: Path) -> tuple[MapPair, ...]:
    """The pairs of a map. Raises UsageError that names group and pair for wrong shapes and paths that are not there."""
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path} is too large for a model map; name a JSON list of groups.")
        groups = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}; check the name.") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not JSON text; a model map is a JSON list of groups.") from None
    if not isinstance(groups, list) or not groups:
        raise UsageError(f"{path} is no model map: it must be a list of groups, each with a name and a list of pairs.")
    found: list[MapPair] = []
    for number, group in enumerate(groups, 1):
        found += _group(path, number, group)
    if not found:
        raise UsageError(f"{path} has no pair in any group; add one.")
    _check_names(path, found)
    return tuple(found)


def _check_names(path: Path, pairs: Sequence[MapPair]) -> None:
    """Every pair needs file names of its own, on systems that take A and a for one as well."""
    owners: dict[str, MapPair] = {}
    for pair in pairs:
        where = _where(path, pair.group, pair.number)
        try:
            safe_output_name(f"{pair.stem}.html")
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        other = owners.setdefault(pair.stem.casefold(), pair)
        if other is pair:
            continue
        if (other.group, other.names) == (pair.group, pair.names):
            raise UsageError(f"{where} has the names of another pair; give it its own.")
        raise UsageError(
            f"{where} would be written to the same file ({pair.stem}.json) as pair {other.number} of group "
            f"{other.group[:60]!r}; give it other names."
        )


def _group(path: Path, number: int, group: object) -> list[MapPair]:
    if not (isinstance(group, list) and len(group) == 2 and isinstance(group[0], str) and isinstance(group[1], list)):
        raise UsageError(f"{path}: group {number} is not a name and a list of pairs; write it as [name, [pair, …]].")
    return [_pair(path, group[0], index, pair) for index, pair in enumerate(group[1], 1)]


def _pair(path: Path, group: str, number: int, pair: object) -> MapPair:
    where = _where(path, group, number)
    if not (isinstance(pair, list) and len(pair) == 2 and all(_is_side(side) for side in pair)):
        raise UsageError(f"{where} is not two names with paths; write it as [[name, path], [name, path]].")
    (a, file_a), (b, file_b) = pair
    paths = (path.parent / file_a, path.parent / file_b)
    for file in paths:
        if not file.is_file():
            raise UsageError(f"{where}: there is no file {file}; correct the path.")
    return MapPair(group, number, (a, b), paths)


def _is_side(side: object) -> bool:
    return isinstance(side, list) and len(side) == 2 and all(isinstance(part, str) and part for part in side)


def _where(path: Path, group: str, number: int) -> str:
    return f"{path}: pair {number} of group {group[:60]!r}"


def batches(pairs: Sequence[MapPair]) -> list[list[MapPair]]:
    """The pairs in portions that are read in one pass each: pairs that share files stay together, so that each file is
    opened once, unless that would be more than 64 files."""
    portions: list[tuple[set[Path], list[MapPair]]] = []
    for pair in pairs:
        files = {file.resolve() for file in pair.paths}
        joined = [portion for portion in portions if portion[0] & files]
        portions = [portion for portion in portions if not portion[0] & files]
        together = set(files).union(*(portion[0] for portion in joined))
        if len(together) > _MOST_TOGETHER and joined:
            portions += [*joined, (files, [pair])]
            continue
        portions.append((together, [*(one for portion in joined for one in portion[1]), pair]))
    order = {pair: index for index, pair in enumerate(pairs)}
    return [sorted(own, key=order.__getitem__) for _, own in portions]
