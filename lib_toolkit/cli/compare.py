"""Verbs that put models side by side: compare, compare-map; and flat arrays of models: flatten, unflatten."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lib_toolkit.cli.verbs import named_path
from lib_toolkit.counting import counted
from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from lib_toolkit.analysis.compare.results import Comparison
    from lib_toolkit.cli.verbs import Verbs
    from lib_toolkit.reports.compare_published import Published

_FORMS = ("json", "html", "png", "compat_json", "compat_png")
_STDOUT = "-"
_PRINTED = frozenset({"json", "compat_json"})


def add_verbs(verbs: Verbs) -> None:
    """Declare ``compare``, ``compare-map``, ``flatten`` and ``unflatten``."""
    _add_compare(verbs)
    _add_map(verbs)
    flatten = verbs.add_parser(
        "flatten",
        help="write all numbers of a model as one array",
        description="Write all elements of a model as one NumPy array, with a description beside it (OUT.npy.json) of "
        "which unflatten makes the same model again. Works for LoRA files too.",
    )
    flatten.add_argument("file", type=named_path, metavar="FILE")
    flatten.add_argument("-o", "--output", type=named_path, metavar="OUT.npy", required=True)
    flatten.add_argument("--force", action="store_true", help="replace OUT.npy and OUT.npy.json if they exist")
    flatten.set_defaults(run=_flatten)
    unflatten = verbs.add_parser(
        "unflatten",
        help="make a model of such an array again",
        description="Make a model of an array and its description (FILE.npy.json): the same keys, types and bits.",
    )
    unflatten.add_argument("file", type=named_path, metavar="FILE.npy")
    unflatten.add_argument("-o", "--output", type=named_path, metavar="OUT", required=True)
    unflatten.add_argument("--force", action="store_true", help="replace OUT if it exists")
    unflatten.set_defaults(run=_unflatten)


def _add_compare(verbs: Verbs) -> None:
    compare = verbs.add_parser(
        "compare",
        help="say how two models differ, where and how much",
        description="Compare two models by meaning, whatever their names and layouts: what is the same, what was "
        "trained, what is missing; in words, figures, a page and pictures. Both files are read once.",
    )
    compare.add_argument("files", nargs="*", type=named_path, metavar="A B", help="two model files")
    compare.add_argument(
        "--from-json", type=named_path, metavar="F", help="instead: gather a published tool's report again"
    )
    compare.add_argument(
        "--metrics", metavar="LIST", help="of l0, l1, l2, cossim, cosine; default: all (l2 for --compat-…)"
    )
    compare.add_argument("--json", metavar="F", help="write the result as JSON to F; - prints it")
    compare.add_argument("--html", metavar="F", help="write one page to F")
    compare.add_argument("--png", metavar="F", help="write a picture to F (needs matplotlib)")
    compare.add_argument(
        "--compat-json", metavar="F", help="write the published tool's JSON for one metric; - prints it"
    )
    compare.add_argument("--compat-png", metavar="F", help="write the published tool's three histograms for one metric")
    compare.add_argument(
        "--at-lower-precision",
        action="store_true",
        help="cast the finer of two types (F64, F32, F16, BF16) to the coarser first; nothing is cast to FP8",
    )
    compare.add_argument(
        "--third", type=named_path, metavar="M", help="say too which parts of M are mixed of A's and B's"
    )
    compare.add_argument("--workers", type=int, metavar="N", help="threads; the result is the same with any number")
    compare.add_argument("--force", action="store_true", help="replace files that exist")
    compare.set_defaults(run=_compare)


def _add_map(verbs: Verbs) -> None:
    listed = verbs.add_parser(
        "compare-map",
        help="compare a list of pairs",
        description="Compare all pairs of a model map ([[group, [[[name, path], [name, path]], …]], …]); every file is "
        "opened once. What is done already is not done again.",
    )
    listed.add_argument("map", type=named_path, metavar="MAP.json")
    listed.add_argument(
        "--out", type=named_path, metavar="DIR", required=True, help="a folder for the results; made if need be"
    )
    listed.add_argument("--metrics", metavar="LIST", help="of l0, l1, l2, cossim, cosine; default: all")
    listed.add_argument(
        "--compat", action="store_true", help="also write the published tool's JSON of each pair (one metric)"
    )
    listed.add_argument("--json", action="store_true", help="print the index as JSON")
    listed.add_argument("--workers", type=int, metavar="N", help="threads; the result is the same with any number")
    listed.set_defaults(run=_compare_map)


def _compare(options: argparse.Namespace) -> int:
    wanted = {form: target for form in _FORMS if (target := getattr(options, form)) is not None}
    metrics = _metrics(options.metrics)
    _check(options, wanted)
    if {"png", "compat_png"} & wanted.keys():
        from lib_toolkit.reports.compare_png import need_matplotlib

        need_matplotlib()
    one = _one_metric(options.metrics, metrics, bool({"compat_json", "compat_png"} & wanted.keys()))
    sources = (*options.files, *filter(None, [options.from_json, options.third]))
    targets = _targets(wanted, sources, options.force)
    if options.from_json is not None:
        texts, printed = _from_json(options, wanted, one)
    else:
        texts, printed = _of_models(options, wanted, metrics, one)
    _write({targets[form]: texts[form] for form in targets}, options.force)
    shown = [texts[form].decode() for form, target in wanted.items() if target == _STDOUT] or [printed]
    print("".join(shown), end="")
    return 0


def _metrics(given: str | None) -> tuple[str, ...]:
    from lib_toolkit.analysis.compare.measures import METRICS

    names = tuple(dict.fromkeys(name.strip() for name in given.split(","))) if given is not None else METRICS
    for name in names:
        if name not in METRICS:
            raise UsageError(f"{name!r} is not a metric; choose of {', '.join(METRICS)}.")
    return names


def _one_metric(given: str | None, metrics: tuple[str, ...], needed: bool) -> str:
    """The metric of the published files, which hold only one."""
    if given is None:
        return "l2"
    if needed and (len(metrics) > 1 or metrics[0] == "cosine"):
        raise UsageError(
            "A file in the published form holds one metric of l0, l1, l2 and cossim; name one in --metrics."
        )
    return metrics[0]


def _check(options: argparse.Namespace, wanted: Mapping[str, str]) -> None:
    """Raises UsageError for what makes no sense together."""
    if options.from_json is not None:
        if options.files:
            raise UsageError("--from-json reads a finished report; leave out the two models.")
        if "html" in wanted:
            raise UsageError("A published report has no shapes to draw a page of; ask for --png or --json.")
    elif len(options.files) != 2:
        raise UsageError(f"compare needs two model files, {len(options.files)} given; for more of them use matrix.")
    if options.third is not None and (options.at_lower_precision or options.from_json is not None):
        raise UsageError("--third goes with neither --at-lower-precision nor --from-json; leave one of them out.")
    if options.workers is not None and options.workers < 1:
        raise UsageError("--workers is a number of threads, 1 at the least.")
    for form, target in wanted.items():
        if target == _STDOUT and form not in _PRINTED:
            raise UsageError(f"--{form.replace('_', '-')} is not printed; give it the name of a file.")
    if list(wanted.values()).count(_STDOUT) > 1:
        raise UsageError("Only one of --json and --compat-json can be printed; give the other the name of a file.")
    paths = [Path(target).resolve() for target in wanted.values() if target != _STDOUT]
    if len(set(paths)) < len(paths):
        raise UsageError("Two results have the same file name; give each its own.")


def _targets(wanted: Mapping[str, str], sources: tuple[Path, ...], force: bool) -> dict[str, Path]:
    from lib_toolkit.target import check_target

    named = {form: target for form, target in wanted.items() if target != _STDOUT}
    for target in named.values():
        if target.endswith(("/", "\\")) or not target:
            raise UsageError(f"{target or 'The empty text'} is not the name of a file; give one in a folder.")
    return {form: check_target(Path(target), 0, sources, force) for form, target in named.items()}


def _of_models(
    options: argparse.Namespace, wanted: Mapping[str, str], metrics: tuple[str, ...], one: str
) -> tuple[dict[str, bytes], str]:
    from lib_toolkit.analysis.compare.pairs import compare
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify
    from lib_toolkit.reports.compare_text import compare_text

    paths = [*options.files, *filter(None, [options.third])]
    with ExitStack() as stack:
        models = [stack.enter_context(open_model(path)) for path in paths]
        progress = stack.enter_context(progress_line())
        found = [identify(model) for model in models]
        if len(models) == 3:
            from lib_toolkit.analysis.compare.triples import compare_with_third

            (a, b, third), (x, y, z) = models, found
            result = compare_with_third((a, b, third), (x, y, z), progress, options.workers)
        else:
            (a, b), (x, y) = models, found
            result = compare((a, b), (x, y), progress, options.at_lower_precision, options.workers)
        texts = {form: _render(result, form, metrics, one) for form in wanted}
        return texts, compare_text(result, metrics)


def _render(result: Comparison, form: str, metrics: tuple[str, ...], one: str) -> bytes:
    # Only what is asked for is imported and made.
    if form == "json":
        from lib_toolkit.reports.compare_json import compare_json

        return (json.dumps(compare_json(result, metrics), indent=1) + "\n").encode()
    if form == "html":
        from lib_toolkit.reports.compare_html import compare_html

        return compare_html(result, metrics).encode()
    if form == "png":
        from lib_toolkit.reports.compare_png import comparison_png

        return comparison_png(result, one)
    from lib_toolkit.reports.compare_published import published

    return _render_published(published(result, one), form, one)


def _render_published(report: Published, form: str, metric: str) -> bytes:
    from lib_toolkit.reports import compare_png
    from lib_toolkit.reports.compare_published import published_json, published_text

    if form == "compat_json":
        return published_text(report).encode()
    if form == "json":
        return (json.dumps(published_json(report, metric), indent=1) + "\n").encode()
    if form == "compat_png":
        return compare_png.published_png(report, metric)
    return compare_png.panels_png(report, metric)


def _from_json(options: argparse.Namespace, wanted: Mapping[str, str], metric: str) -> tuple[dict[str, bytes], str]:
    from lib_toolkit.reports.compare_published import published_lines, read_published

    report = read_published(options.from_json)
    texts = {form: _render_published(report, form, metric) for form in wanted}
    return texts, "\n".join(published_lines(report, metric)) + "\n"


def _write(contents: Mapping[Path, bytes], force: bool) -> None:
    """Put all files in place, none before all are complete on the disk."""
    from lib_toolkit.temporary import TemporaryFile

    with ExitStack() as stack:
        files = []
        for path, content in contents.items():
            file = stack.enter_context(TemporaryFile(path))
            file.write_at(0, memoryview(content))
            file.sync()
            files.append(file)
        for file in files:
            file.commit(force)


def _compare_map(options: argparse.Namespace) -> int:
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.reports.compare_map import run_map

    metrics = _metrics(options.metrics)
    one = _one_metric(options.metrics, metrics, options.compat)
    with progress_line() as progress:
        index = run_map(options.map, options.out, metrics, one if options.compat else None, progress, options.workers)
    if options.json:
        print(json.dumps(index.as_json(), indent=1))
    else:
        print("\n".join(index.lines()))
    return 0


def _flatten(options: argparse.Namespace) -> int:
    from lib_toolkit.analysis.compare.flatten import flatten
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.formats import open_model
    from lib_toolkit.reports.plain import printable

    with open_model(options.file) as model, progress_line() as progress:
        done = flatten(model, options.output, options.force, progress)
        if model.outside:
            print(f"Left out: {counted(len(model.outside), 'tensor')} outside of the state dict.", file=sys.stderr)
    exact = f"; {counted(len(done.exact), 'tensor')} also bit for bit in the description" if done.exact else ""
    numbers = f"{counted(done.count, 'number')} ({done.dtype.name}) {'is' if done.count == 1 else 'are'}"
    print(f"{numbers} in {printable(str(done.array))}{exact}.")
    return 0


def _unflatten(options: argparse.Namespace) -> int:
    from lib_toolkit.analysis.compare.unflatten import unflatten
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.reports.plain import printable

    with progress_line() as progress:
        size = unflatten(options.file, options.output, options.force, progress)
    print(f"The model ({size:,} bytes) is in {printable(str(options.output))}.")
    return 0
