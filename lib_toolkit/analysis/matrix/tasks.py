"""What there is to measure in a set: which tensors meet, into which groups they count, and what does not fit.

Groups are the total of all weights, each component, and each block of merge-block-weighted (text encoders and VAE
together in BASE). Schedules are a component of their own; position ids and counters are in no group and not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.compare.alignment import BUFFER, WEIGHT, Alignment, Row, difference_of_form, fitted, title_of
from lib_toolkit.analysis.compare.reading import Width, width_of
from lib_toolkit.analysis.matrix.homes import housed
from lib_toolkit.tensors import Stored, Tensor, nbytes, numel

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Counts

TOTAL, COMPONENT, BLOCK = "total", "component", "block"


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that are told together. ``kind``: TOTAL, COMPONENT or BLOCK; ``id``: "total", a component's id, or a
    block such as IN04."""

    kind: str
    id: str

    @property
    def title(self) -> str:
        """As people call it."""
        return {TOTAL: "All weights", COMPONENT: title_of(self.id)}.get(self.kind, self.id)


@dataclass(frozen=True, slots=True)
class SetTask:
    """One thing in those models that have it in one form: tensors by the place of their model, all with as many
    elements. ``readable``: as numbers; others are only told equal from not equal."""

    key: str
    tensors: Mapping[int, Tensor]
    groups: tuple[int, ...]
    readable: bool


@dataclass(frozen=True)
class Work:
    """All tasks, in the order in which they are done. ``own`` [g, m]: tensors of model m in group g, ``own_elements``
    their elements, ``both`` [g, a, b]: tensors that a and b have, comparable or not."""

    groups: tuple[Group, ...]
    tasks: tuple[SetTask, ...]
    own: Counts
    own_elements: Counts
    both: Counts

    @property
    def bytes(self) -> int:
        """What the sweep reads."""
        return sum(task_bytes(task) for task in self.tasks)


def task_bytes(task: SetTask) -> int:
    """What one task reads."""
    return sum(nbytes(tensor) for tensor in task.tensors.values())


def work_of(alignment: Alignment) -> Work:
    """Plan the sweep over aligned models. Reads nothing."""
    counted = [row for row in housed(alignment) if _groups_of(row)]
    groups = _groups(alignment, counted)
    place = {group: index for index, group in enumerate(groups)}
    rows = [(row, tuple(place[group] for group in _groups_of(row))) for row in counted]
    tasks = [task for row, indices in rows for task in _tasks(row, indices)]
    tasks.sort(key=_position)
    shape = (len(groups), len(alignment.models))
    own, elements = np.zeros(shape, dtype="<i8"), np.zeros(shape, dtype="<i8")
    both = np.zeros((*shape, shape[1]), dtype="<i8")
    for row, indices in rows:
        has = np.array([cell is not None for cell in row.cells])
        sizes = np.array([0 if cell is None else numel(cell.tensor) for cell in row.cells])
        for index in indices:
            own[index] += has
            elements[index] += sizes
            both[index] += has[:, None] & has[None, :]
    return Work(groups, tuple(tasks), own, elements, both)


def _groups_of(row: Row) -> list[Group]:
    if row.kind == WEIGHT:
        blocks = [Group(BLOCK, row.merge_block)] if row.merge_block is not None else []
        return [Group(TOTAL, TOTAL), Group(COMPONENT, row.component), *blocks]
    return [Group(COMPONENT, row.component)] if row.kind == BUFFER and row.component == "schedule" else []


def _groups(alignment: Alignment, rows: Sequence[Row]) -> tuple[Group, ...]:
    """Total, components in the order in which they are told, blocks from BASE over IN and M to OUT."""
    found = dict.fromkeys(group for row in rows for group in _groups_of(row))
    told = [one.id for one in alignment.components]
    ranks = {"BASE": 0, "IN": 1, "M0": 2, "OU": 3}

    def order(group: Group) -> tuple[int, int, str]:
        if group.kind == BLOCK:
            return 2, ranks.get(group.id[:4], ranks.get(group.id[:2], 9)), group.id
        known = told.index(group.id) if group.id in told else len(told)
        return (0 if group.kind == TOTAL else 1), known, group.id

    return tuple(sorted(found, key=order))


def _tasks(row: Row, groups: tuple[int, ...]) -> list[SetTask]:
    """The models that have the tensor, by its form; a form that a single model has is compared with nothing."""
    forms: list[dict[int, Tensor]] = []
    for place, cell in enumerate(row.cells):
        if cell is None:
            continue
        for form in forms:
            first = next(iter(form.values()))
            if difference_of_form(first, cell.tensor) is None:
                form[place] = fitted(first, cell.tensor)
                break
        else:
            forms.append({place: cell.tensor})
    made = []
    for form in forms:
        readable = all(width_of(tensor.dtype) is not Width.BYTES for tensor in form.values())
        if len(form) > 1:
            made.append(SetTask(f"{row.component}/{row.key}", form, groups, readable))
    return made


def _position(task: SetTask) -> tuple[int, int]:
    """Where the task lies in its first model: files are read from their beginning to their end."""
    place, tensor = next(iter(task.tensors.items()))
    return place, tensor.offset if isinstance(tensor, Stored) else 1 << 62
