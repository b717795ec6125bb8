"""Compare two models, or many pairs out of several: every tensor is read once however many pairs it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from lib_toolkit.analysis.compare.alignment import Alignment, Cell, Row, align, difference_of_form, fitted
from lib_toolkit.analysis.compare.kept import Kept
from lib_toolkit.analysis.compare.measures import Measures, lower_type
from lib_toolkit.analysis.compare.results import Compared, Comparison, NotCompared, tensor_of
from lib_toolkit.analysis.compare.shared import shared_tasks
from lib_toolkit.analysis.compare.sweep import Pair, Task, measure, task_bytes
from lib_toolkit.analysis.compare.verdicts import verdicts
from lib_toolkit.casting import cast
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.streaming import verified_reads
from lib_toolkit.tensors import Stored, Tensor

_UNREADABLE = "type {} cannot be read as numbers, and the bytes differ"


def compare(
    models: tuple[Model, Model],
    found: tuple[Identification, Identification],
    progress: Progress = SILENT,
    at_lower: bool = False,
    workers: int | None = None,
) -> Comparison:
    """Compare A and B, all figures at once, in one pass over both.

    ``at_lower``: where float types differ, the finer tensor is first cast to the coarser type. Raises FormatError when
    a file cannot be read, is damaged or changes meanwhile, and CancelledError.
    """
    alignment = align(models, found)
    if at_lower:
        alignment = replace(alignment, rows=tuple(_lowered(row) for row in alignment.rows))
    (comparison,) = compare_aligned(alignment, ((0, 1),), progress, workers)
    comparison = replace(comparison, at_lower=at_lower)
    return replace(comparison, verdicts=verdicts(comparison))


def compare_pairs(
    models: Sequence[Model],
    found: Sequence[Identification],
    pairs: Sequence[Pair],
    progress: Progress = SILENT,
    workers: int | None = None,
    kept: Kept | None = None,
) -> list[Comparison]:
    """Compare each pair (places in ``models``) in one pass over all of them; raises as ``compare`` does.

    Each pair comes out as ``compare`` finds it, whatever the others are. ``kept``: where rows that were measured are
    noted, and looked up. Raises TargetError when it cannot be written to.
    """
    wanted = list(dict.fromkeys(pairs))
    alignments = [align((models[a], models[b]), (found[a], found[b])) for a, b in wanted]
    journals = [] if kept is None else [kept.of((models[a], models[b])) for a, b in wanted]
    measured: list[dict[int, Measures | None]] = [{} for _ in wanted]
    for journal, alignment, own in zip(journals, alignments, measured, strict=False):
        own |= journal.known(alignment)
    shared = shared_tasks(alignments, wanted, lambda owner: owner[1] in measured[owner[0]])

    def after(task: int, results: Mapping[Pair, Measures | None]) -> None:
        for pair, owners in shared[task].owners.items():
            for number, index in owners:
                measured[number][index] = results[pair]
                if journals:
                    journals[number].add(alignments[number], index, results[pair])

    with ExitStack() as stack:
        checks = [stack.enter_context(verified_reads(one.origin.file, one.checksums)) for one in models]
        measure([one.task for one in shared], progress, "comparing", workers, after=after)
        for check in checks:
            check()
    for model in models:
        if model.origin.file is not None:
            model.origin.file.check_unchanged()
    made = {}
    for pair, alignment, own in zip(wanted, alignments, measured, strict=True):
        one = _of_pair(alignment, (0, 1), {(index, (0, 1)): result for index, result in own.items()})
        made[pair] = replace(one, verdicts=verdicts(one))
    return [made[pair] for pair in pairs]


def compare_aligned(
    alignment: Alignment, pairs: Sequence[Pair], progress: Progress = SILENT, workers: int | None = None
) -> list[Comparison]:
    """Compare pairs of models that were aligned together, in one pass over all of them; raises as ``compare`` does.

    Verdicts are left to the caller.
    """
    tasks, owners = _tasks(alignment, pairs)
    with ExitStack() as stack:
        checks = [stack.enter_context(verified_reads(one.origin.file, one.checksums)) for one in alignment.models]
        results = measure(tasks, progress, "comparing", workers)
        for check in checks:
            check()
    measured: dict[tuple[int, Pair], Measures | None] = {}
    for owner, result in zip(owners, results, strict=True):
        measured |= {(owner, pair): found for pair, found in result.items()}
    for model in alignment.models:
        if model.origin.file is not None:
            model.origin.file.check_unchanged()
    return [_of_pair(alignment, pair, measured) for pair in pairs]


def aligned_bytes(alignment: Alignment, pairs: Sequence[Pair]) -> int:
    """What ``compare_aligned`` reads."""
    return task_bytes(_tasks(alignment, pairs)[0])


def _tasks(alignment: Alignment, pairs: Sequence[Pair]) -> tuple[list[Task], list[int]]:
    """What is to be measured, in the order in which it lies in the first model, and the row of each."""
    made: list[tuple[tuple[int, int], Task, int]] = []
    for index, row in enumerate(alignment.rows):
        clusters: dict[tuple[object, ...], list[Pair]] = {}
        for a, b in dict.fromkeys(pairs):
            x, y = row.cells[a], row.cells[b]
            if x is not None and y is not None and difference_of_form(x.tensor, y.tensor) is None:
                clusters.setdefault(_form(x.tensor), []).append((a, b))
        for own in clusters.values():
            places = sorted({place for pair in own for place in pair})
            first = tensor_of(row, places[0])
            tensors = {place: fitted(first, tensor_of(row, place)) for place in places}
            made.append((_position(places[0], first), Task(tensors, tuple(own)), index))
    made.sort(key=lambda item: item[0])
    return [task for _, task, _ in made], [index for _, _, index in made]


def _form(tensor: Tensor) -> tuple[object, ...]:
    shape = tensor.shape
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def _position(place: int, tensor: Tensor) -> tuple[int, int]:
    return place, tensor.offset if isinstance(tensor, Stored) else 1 << 62


def _of_pair(alignment: Alignment, pair: Pair, measured: Mapping[tuple[int, Pair], Measures | None]) -> Comparison:
    a, b = pair
    compared: list[Compared] = []
    failed: list[NotCompared] = []
    only: tuple[list[Row], list[Row]] = ([], [])
    for index, whole in enumerate(alignment.rows):
        row = replace(whole, cells=(whole.cells[a], whole.cells[b]))
        x, y = row.cells
        if x is None or y is None:
            if x is not None or y is not None:
                only[0 if y is None else 1].append(row)
            continue
        found = measured.get((index, pair))
        if found is not None:
            compared.append(Compared(row, found))
        else:
            failed.append(NotCompared(row, _reason(x, y)))
    return Comparison(
        models=(alignment.models[a], alignment.models[b]),
        found=(alignment.found[a], alignment.found[b]),
        components=tuple(
            replace(one, matches=(one.matches[a], one.matches[b]))
            for one in alignment.components
            if one.matches[a] is not None or one.matches[b] is not None
        ),
        compared=tuple(compared),
        only_a=tuple(only[0]),
        only_b=tuple(only[1]),
        not_compared=tuple(failed),
    )


def _reason(a: Cell, b: Cell) -> str:
    return difference_of_form(a.tensor, b.tensor) or _UNREADABLE.format(a.tensor.dtype.name)


def _lowered(row: Row) -> Row:
    """The row with the finer of two float tensors cast to the type of the coarser."""
    a, b = row.cells
    if a is None or b is None or a.tensor.dtype is b.tensor.dtype:
        return row
    lower = lower_type(a.tensor.dtype, b.tensor.dtype)
    if lower is None:
        return row
    return replace(row, cells=tuple(Cell(cell.key, cast(cell.tensor, lower)) for cell in (a, b)))
