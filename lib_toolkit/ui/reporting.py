"""The report of a model for the tab: made by a job, shown in short, handed out as files, opened as a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lib_toolkit.analysis.report import analyse
from lib_toolkit.errors import FormatError, UsageError
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.progress import Progress
from lib_toolkit.reports.html import Html, tag
from lib_toolkit.reports.report_brief import brief_html
from lib_toolkit.reports.report_html import report_html
from lib_toolkit.reports.report_json import report_json
from lib_toolkit.target import safe_output_name
from lib_toolkit.ui.drafts import Stamp, stamp_of
from lib_toolkit.ui.handouts import HANDED_OUT

NO_REPORT = tag(
    "p",
    "No report yet. It reads the whole file once, for the metric, fingerprints, hashes and what is wrong with the "
    "values; nothing is changed.",
    class_="model-toolkit-empty",
)
"""What stands in the place of the summary before the first report."""

OPEN_REPORT: Html = tag(
    "div",
    tag("button", "Open the report in a new page", type="button", data_model_toolkit_open=""),
    tag("span", role="status"),
    class_="model-toolkit-open",
)
"""The button that opens the page whose link stands in ``report_html``, to be shown once there is a report. The page's
script does it within the click, so that no browser takes it for a pop-up, and tells beside it when it cannot."""


@dataclass(frozen=True)
class Report:
    """A report as files to download, values for gr.File, and in short, a value for gr.HTML."""

    html_path: Path
    json_path: Path
    summary_html: Html


def make(path: Path, stamp: Stamp, progress: Progress) -> Report:
    """Read a model file and write its report: the work of a job.

    Raises FormatError when the file cannot be read or is not, or no longer, the one with this stamp, TargetError
    when the report cannot be written, and CancelledError; no file is then left behind.
    """
    progress.start(f"opening {path.name}", 0)
    _check(path, stamp)
    with open_model(path) as model:
        report = analyse(model, identify(model), progress)
        _check(path, stamp)
        progress.start("writing the report", 0)
        page, data = report_html(report), json.dumps(report_json(report), indent=2) + "\n"
        summary = brief_html(report)
    progress.check()
    stem = _stem(path)
    html_path, json_path = HANDED_OUT.add({f"{stem}.report.html": page, f"{stem}.report.json": data})
    return Report(html_path, json_path, summary)


def _check(path: Path, stamp: Stamp) -> None:
    if stamp_of(path) != stamp:
        raise FormatError(f"{path.name} was changed since it was loaded; load it again.")


def _stem(path: Path) -> str:
    """The model's name where every system takes it as that of a file."""
    try:
        return safe_output_name(f"{path.stem}.report.html").removesuffix(".report.html")
    except UsageError:
        return "model"
