"""Run the pass: which bytes are read, which tensors get them, and what is read tensor by tensor instead.

Tensors that lie densely in the file are fed as the file is read in order. What has to be unpacked or gathered from a
strided storage is read afterwards, one tensor at a time.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from lib_toolkit.analysis.values import BLOCK, Facts, Gatherer, Request
from lib_toolkit.casting import scratch
from lib_toolkit.model import Model
from lib_toolkit.progress import Progress
from lib_toolkit.streaming import default_workers
from lib_toolkit.sweep import Lane, merged, sweep
from lib_toolkit.tensors import Stored, Tensor, nbytes, numel

if TYPE_CHECKING:
    from lib_toolkit.analysis.values import Histogram

_VALUE_LANES = 4
"""Tensors that may be worked on at the same time; the result does not depend on it."""


@dataclass
class Collected:
    """Facts by key of the file, and the summed histogram of each figure."""

    facts: dict[str, Facts] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def finish(self, key: str, gatherer: Gatherer, figure: str | None) -> None:
        """Take over what a gatherer found; called by any thread."""
        facts, counts = gatherer.facts(), gatherer.histogram
        gatherer.histogram = None
        with self._lock:
            self.facts[key] = facts
            if figure is None or counts is None:
                return
            if figure in self.histograms:
                self.histograms[figure] += counts
            else:
                self.histograms[figure] = counts


def collect(
    model: Model,
    requests: Mapping[str, Request],
    lanes: Sequence[Lane],
    progress: Progress,
    phase: str,
    workers: int | None = None,
) -> Collected:
    """Gather what ``requests`` ask of the model's tensors; with ``lanes`` the whole file passes through them too.

    Each byte of the file is read once; without lanes only those of the tensors asked for. Raises FormatError when
    the file cannot be read or changes meanwhile, and CancelledError.
    """
    collected = Collected()
    dense: list[_Place] = []
    others: list[str] = []
    for key, request in requests.items():
        tensor = model.tensors[key]
        if isinstance(tensor, Stored) and tensor.source is model.origin.file and nbytes(tensor):
            dense.append(_Place(tensor.offset, tensor.offset + nbytes(tensor), key, tensor, request))
        else:
            others.append(key)
    dense.sort(key=lambda place: (place.begin, place.end))
    size = model.origin.size
    ranges = [(0, size)] if lanes else merged((place.begin, place.end) for place in dense)
    total = sum(end - begin for begin, end in ranges) + sum(nbytes(model.tensors[key]) for key in others)
    progress.start(phase, total)
    if model.origin.file is not None:
        values = [_Values(dense[i::_VALUE_LANES], collected) for i in range(_VALUE_LANES)]
        sweep(model.origin.file, ranges, (*lanes, *values), progress, workers or default_workers())
    for key in others:
        _read_alone(key, model.tensors[key], requests[key], collected, progress)
    if model.origin.file is not None:
        model.origin.file.check_unchanged()
    return collected


@dataclass(slots=True)
class _Place:
    """A dense tensor's bytes in the file, and who gathers them while they pass."""

    begin: int
    end: int
    key: str
    tensor: Stored
    request: Request
    gatherer: Gatherer | None = None


class _Values:
    """A lane that feeds tensors, given in the order of their places."""

    def __init__(self, places: Sequence[_Place], collected: Collected) -> None:
        self._places = places
        self._begins = [place.begin for place in places]
        self._furthest = list(accumulate((place.end for place in places), max))
        self._collected = collected
        self._first = 0

    def wants(self, begin: int, end: int) -> bool:
        before = bisect_left(self._begins, end)
        return before > 0 and self._furthest[before - 1] > begin

    def feed(self, offset: int, data: memoryview) -> None:
        end = offset + len(data)
        while self._first < len(self._places) and self._furthest[self._first] <= offset:
            self._first += 1
        for index in range(self._first, bisect_left(self._begins, end)):
            place = self._places[index]
            if place.end > offset:
                self._feed_one(place, offset, data)

    def _feed_one(self, place: _Place, offset: int, data: memoryview) -> None:
        if place.gatherer is None:
            place.gatherer = Gatherer(place.tensor.dtype, place.tensor.shape, place.request)
        piece = data[max(0, place.begin - offset) : place.end - offset]
        place.gatherer.feed(piece, place.tensor.big_endian)
        if place.end <= offset + len(data):
            self._collected.finish(place.key, place.gatherer, place.request.figure)
            place.gatherer = None


def _read_alone(key: str, tensor: Tensor, request: Request, collected: Collected, progress: Progress) -> None:
    """Read a tensor by its own means, in blocks, or at once where a block costs as much as the whole."""
    gatherer = Gatherer(tensor.dtype, tensor.shape, request)
    count = numel(tensor)
    step = max(1, count) if tensor.whole else BLOCK
    for start in range(0, count, step):
        stop = min(start + step, count)
        with scratch(tensor.dtype.nbytes(stop - start)) as out:
            tensor.read_into(start, stop, out)
            gatherer.feed(out.data)
        progress.advance(tensor.dtype.nbytes(stop - start))
    collected.finish(key, gatherer, request.figure)
