"""The jobs of the Compare panel: open, measure, put into words, write what is handed out; no file stays open."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from lib_toolkit.analysis.compare.pairs import compare
from lib_toolkit.analysis.compare.results import Comparison
from lib_toolkit.analysis.compare.triples import compare_with_third
from lib_toolkit.analysis.compare.verdicts import listing
from lib_toolkit.analysis.matrix.whole import measure_set
from lib_toolkit.errors import UsageError
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.progress import Progress
from lib_toolkit.reports.compare_html import compare_html
from lib_toolkit.reports.compare_json import compare_json
from lib_toolkit.reports.compare_png import comparison_png, need_matplotlib
from lib_toolkit.reports.matrix_files import DATA, PAGE, matrix_files
from lib_toolkit.target import safe_output_name
from lib_toolkit.tensors import nbytes
from lib_toolkit.ui.compare_actions import Compared, pair_told
from lib_toolkit.ui.compare_view import pair_html, set_html
from lib_toolkit.ui.drafts import Draft, building
from lib_toolkit.ui.handouts import HANDED_OUT

_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold: the same result gives the same bytes."""


def pair(
    sides: Sequence[Draft], metrics: Sequence[str], at_lower: bool, progress: Progress, workers: int | None
) -> Compared:
    """Compare two models as they are, or as they were changed in memory; and say where a third one lies between them,
    if there is one (then never at the lower precision).

    Raises FormatError when a file cannot be read or is not what it was, UsageError for a model without tensors,
    TargetError when the results cannot be written, and CancelledError; nothing is then left behind.
    """
    progress.start(f"opening {listing([side.name for side in sides])}", 0)
    with ExitStack() as stack:
        (a, x), (b, y), *others = [stack.enter_context(_opened(side)) for side in sides]
        if others:
            ((m, z),) = others
            result = compare_with_third((a, b, m), (x, y, z), progress, workers)
        else:
            result = compare((a, b), (x, y), progress, at_lower, workers)
        progress.start("writing the comparison", 0)
        files: dict[str, str | bytes] = {
            ".html": compare_html(result, metrics),
            ".json": json.dumps(compare_json(result, metrics), indent=1) + "\n",
        }
        picture = _picture(result, metrics)
        if picture is not None:
            files[".png"] = picture
        view = pair_html(result, metrics)
    progress.check()
    stem = _stem(sides)
    page, data, *more = HANDED_OUT.add({f"{stem}{ending}": content for ending, content in files.items()})
    told = pair_told([a.name, b.name, *(model.name for model, _ in others)])
    return Compared(told, view, page, data, more[0] if more else None)


def several(paths: Sequence[Path], metrics: Sequence[str], progress: Progress, workers: int | None) -> Compared:
    """Compare a set, each with each. Raises as ``pair`` does; a single file that fails is told in the result."""
    progress.start(f"opening {len(paths):,} models", 0)
    result = measure_set(paths, progress, workers)
    progress.start("writing the comparison", 0)
    files = matrix_files(result, metrics, _draws(), progress=progress)
    progress.check()
    rest = {name: content for name, content in files.items() if name not in (PAGE, DATA)}
    handed: dict[str, str | bytes] = {PAGE: files[PAGE], DATA: files[DATA], "matrix.zip": _packed(rest)}
    page, data, more = HANDED_OUT.add(handed)
    return Compared(f"{len(result.members):,} models, each with each", set_html(result), page, data, more)


@contextmanager
def _opened(side: Draft) -> Iterator[tuple[Model, Identification]]:
    """The model of a draft, under a name that says whether it was changed in memory."""
    with building(side, "keep") as built:
        model = built.model
        if not model.tensors:
            raise UsageError(f"{side.name} holds no tensors that could be compared; choose another model.")
        if side.edits:
            path = model.origin.path.with_name(f"{side.name}, as changed in memory")
            size = sum(nbytes(tensor) for tensor in model.tensors.values())
            model = replace(model, origin=replace(model.origin, path=path, size=size))
        yield model, built.found


def _picture(result: Comparison, metrics: Sequence[str]) -> bytes | None:
    """The picture of one figure, the usual one where it is wanted; none where there is nothing to draw with or of."""
    try:
        need_matplotlib()
        return comparison_png(result, "l2" if "l2" in metrics else metrics[0])
    except UsageError:
        return None


def _draws() -> bool:
    try:
        need_matplotlib()
    except UsageError:
        return False
    return True


def _packed(files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED)
    return data.getvalue()


def _stem(sides: Sequence[Draft]) -> str:
    """The names where every system takes them as that of a file."""
    a, b, *others = (side.stem[: 160 // len(sides)] for side in sides)
    try:
        return safe_output_name(f"{' with '.join([f'{a} and {b}', *others])}.html").removesuffix(".html")
    except UsageError:
        return "comparison"
