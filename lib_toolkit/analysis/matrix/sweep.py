"""One pass over all models of a set, tensor by tensor: every byte is read once, all pairs are measured at once.

The tensor of all models is gone through in blocks of 256 Ki elements, in a large set of 64 Ki. For each block the
workers first read it from every model, then measure its pairs; a pair of a block is measured by one worker, and blocks
are added up in their order, so that the result has the same bits with any number of workers.

Memory, for n models, g groups and w workers, whatever the size of the models (``memory_bound``): n blocks of at most
16 bytes an element (as stored and as numbers; 6 for FP16), so 64 MiB or, from 64 models on, 1 MiB · n; PAIR_BYTES · n²
for each group and the row at hand; for each worker 64 bytes an element of a block and 48 kB · n; and 8 MiB. Headers are
not counted: opened models cost about 1 kB for each tensor.
A tensor that cannot be read by ranges (a transposed view in a pickle) is held as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.compare.reading import BLOCK, Block
from lib_toolkit.analysis.compare.rounding import rounding_squared, used_bits
from lib_toolkit.analysis.compare.sweep import ranged
from lib_toolkit.analysis.matrix.gaps import gaps_of
from lib_toolkit.analysis.matrix.kernel import (
    distance,
    distances_of_few,
    few,
    representatives,
    to_average,
)
from lib_toolkit.analysis.matrix.sums import PAIR_BYTES, RowSums, Sums
from lib_toolkit.analysis.matrix.tasks import SetTask, task_bytes
from lib_toolkit.errors import CancelledError, ToolkitError
from lib_toolkit.progress import Progress
from lib_toolkit.streaming import default_workers
from lib_toolkit.tensors import Tensor, numel

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Counts, Floats

_WORTH_THREADS = 1 << 18
_BLOCK_BYTES, _WORKER_BYTES = 16, 64
"""What an element of a block takes at most: as stored and as numbers, and what a worker makes of it."""

_BLOCKS_BYTES = 64 << 20
_SMALLEST_BLOCK = 64 << 10
_SHORT_BYTES = 48 << 10
_CONSTANT_BYTES = 8 << 20


def memory_bound(models: int, groups: int, workers: int) -> int:
    """Bytes that a sweep holds at most at a time, headers not counted."""
    block = block_of(models)
    per_worker = _WORKER_BYTES * block + models * _SHORT_BYTES
    return (
        models * _BLOCK_BYTES * block + PAIR_BYTES * models**2 * (groups + 3) + workers * per_worker + _CONSTANT_BYTES
    )


def block_of(models: int) -> int:
    """Elements that are measured at a time in a set of so many models: fewer where many models share the memory."""
    block = BLOCK
    while block > _SMALLEST_BLOCK and models * block * _BLOCK_BYTES > _BLOCKS_BYTES:
        block //= 2
    return block


class Sweep:
    """The pass. ``failed`` maps places of models that could not be read to the sentence why; more may be added.
    ``models``: how many there are."""

    def __init__(
        self, sums: Sums, failed: dict[int, str], progress: Progress, workers: int | None, models: int
    ) -> None:
        self._sums = sums
        self._block = block_of(models)
        self._failed = failed
        self._progress = progress
        self._crew = Crew(workers or default_workers())
        self._blocks: dict[int, Block] = {}

    def run(self, tasks: Sequence[SetTask], first: int, after: Callable[[int], None]) -> None:
        """Do the tasks from number ``first`` on; ``after`` is told how many are done. Raises CancelledError."""
        self._progress.start("measuring", sum(task_bytes(task) for task in tasks))
        self._progress.advance(sum(task_bytes(task) for task in tasks[:first]))
        with self._crew:
            for index in range(first, len(tasks)):
                self._row(tasks[index])
                after(index + 1)

    def _row(self, task: SetTask) -> None:
        places = [place for place in task.tensors if place not in self._failed]
        readers = self._readers(task, places)
        count = numel(next(iter(task.tensors.values())))
        row = RowSums(len(places))
        doubtful = self._sums.doubtful(task.groups, places)
        for start in range(0, count, self._block):
            stop = min(start + self._block, count)
            self._crew.each(len(places), self._reading(readers, places, start, stop), stop - start)
            living = [index for index, place in enumerate(places) if place not in self._failed]
            blocks = [self._blocks[places[index]] for index in living]
            self._measure(row, living, blocks, [doubtful[index] for index in living], task.readable)

        def rounding(squares: Floats, elements: Counts) -> Floats:
            types = [task.tensors[place].dtype for place in places]
            told = zip(types, row.bits, squares.tolist(), elements.tolist(), strict=True)
            return np.array([rounding_squared(*one) for one in told])

        row.into(self._sums, task.groups, places, count, rounding, task.readable)

    def _readers(self, task: SetTask, places: Sequence[int]) -> dict[int, Tensor]:
        readers = {}
        for place in places:
            tensor = task.tensors[place]
            try:
                readers[place] = ranged(tensor)
            except (ToolkitError, OSError) as error:
                self._failed[place] = str(error)
                readers[place] = tensor
            if place not in self._blocks or self._blocks[place].dtype is not tensor.dtype:
                self._blocks[place] = Block(tensor.dtype, self._block)
        return readers

    def _reading(
        self, readers: Mapping[int, Tensor], places: Sequence[int], start: int, stop: int
    ) -> Callable[[int], None]:
        def read(index: int) -> None:
            place = places[index]
            tensor = readers[place]
            if place not in self._failed:
                block = self._blocks[place]
                try:
                    tensor.read_into(start, stop, block.room(stop - start))
                    block.take(stop - start)
                except CancelledError:
                    raise
                except (ToolkitError, OSError) as error:
                    self._failed[place] = str(error)
            self._progress.advance(tensor.dtype.nbytes(stop - start))

        return read

    def _measure(
        self, row: RowSums, living: Sequence[int], blocks: Sequence[Block], doubtful: Sequence[bool], readable: bool
    ) -> None:
        """Add a block of every model that can still be read."""
        same = representatives(blocks)
        heads = [index for index, head in enumerate(same) if head == index]
        distinct = [blocks[head] for head in heads]
        l1, l2, changed = self._pairs(distinct, readable)
        position = {head: index for index, head in enumerate(heads)}
        places = [position[head] for head in same]
        spread = np.ix_(places, places)
        at = np.ix_(living, living)
        row.l1[at] += l1[spread]
        row.l2[at] += l2[spread]
        row.changed[at] += changed[spread]
        if not readable or not blocks:
            return
        size = blocks[0].values.size
        doubted = [doubtful[head] for head in heads]
        gaps = gaps_of(
            distinct, l2, doubted, lambda count, look: self._crew.each(count, look, size * count), self._progress.check
        ).spread(places)
        row.joint[at] += gaps.joint
        row.squares[at] += gaps.squares
        row.left_out[at] += gaps.left_out
        row.joint_squares[living] += gaps.joint_squares
        row.joint_left_out += gaps.joint_left_out
        if gaps.gain is not None:
            row.gain(frozenset(living[place] for place in gaps.suspects), living, gaps.gain)
        apart = to_average(blocks)

        def look(number: int) -> None:
            total, elements = apart(number)
            row.average[living[number]] += total
            row.average_elements[living[number]] += elements

        self._crew.each(len(blocks), look, blocks[0].raw.size)
        for index, block in zip(living, blocks, strict=True):
            row.nan[index] += block.nan
            row.infinite[index] += block.infinite
            row.bits[index] |= used_bits(block)

    def _pairs(self, blocks: Sequence[Block], readable: bool) -> tuple[Floats, Floats, Counts]:
        """Every pair of blocks that are not the same bytes: l1, l2 and changed elements as symmetric arrays."""
        count = len(blocks)
        l1, l2 = np.zeros((count, count)), np.zeros((count, count))
        changed = np.zeros((count, count), dtype="<i8")

        def measure_few(index: int) -> None:
            after = slice(index + 1, None)
            l1[index, after], l2[index, after], changed[index, after] = distances_of_few(stacked, index)
            self._progress.check()

        if readable and few(blocks):
            stacked = np.stack([block.values.reshape(-1) for block in blocks])
            self._crew.each(count - 1, measure_few, stacked.size)
            return l1 + l1.T, l2 + l2.T, changed + changed.T

        def measure(index: int) -> None:
            for other in range(index + 1, count):
                found = distance(blocks[index], blocks[other]) if readable else (0.0, 0.0, 1)
                l1[index, other], l2[index, other], changed[index, other] = found
                self._progress.check()

        self._crew.each(count - 1, measure, blocks[0].raw.size * count if blocks else 0)
        return l1 + l1.T, l2 + l2.T, changed + changed.T


class Crew:
    """Threads that share numbered jobs; the caller is one of them."""

    def __init__(self, workers: int) -> None:
        self._workers = max(1, workers)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Crew:
        if self._workers > 1:
            self._pool = ThreadPoolExecutor(self._workers - 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def each(self, count: int, do: Callable[[int], None], size: int) -> None:
        """Call ``do`` with 0 … count - 1, each once; ``size``: elements of all jobs, few of which take no threads.

        Raises what a job raised, after all have ended.
        """
        numbers = itertools.count()

        def run() -> None:
            while (number := next(numbers)) < count:
                do(number)

        if self._pool is None or size * count < _WORTH_THREADS:
            run()
            return
        helpers = [self._pool.submit(run) for _ in range(min(self._workers, count) - 1)]
        try:
            run()
        finally:
            errors = [helper.exception() for helper in helpers]
        for error in errors:
            if error is not None:
                raise error
