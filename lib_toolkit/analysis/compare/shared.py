"""What is to be measured for many pairs, each aligned by its own two layouts, and read once where they share tensors.

A pair must not be aligned together with others: a third model in another layout would split what two models store in
one piece, and the published figures count such pieces. So rows of different pairs are joined by the tensors in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lib_toolkit.analysis.compare.alignment import Alignment, difference_of_form, fitted
from lib_toolkit.analysis.compare.sweep import Pair, Task
from lib_toolkit.tensors import Stored, Tensor

Owner: TypeAlias = "tuple[int, int]"
"""A pair by its number, and a row of that pair's own alignment."""


@dataclass(frozen=True)
class Shared:
    """A task, in which places count its own tensors, and who asked for each of its pairs."""

    task: Task
    owners: Mapping[Pair, tuple[Owner, ...]]


def shared_tasks(
    alignments: Sequence[Alignment], pairs: Sequence[Pair], known: Callable[[Owner], bool] = lambda owner: False
) -> list[Shared]:
    """The tasks of all pairs (places of two models, of which ``alignments`` has the alignment), in the order in which
    their first tensors lie in the files; without rows that are ``known`` already."""
    graph = _Graph()
    for number, (alignment, (a, b)) in enumerate(zip(alignments, pairs, strict=True)):
        for index, row in enumerate(alignment.rows):
            x, y = row.cells
            if x is None or y is None or difference_of_form(x.tensor, y.tensor) is not None:
                continue
            if not known((number, index)):
                graph.join(graph.node(a, x.tensor), graph.node(b, y.tensor), (number, index))
    return graph.tasks()


class _Graph:
    """Tensors, and which of them are compared with which."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, Tensor], int] = {}
        self._nodes: list[tuple[int, Tensor]] = []
        self._parents: list[int] = []
        self._edges: dict[tuple[int, int], list[Owner]] = {}

    def node(self, model: int, tensor: Tensor) -> int:
        """The number of a tensor of a model."""
        found = self._places.setdefault((model, tensor), len(self._nodes))
        if found == len(self._nodes):
            self._nodes.append((model, tensor))
            self._parents.append(found)
        return found

    def join(self, a: int, b: int, owner: Owner) -> None:
        """Note that A and B are compared."""
        self._edges.setdefault((a, b), []).append(owner)
        self._parents[self._root(b)] = self._root(a)

    def _root(self, node: int) -> int:
        while self._parents[node] != node:
            self._parents[node] = node = self._parents[self._parents[node]]
        return node

    def tasks(self) -> list[Shared]:
        """One task for whatever hangs together."""
        gathered: dict[int, dict[tuple[int, int], list[Owner]]] = {}
        for edge, owners in self._edges.items():
            gathered.setdefault(self._root(edge[0]), {})[edge] = owners
        made = []
        for edges in gathered.values():
            nodes = sorted({node for edge in edges for node in edge}, key=self._position)
            local = {node: place for place, node in enumerate(nodes)}
            first = self._nodes[nodes[0]][1]
            task = Task(
                {place: fitted(first, self._nodes[node][1]) for node, place in local.items()},
                tuple((local[a], local[b]) for a, b in edges),
            )
            owned = {(local[a], local[b]): tuple(owners) for (a, b), owners in edges.items()}
            made.append((self._position(nodes[0]), Shared(task, owned)))
        made.sort(key=lambda item: item[0])
        return [shared for _, shared in made]

    def _position(self, node: int) -> tuple[int, int, int]:
        model, tensor = self._nodes[node]
        return model, tensor.offset if isinstance(tensor, Stored) else 1 << 62, node
