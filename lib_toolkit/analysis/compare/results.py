"""What a comparison of two models found, as plain data, and the groups into which it can be gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lib_toolkit.analysis.compare.alignment import WEIGHT, Component, Row, title_of
from lib_toolkit.analysis.compare.figures import figure
from lib_toolkit.analysis.compare.measures import Measures, together
from lib_toolkit.analysis.compare.places import Third
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.tensors import Tensor

A, B = 0, 1


@dataclass(frozen=True, slots=True)
class Compared:
    """A tensor of both, and how far they are apart."""

    row: Row
    measures: Measures

    @property
    def renamed(self) -> bool:
        """Whether it is called otherwise in the other file."""
        return len({cell.key for cell in self.row.cells if cell is not None}) > 1


@dataclass(frozen=True, slots=True)
class NotCompared:
    """A tensor of both that cannot be measured, and why."""

    row: Row
    reason: str


@dataclass(frozen=True)
class Group:
    """Tensors that are told together. ``kind``: total, component, block, layer or merge_block; ``component`` is ""
    for groups across components."""

    kind: str
    component: str
    name: str
    members: tuple[Compared, ...]
    measures: Measures = field(default_factory=Measures)

    @property
    def changed_tensors(self) -> int:
        return sum(not one.measures.identical for one in self.members)

    def figure(self, metric: str) -> float | None:
        """The group's figure as the published tool computes it; ``cosine``: that of the flattened whole."""
        if metric == "cosine":
            return self.measures.cosine
        values = [one.measures.figure(metric) for one in self.members]
        return figure(metric, [value for value in values if value is not None])


@dataclass(frozen=True)
class Comparison:
    """Two models side by side. Rows hold two cells, A's and B's. ``at_lower``: where float types differed, the finer
    was cast to the coarser before anything was measured. ``verdicts``: what it means, in sentences. ``third``: where a
    third model lies, if one was compared with both."""

    models: tuple[Model, Model]
    found: tuple[Identification, Identification]
    components: tuple[Component, ...]
    compared: tuple[Compared, ...]
    only_a: tuple[Row, ...] = ()
    only_b: tuple[Row, ...] = ()
    not_compared: tuple[NotCompared, ...] = ()
    at_lower: bool = False
    verdicts: tuple[str, ...] = ()
    third: Third | None = None

    def of(self, component: str) -> tuple[Compared, ...]:
        """What was measured of a component."""
        return tuple(one for one in self.compared if one.row.component == component)

    def weights(self) -> tuple[Compared, ...]:
        """What was measured, without schedules, position ids and counters."""
        return tuple(one for one in self.compared if one.row.kind == WEIGHT)

    def total(self) -> Group:
        """All weights."""
        return _group("total", "", "total", self.weights())

    def by_component(self) -> list[Group]:
        """The weights of each component; schedules as a component of their own."""
        return self._groups("component", lambda row: title_of(row.component), buffers=True)

    def by_block(self) -> list[Group]:
        """The weights of each block of each component, as its family names them."""
        return self._groups("block", lambda row: row.block)

    def by_layer(self) -> list[Group]:
        """The weights of each kind of layer of each component."""
        return self._groups("layer", lambda row: row.layer)

    def by_merge_block(self) -> list[Group]:
        """BASE and the 25 (SDXL: 19) blocks of merge-block-weighted, text encoders and VAE together in BASE."""
        gathered: dict[str, list[Compared]] = {}
        for one in self.weights():
            if one.row.merge_block is not None:
                gathered.setdefault(one.row.merge_block, []).append(one)
        return [_group("merge_block", "", name, gathered[name]) for name in sorted(gathered, key=merge_block_order)]

    def _groups(self, kind: str, name_of: Callable[[Row], str | None], buffers: bool = False) -> list[Group]:
        gathered: dict[tuple[str, str], list[Compared]] = {}
        for one in self.compared:
            name = name_of(one.row)
            wanted = one.row.kind == WEIGHT or (buffers and one.row.component == "schedule")
            if name is not None and wanted:
                gathered.setdefault((one.row.component, name), []).append(one)
        return [_group(kind, component, name, members) for (component, name), members in gathered.items()]


def merge_block_order(name: str) -> tuple[int, str]:
    """The place of a merge block among the others: BASE, IN00 …, M00, OUT00 …"""
    order = {"BASE": 0, "IN": 1, "M0": 2, "OU": 3}
    return order.get(name[:4], order.get(name[:2], 9)), name


def tensor_of(row: Row, place: int) -> Tensor:
    """The tensor of A (0) or B (1). The row must have one there."""
    cell = row.cells[place]
    assert cell is not None
    return cell.tensor


def file_keys(rows: Iterable[Row], place: int) -> list[str]:
    """What the rows are called in the file, each name once."""
    return list(dict.fromkeys(cell.key for row in rows if (cell := row.cells[place]) is not None))


def _group(kind: str, component: str, name: str, members: Iterable[Compared]) -> Group:
    every = tuple(members)
    return Group(kind, component, name, every, together(one.measures for one in every))
