"""The published cosine of two tensors: one for each index of the dimensions after the first, then their mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lib_toolkit.analysis.compare.measures import OwnSums
    from lib_toolkit.analysis.compare.reading import Flags, Sums

_EPSILON = 1e-8


class Cosines:
    """The sums of a pair by column, block after block, and the cosines of the columns that are complete.

    As long as nothing is left out, each side's squares are those that it adds to all of its pairs; from then on, up to
    the end of the columns, the pair keeps its own.
    """

    def __init__(self) -> None:
        self._product: Sums | None = None
        self._own: tuple[Sums, Sums] | None = None
        self._out: Flags | None = None
        self._totals: list[float] = []
        self._count = 0

    @property
    def mean(self) -> float | None:
        """The mean of all cosines, None without any."""
        return math.fsum(self._totals) / self._count if self._count else None

    def leave_out(self, bad: Flags, a: OwnSums, b: OwnSums) -> None:
        """The next block has elements (by row and column) that count for neither; a and b: the sums before it."""
        width = bad.shape[1]
        if self._own is None or self._out is None:
            before = [np.zeros(width) if one.columns is None else one.columns.copy() for one in (a, b)]
            self._own = (before[0], before[1])
            self._out = np.zeros(width, dtype=np.bool_)
        self._out |= bad.any(axis=0)

    def add(self, product: Sums, a: Sums, b: Sums) -> None:
        """The next block: Σab, Σa² and Σb² by column."""
        if self._product is None:
            self._product = product.astype("<f8", copy=True)
        else:
            self._product += product
        if self._own is not None:
            for own, squares in zip(self._own, (a, b), strict=True):
                own += squares

    def end(self, a: OwnSums, b: OwnSums) -> None:
        """The columns up to here are complete: take their cosines."""
        if self._product is None or a.columns is None or b.columns is None:
            return
        x_squared, y_squared = self._own or (a.columns, b.columns)
        x, y = np.sqrt(x_squared), np.sqrt(y_squared)
        with np.errstate(all="ignore"):
            cosines = np.where(
                (x >= _EPSILON) & (y >= _EPSILON),
                self._product / np.sqrt(x_squared * y_squared),
                self._product / (np.maximum(x, _EPSILON) * np.maximum(y, _EPSILON)),
            )
        told = np.isfinite(cosines)
        if self._out is not None:
            # Of a column that was left out as a whole there is nothing to say.
            told &= ~(self._out & (x_squared == 0) & (y_squared == 0))
        self._totals.append(float(cosines[told].sum()))
        self._count += int(np.count_nonzero(told))
        self._product = self._own = self._out = None
