"""One pass over the tensors of several models: each is read once, in blocks, whatever number of pairs it is in.

A worker takes a whole row (the tensors of all models that are the same thing) and goes through it in the order of its
blocks, so that the result has the same bits with any number of workers. Memory: for each worker and model of a row
one block as stored and one as numbers (1.5 MiB together for FP16, at most 4 MiB), and three sums for each of 64 Ki
columns and pair.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lib_toolkit.analysis.compare.measures import Measures, OwnSums, PairSums
from lib_toolkit.analysis.compare.reading import Block, Piece, Width, pieces, width_of
from lib_toolkit.dtypes import DType
from lib_toolkit.progress import Progress
from lib_toolkit.streaming import default_workers
from lib_toolkit.tensors import Tensor, nbytes, numel

if TYPE_CHECKING:
    from lib_toolkit.tensors import Bytes

Pair: TypeAlias = "tuple[int, int]"
"""Two models, by their place in a row."""


@dataclass(frozen=True, slots=True)
class Task:
    """A row of equal things: the tensors by the place of their model, all with as many elements under as many
    indices of dimension 0, and the pairs of places that are to be measured."""

    tensors: Mapping[int, Tensor]
    pairs: tuple[Pair, ...]


def task_bytes(tasks: Sequence[Task]) -> int:
    """What a pass over the tasks reads."""
    return sum(nbytes(tensor) for task in tasks for tensor in task.tensors.values())


def measure(
    tasks: Sequence[Task],
    progress: Progress,
    phase: str,
    workers: int | None = None,
    cosines: bool = True,
    after: Callable[[int, Mapping[Pair, Measures | None]], None] = lambda index, found: None,
) -> list[dict[Pair, Measures | None]]:
    """For each task the measures of its pairs, None where types cannot be read as numbers and the bytes differ.

    Without ``cosines`` there is no ``cossim``, and memory does not grow with the number of pairs. ``after`` is told of
    each task that is done, with its number, one at a time. Raises what reading and ``after`` raise, and CancelledError.
    """
    progress.start(phase, task_bytes(tasks))
    work = _Work(tasks, progress, cosines, after)
    count = workers or default_workers()
    threads = [threading.Thread(target=work.run, daemon=True) for _ in range(count - 1)]
    for thread in threads:
        thread.start()
    work.run()
    for thread in threads:
        thread.join()
    if work.error is not None:
        raise work.error
    return [work.found[index] for index in range(len(tasks))]


class _Work:
    """The rows still to do, shared by the workers."""

    def __init__(
        self,
        tasks: Sequence[Task],
        progress: Progress,
        cosines: bool,
        after: Callable[[int, Mapping[Pair, Measures | None]], None],
    ) -> None:
        self._cosines = cosines
        self._after = after
        self.error: BaseException | None = None
        self.found: dict[int, dict[Pair, Measures | None]] = {}
        self._progress = progress
        self._lock = threading.Lock()
        self._one_large = threading.Lock()
        self._tasks: Iterator[tuple[int, Task]] = iter(enumerate(tasks))

    def run(self) -> None:
        """Do rows until none is left, another worker failed, or the user cancelled."""
        spare: dict[int, Block] = {}
        try:
            while True:
                with self._lock:
                    following = None if self.error else next(self._tasks, None)
                if following is None:
                    return
                index, task = following
                if any(tensor.whole for tensor in task.tensors.values()):
                    with self._one_large:
                        self.found[index] = self._measure(task, spare)
                else:
                    self.found[index] = self._measure(task, spare)
                with self._lock:
                    self._after(index, self.found[index])
        except BaseException as error:
            with self._lock:
                self.error = self.error or error

    def _measure(self, task: Task, spare: dict[int, Block]) -> dict[Pair, Measures | None]:
        readers = {place: ranged(tensor) for place, tensor in task.tensors.items()}
        for place, tensor in task.tensors.items():
            if place not in spare or spare[place].dtype is not tensor.dtype:
                spare[place] = Block(tensor.dtype)
        own = {place: OwnSums() for place in readers}
        types = {place: tensor.dtype for place, tensor in task.tensors.items()}
        sums = {(a, b): PairSums(types[a], types[b], self._cosines) for a, b in task.pairs}
        begun = False
        for piece in pieces(_shape(task)):
            if piece.fresh and begun:
                _end_columns(sums, own)
            self._fill(piece, readers, spare)
            for (a, b), one_pair in sums.items():
                one_pair.add(spare[a], spare[b], (own[a], own[b]))
            for place, one in own.items():
                one.add(spare[place])
            begun = True
        _end_columns(sums, own)
        return {pair: _finished(one, own[pair[0]], own[pair[1]]) for pair, one in sums.items()}

    def _fill(self, piece: Piece, readers: Mapping[int, Tensor], blocks: Mapping[int, Block]) -> None:
        count = piece.stop - piece.start
        for place, tensor in readers.items():
            block = blocks[place]
            tensor.read_into(piece.start, piece.stop, block.room(count))
            block.take(piece.rows)
            self._progress.advance(tensor.dtype.nbytes(count))


def _shape(task: Task) -> tuple[int, ...]:
    """The shape that decides about columns; none for types that are only compared as bytes."""
    tensor = next(iter(task.tensors.values()))
    return (numel(tensor),) if width_of(tensor.dtype) is Width.BYTES else tensor.shape


def _end_columns(sums: Mapping[Pair, PairSums], own: Mapping[int, OwnSums]) -> None:
    for (a, b), one in sums.items():
        one.end_columns(own[a], own[b])
    for tensor in own.values():
        tensor.end_columns()


def _finished(sums: PairSums, a: OwnSums, b: OwnSums) -> Measures | None:
    found = sums.measures(a, b)
    return found if sums.readable or found.identical else None


def ranged(tensor: Tensor) -> Tensor:
    """The tensor itself, or, where a block would cost as much as the whole, a copy of its bytes in memory."""
    if not tensor.whole:
        return tensor
    data = np.empty(nbytes(tensor), dtype=np.uint8)
    tensor.read_into(0, numel(tensor), data)
    return _InMemory(tensor, data)


@dataclass(frozen=True, slots=True)
class _InMemory:
    """A tensor that was read as a whole."""

    source: Tensor
    data: Bytes

    @property
    def dtype(self) -> DType:
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def whole(self) -> bool:
        return False

    def read_into(self, start: int, stop: int, out: Bytes) -> None:
        out[:] = self.data[self.dtype.nbytes(start) : self.dtype.nbytes(stop)]
