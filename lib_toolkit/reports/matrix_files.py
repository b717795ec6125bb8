"""Every file in which a measured set is handed over, made from one result."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from lib_toolkit.analysis.matrix.results import METRICS, SetResult
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.reports.matrix_csv import matrix_csv
from lib_toolkit.reports.matrix_html import matrix_html
from lib_toolkit.reports.matrix_json import matrix_text

PAGE, DATA = "matrix.html", "matrix.json"

_PICTURES = ("heatmap", "dendrogram", "graph", "map", "line")
_PUBLISHED = re.compile(r"(te|te0|te1|vae|unet|other)_(vg|xy)\.png")
_COMPONENT = re.compile(r"[a-z_]+(#[0-9]+)?")
_LARGEST = 1 << 30


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
        name = _stem(group.group.id)
        for metric in metrics:
            made[f"{name}-{metric}.csv"] = matrix_csv(group, metric, names).encode("utf-8", "replace")
    if drawn:
        # Only here: it takes a second to be imported.
        from lib_toolkit.reports.matrix_png import pictures

        for group in result.components:
            progress.check()
            name = _stem(group.group.id)
            made |= {f"{name}-{kind}.png": data for kind, data in pictures(group, names).items()}
    return made


def _stem(component: str) -> str:
    """How the files of a component begin."""
    return component.replace("#", "-")


def outdated(folder: Path, title: str, fresh: Collection[str]) -> list[Path]:
    """Files that an earlier result in ``folder`` left and that are not among the ``fresh`` ones.

    Only what the folder's own DATA tells of, and published pictures under ``title``; nothing where DATA is not ours. To
    be asked before DATA is replaced.
    """
    try:
        if (folder / DATA).stat().st_size > _LARGEST:
            return []
        table = json.loads((folder / DATA).read_text(encoding="utf-8"))
        ours = table["tool"]["name"] == "model-toolkit"
        components = [name for name in ("total", *table["components"]) if _COMPONENT.fullmatch(name)]
        metrics = [name for name in table["metrics"] if name in METRICS]
        names = [file.name for file in folder.iterdir() if file.is_file() and not file.is_symlink()]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    known = {f"{_stem(name)}-{metric}.csv" for name in components for metric in metrics}
    known |= {f"{_stem(name)}-{kind}.png" for name in components for kind in _PICTURES}
    start = f"{title}_"
    known |= {name for name in names if name.startswith(start) and _PUBLISHED.fullmatch(name[len(start) :])}
    return sorted(folder / name for name in names if ours and name in known and name not in fresh)
