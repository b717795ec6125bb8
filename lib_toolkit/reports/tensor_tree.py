"""The tensors of a model as a tree by the parts of their names, small enough for a tab whatever the file holds.

The tree folds without a script, since it is made of details elements; searching and copying are the work of the
page's script, which composes the whole name of a tensor from the ``data-name`` of its row and of the branches
around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.reports.html import Html, join, tag
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.reports.plain import printable
from lib_toolkit.reports.shares import ROLES, roles_of
from lib_toolkit.tensors import nbytes

BUDGET = 2_000_000
"""Characters that the rows of a tree may take together; SD1 takes a fifth of it, SDXL half."""

_ROW = 330
"""Characters of a row beside its name, at most, for any plain shape."""

_LEAST = 10_000
"""Characters that a branch is opened for at least where not all have room: enough to come down to a tensor."""

_PLAIN = re.compile(r"[\w. /:()\[\]-]*", re.ASCII).fullmatch
_WIDEST = 10
"""Characters that one of a name can become: an escape such as ``\\U0001f600``, or an entity."""

_DEEPEST = 24
_LONGEST_NAME = 300
_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor: ``part`` says which component, or which kind of leftover, it belongs to. Size in bytes."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    part: str


def rows_of(model: Model, found: Identification) -> tuple[Row, ...]:
    """A row for each tensor of the state dict in use, in the order of the file."""
    owners, roles = found.component_of(), roles_of(found)

    def part(key: str) -> str:
        return owners[key].component.name if key in owners else ROLES[roles.get(key, "other")]

    return tuple(
        Row(key, tensor.dtype.name, tensor.shape, nbytes(tensor), part(key)) for key, tensor in model.tensors.items()
    )


def tree_html(rows: tuple[Row, ...], budget: int = BUDGET) -> Html:
    """The tree with its search box. Every branch tells how many tensors of how many bytes stand below it.

    What does not fit into ``budget`` characters is counted in its place: small branches are listed whole first,
    and large ones share what is left.
    """
    if not rows:
        return tag("p", "There are no tensors.", class_="model-toolkit-empty")
    root = _grown("", [(row.key, row) for row in rows])
    listed = _Listing()
    body = join(listed.inside(root, budget))
    return tag("div", _tools(root, listed.left_out), tag("ul", body), class_="model-toolkit-tree")


def _tools(root: _Branch, left_out: int) -> Html:
    """The search box, and the line that tells what it found."""
    told = f"{counted(root.count, 'tensor')}, {human_bytes(root.bytes)}."
    if left_out:
        told += f" {counted(left_out, 'tensor')} of them {'is' if left_out == 1 else 'are'} counted but not listed."
    search = (
        '<input type="search" id="model_toolkit_tensors_search" placeholder="Search: name, type, shape or part" '
        'aria-label="Search the tensors" autocomplete="off" spellcheck="false">'
    )
    return tag(
        "div",
        Html(search),
        tag("button", "Clear", type="button", data_model_toolkit_clear=""),
        tag("button", "Fold all", type="button", data_model_toolkit_fold=""),
        tag("p", told, role="status", aria_live="polite", data_told=told),
        class_="model-toolkit-tree-tools",
    )


@dataclass(slots=True)
class _Branch:
    """What stands below one part of the names. ``cost``: characters that listing all of it takes at most."""

    name: str
    branches: list[_Branch]
    leaves: list[tuple[str, Row]]
    count: int
    bytes: int
    cost: int


def _grown(name: str, rows: list[tuple[str, Row]], depth: int = 0) -> _Branch:
    """Rows by the parts of (the rest of) their names; beyond a depth the rest of a name stays in one piece."""
    leaves: list[tuple[str, Row]] = []
    groups: dict[str, list[tuple[str, Row]]] = {}
    for rest, row in rows:
        head, dot, tail = rest.partition(".") if depth < _DEEPEST else (rest, "", "")
        if dot:
            groups.setdefault(head, []).append((tail, row))
        else:
            leaves.append((rest, row))
    branches = []
    for head, some in groups.items():
        if len(some) == 1:
            leaves.append((f"{head}.{some[0][0]}", some[0][1]))
        else:
            branches.append(_grown(*_together(head, some, depth + 1)))
    cost = sum(_cost(leaf) for leaf, _ in leaves) + sum(child.cost for child in branches)
    return _Branch(name, branches, leaves, len(rows), sum(row.bytes for _, row in rows), _cost(name) + cost)


def _together(name: str, rows: list[tuple[str, Row]], depth: int) -> tuple[str, list[tuple[str, Row]], int]:
    """A branch whose rows all go on with the same part, taken as one with that part."""
    while depth < _DEEPEST:
        split = [(rest.partition("."), row) for rest, row in rows]
        head = split[0][0][0]
        if not all(dot and first == head for (first, dot, _), _ in split):
            break
        name, rows, depth = f"{name}.{head}", [(tail, row) for (_, _, tail), row in split], depth + 1
    return name, rows, depth


def _cost(name: str) -> int:
    """An upper bound of the characters that a row with this name takes; quickly, since it is asked for every key."""
    return _ROW + (2 if _PLAIN(name) else 2 * _WIDEST) * min(len(name), _LONGEST_NAME + 1)


class _Listing:
    """Writes branches, and counts the tensors for which there was no room."""

    def __init__(self) -> None:
        self.left_out = 0

    def inside(self, branch: _Branch, budget: int) -> Iterator[Html]:
        """The rows of a branch, leaves first, in the order of the file, for ``budget`` characters."""
        own = sum(_cost(name) for name, _ in branch.leaves)
        rooms = _divided([own, *(child.cost for child in branch.branches)], budget)
        yield from self._leaves(branch.leaves, rooms[0])
        hidden: list[_Branch] = []
        for child, room in zip(branch.branches, rooms[1:], strict=True):
            if room < _cost(child.name) + _ROW:
                hidden.append(child)
            else:
                yield self._branch(child, room - _cost(child.name))
        if hidden:
            yield self._rest(sum(child.count for child in hidden), sum(child.bytes for child in hidden))

    def _branch(self, branch: _Branch, budget: int) -> Html:
        name = printable(branch.name, _LONGEST_NAME)
        figures = tag("span", f"{branch.count:,} · {human_bytes(branch.bytes)}")
        rows = join(self.inside(branch, budget))
        summary = tag("summary", tag("b", name), figures)
        return tag("li", tag("details", summary, tag("ul", rows)), data_name=name)

    def _leaves(self, leaves: list[tuple[str, Row]], budget: int) -> Iterator[Html]:
        for place, (name, row) in enumerate(leaves):
            budget -= _cost(name)
            if budget < 0:
                rest = leaves[place:]
                yield self._rest(len(rest), sum(row.bytes for _, row in rest))
                return
            yield _leaf(printable(name, _LONGEST_NAME), row)

    def _rest(self, count: int, size: int) -> Html:
        self.left_out += count
        told = f"… and {counted(count, 'tensor')}, {human_bytes(size)}, for which there is no room here."
        return tag("li", told, class_="model-toolkit-more")


def _leaf(name: str, row: Row) -> Html:
    # The name is a button, since a click copies the whole key; not where it could only copy what is shown instead.
    exact = printable(row.key, _LONGEST_NAME) == row.key
    return tag(
        "li",
        tag("button", name, type="button") if name and exact else tag("i", name or "(empty)"),
        tag("span", row.dtype),
        tag("span", _shape(row.shape)),
        tag("span", human_bytes(row.bytes)),
        tag("span", row.part),
        data_name=name,
    )


def _shape(shape: tuple[int, ...]) -> str:
    shown = ", ".join(str(size) for size in shape[:_DIMENSIONS])
    return f"[{shown}, …]" if len(shape) > _DIMENSIONS else f"[{shown}]"


def _divided(amounts: list[int], budget: int) -> list[int]:
    """What each of several gets of a budget: the smallest all that they ask for, the others equal parts of the rest.

    Where the parts would be too small to be of use, the last ones get nothing.
    """
    shares = [0] * len(amounts)
    left, waiting, least = budget, len(amounts), min(_LEAST, budget)
    for place in sorted(range(len(amounts)), key=lambda place: amounts[place]):
        share = min(amounts[place], max(left // waiting, least))
        if share <= left:
            shares[place] = share
            left -= share
        waiting -= 1
    return shares
