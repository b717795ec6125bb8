"""Every file in which a measured set is handed over, made from one result."""

from __future__ import annotations

from collections.abc import Sequence

from lib_toolkit.analysis.matrix.results import METRICS, SetResult
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.reports.matrix_csv import matrix_csv
from lib_toolkit.reports.matrix_html import matrix_html
from lib_toolkit.reports.matrix_json import matrix_text

PAGE, DATA = "matrix.html", "matrix.json"


def matrix_files(
    result: SetResult,
    metrics: Sequence[str] = METRICS,
    drawn: bool = True,
    title: str = "Distances of a set",
    progress: Progress = SILENT,
) -> dict[str, bytes]:
    """The contents by name: PAGE, DATA, CSV for each component and metric, and, if ``drawn``, PNG pictures.

    Pictures need matplotlib. Raises ToolkitError when the installation lacks the page's own style or script, and
    CancelledError.
    """
    names = [member.name for member in result.members]
    made = {
        DATA: matrix_text(result, metrics).encode("utf-8", "replace"),
        PAGE: matrix_html(result, metrics, title).encode("utf-8", "replace"),
    }
    for group in (result.total, *result.components):
        name = group.group.id.replace("#", "-")
        for metric in metrics:
            made[f"{name}-{metric}.csv"] = matrix_csv(group, metric, names).encode("utf-8", "replace")
    if drawn:
        # Only here: it takes a second to be imported.
        from lib_toolkit.reports.matrix_png import pictures

        for group in result.components:
            progress.check()
            name = group.group.id.replace("#", "-")
            made |= {f"{name}-{kind}.png": data for kind, data in pictures(group, names).items()}
    return made
