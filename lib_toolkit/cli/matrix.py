"""The verb that puts a whole set of models side by side: matrix."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lib_toolkit.cli.verbs import named_path
from lib_toolkit.errors import TargetError, ToolkitError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lib_toolkit.analysis.matrix.results import SetResult
    from lib_toolkit.cli.verbs import Verbs

_METRICS = ("l0", "l1", "l2", "cosine")


def add_verbs(verbs: Verbs) -> None:
    """Declare ``matrix``."""
    matrix = verbs.add_parser(
        "matrix",
        help="distances of a whole set of models, and who was merged from whom",
        description="Measure each model of a set against each, by component and merge block; every file is read once. "
        "DIR gets matrix.json, matrix.html, and for each component CSV and pictures. An interrupted run goes on "
        "where it stopped.",
    )
    matrix.add_argument("files", nargs="+", type=named_path, metavar="FILE", help="model files, or folders of them")
    matrix.add_argument(
        "--out", type=named_path, metavar="DIR", required=True, help="folder of the results; made if need be"
    )
    matrix.add_argument("--metrics", metavar="LIST", help="of l0, l1, l2, cosine; default: all")
    matrix.add_argument("--workers", type=int, metavar="N", help="threads; the result is the same with any number")
    matrix.add_argument(
        "--compat-json", metavar="F", help="also write the published tool's matrices of one metric (default: l2) to F"
    )
    matrix.add_argument(
        "--compat-png", action="store_true", help="also draw the published tool's graph and line of each component"
    )
    matrix.add_argument("--no-pictures", action="store_true", help="draw no PNG")
    matrix.add_argument("--json", action="store_true", help="print matrix.json too")
    matrix.add_argument("--force", action="store_true", help="replace results that exist")
    matrix.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from lib_toolkit.analysis.matrix.state import forget
    from lib_toolkit.analysis.matrix.whole import measure_set
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.reports.matrix_files import matrix_files, outdated
    from lib_toolkit.reports.matrix_sentences import merge_sentences, summary
    from lib_toolkit.reports.plain import printable

    metrics = _metrics(options.metrics)
    compat = _compat_metric(options, metrics)
    if options.workers is not None and options.workers < 1:
        raise UsageError("--workers is a number of threads, 1 at the least.")
    drawn = _draws(options)
    new = not options.out.exists()
    folder = _folder(options.out)
    try:
        _check(options, folder)
        with progress_line() as progress:
            result = measure_set(options.files, progress, options.workers, folder)
    except ToolkitError:
        if new:
            with suppress(OSError):
                folder.rmdir()  # as long as nothing is kept in it
        raise
    title = folder.resolve().name or "set"
    made = matrix_files(result, metrics, drawn, title)
    if options.compat_png:
        made |= _published(result, compat, title)
    targets = {folder / name: data for name, data in made.items()}
    if options.compat_json is not None:
        targets[Path(options.compat_json)] = _published_text(result, compat, title)
    old = outdated(folder, title, made) if options.force else []
    _write(targets, options.force)
    _remove(set(old) - set(targets))
    forget(folder)
    if options.json:
        print(made["matrix.json"].decode(), end="")
    else:
        print("\n".join(printable(sentence) for sentence in (*summary(result), *merge_sentences(result))))
    print(f"The results are in {printable(str(folder))}; matrix.html shows them.", file=sys.stderr)
    return 0


def _metrics(given: str | None) -> tuple[str, ...]:
    if given is None:
        return _METRICS
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    for name in names:
        if name == "cossim":
            raise UsageError("A matrix holds cosine, that of the whole; cossim is a figure of compare and compare-map.")
        if name not in _METRICS:
            raise UsageError(f"{name!r} is not a metric of a matrix; choose of {', '.join(_METRICS)}.")
    return names


def _compat_metric(options: argparse.Namespace, metrics: Sequence[str]) -> str:
    """The metric of the published files: the one that is named, else l2."""
    from lib_toolkit.reports.matrix_published import METRICS

    wanted = options.compat_json is not None or options.compat_png
    if options.metrics is None or not wanted:
        return "l2"
    if len(metrics) == 1 and metrics[0] in METRICS:
        return metrics[0]
    if "l2" in metrics:
        return "l2"
    raise UsageError(f"The published matrices hold one metric of {', '.join(METRICS)}; name one in --metrics.")


def _draws(options: argparse.Namespace) -> bool:
    """Whether pictures are drawn; a missing matplotlib is only an error where they were asked for."""
    from lib_toolkit.reports.compare_png import need_matplotlib

    if options.no_pictures and not options.compat_png:
        return False
    try:
        need_matplotlib()
    except UsageError as error:
        if options.compat_png:
            raise
        print(f"No PNG is drawn: {error}", file=sys.stderr)
        return False
    return not options.no_pictures


def _folder(folder: Path) -> Path:
    """The folder of the results. Raises TargetError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise TargetError(f"{folder} is a file; name a folder for the results.") from None
    except OSError as error:
        raise TargetError(f"The folder {folder} cannot be made: {error.strerror}; choose another one.") from None
    return folder


def _check(options: argparse.Namespace, folder: Path) -> None:
    """Raises TargetError for what could not be written in the end, before any work is done."""
    from lib_toolkit.target import check_target

    for name in ("matrix.json", "matrix.html"):
        check_target(folder / name, 0, (), options.force)
    if options.compat_json is not None:
        files = [path for path in options.files if path.is_file()]
        check_target(Path(options.compat_json), 0, tuple(files), options.force)


def _published(result: SetResult, metric: str, title: str) -> dict[str, bytes]:
    from lib_toolkit.reports.matrix_png import published_pictures
    from lib_toolkit.reports.matrix_published import published_matrices

    names = [member.name for member in result.members]
    return {
        f"{title}_{component}_{kind}.png": data
        for component, matrix in published_matrices(result, metric).items()
        for kind, data in published_pictures(matrix, names, component, title, metric).items()
    }


def _published_text(result: SetResult, metric: str, title: str) -> bytes:
    from lib_toolkit.reports.matrix_published import published_matrix_text

    return published_matrix_text(result, metric, title).encode("utf-8", "replace")


def _write(targets: Mapping[Path, bytes], force: bool) -> None:
    """Put all files in place, none before all are complete on the disk."""
    from lib_toolkit.target import check_target
    from lib_toolkit.temporary import TemporaryFile

    with ExitStack() as stack:
        files = []
        for path, data in targets.items():
            file = stack.enter_context(TemporaryFile(check_target(path, len(data), (), force)))
            file.write_at(0, memoryview(data))
            file.sync()
            files.append(file)
        for file in files:
            file.commit(force)


def _remove(files: Iterable[Path]) -> None:
    """Remove what earlier results left, so that it is not taken for a part of the new ones."""
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            print(f"{file} is of an earlier result and could not be removed: {error.strerror}.", file=sys.stderr)
