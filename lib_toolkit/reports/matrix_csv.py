"""A matrix as CSV: one line for each model, empty where there is no figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from lib_toolkit.analysis.matrix.results import GroupResult
from lib_toolkit.reports.plain import printable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def matrix_csv(group: GroupResult, metric: str, names: Sequence[str]) -> str:
    """The matrix of one metric with names above and beside it."""
    labels = [_label(name) for name in names]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([metric, *labels])
    for label, row in zip(labels, group.figures(metric).tolist(), strict=True):
        writer.writerow([label, *("" if not math.isfinite(value) else f"{value:.12g}" for value in row)])
    return out.getvalue()


def _label(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    shown = printable(name)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
