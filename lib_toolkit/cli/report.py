"""The verb report: everything that is known of a file, as text, JSON, Markdown and a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lib_toolkit.cli.verbs import named_path
from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from lib_toolkit.analysis.results import Report
    from lib_toolkit.cli.verbs import Verbs

_FORMS = ("json", "html", "markdown")
_STDOUT = "-"


def add_verbs(verbs: Verbs) -> None:
    """Declare ``report``."""
    report = verbs.add_parser(
        "report",
        help="tell everything about a file, also as a page",
        description="Tell what a model is made of in words and figures: metric, fingerprints, hashes, findings with "
        "their remedies. Without an option for a file the report is printed.",
    )
    report.add_argument("file", type=named_path, metavar="FILE")
    report.add_argument("--json", metavar="F", help="write the report as JSON to F; - prints it")
    report.add_argument("--html", metavar="F", help="write the report as one page to F")
    report.add_argument("--markdown", metavar="F", help="write the report as Markdown to F; - prints it")
    report.add_argument("--quick", action="store_true", help="read the header only: no metric, hashes nor values")
    report.add_argument("--force", action="store_true", help="replace files that exist")
    report.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from lib_toolkit.analysis.report import analyse
    from lib_toolkit.cli.terminal import progress_line
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify
    from lib_toolkit.reports.plain import printable
    from lib_toolkit.reports.report_markdown import report_text

    wanted = {form: target for form in _FORMS if (target := getattr(options, form)) is not None}
    _check(wanted)
    with open_model(options.file) as model:
        targets = _targets(wanted, options.file, options.force)
        with progress_line() as progress:
            report = analyse(model, identify(model), progress, options.quick)
        texts = {form: _render(report, form) for form in wanted}
        _write({targets[form]: texts[form] for form in targets}, options.force)
        printed = [texts[form] for form, target in wanted.items() if target == _STDOUT]
        if not wanted:
            printed = [report_text(report)]
    for text in printed:
        print(text, end="")
    for form, path in targets.items():
        print(f"The report ({form}) is in {printable(str(path))}.", file=sys.stderr)
    return 0


def _check(wanted: Mapping[str, str]) -> None:
    """Raises UsageError for places that cannot be, or where one form would replace another."""
    if wanted.get("html") == _STDOUT:
        raise UsageError("The page is not printed; give --html the name of a file.")
    if list(wanted.values()).count(_STDOUT) > 1:
        raise UsageError("Only one of --json and --markdown can be printed; give the other the name of a file.")
    paths = [Path(target).resolve() for target in wanted.values() if target != _STDOUT]
    if len(set(paths)) < len(paths):
        raise UsageError("Two forms of the report have the same file name; give each its own.")


def _targets(wanted: Mapping[str, str], source: Path, force: bool) -> dict[str, Path]:
    """The files to write, checked before any work is done. Raises UsageError or TargetError."""
    from lib_toolkit.target import check_target

    named = {form: target for form, target in wanted.items() if target != _STDOUT}
    for target in named.values():
        if target.endswith(("/", "\\")) or not target:
            raise UsageError(f"{target or 'The empty text'} is not the name of a file; give one in a folder.")
    return {form: check_target(Path(target), 0, (source,), force) for form, target in named.items()}


def _render(report: Report, form: str) -> str:
    # Only what is asked for is imported and made.
    if form == "json":
        from lib_toolkit.reports.report_json import report_json

        return json.dumps(report_json(report), indent=2) + "\n"
    if form == "html":
        from lib_toolkit.reports.report_html import report_html

        return report_html(report)
    from lib_toolkit.reports.report_markdown import report_markdown

    return report_markdown(report)


def _write(texts: Mapping[Path, str], force: bool) -> None:
    """Put all files in place, none before all are complete on the disk."""
    from lib_toolkit.temporary import TemporaryFile

    with ExitStack() as stack:
        files = []
        for path, text in texts.items():
            file = stack.enter_context(TemporaryFile(path))
            file.write_at(0, memoryview(text.encode("utf-8")))
            file.sync()
            files.append(file)
        for file in files:
            file.commit(force)
