"""The report in short, for a place beside the controls: verdict, findings, metric, fingerprints and hashes."""

from __future__ import annotations

from lib_toolkit.analysis.results import Finding, Report
from lib_toolkit.reports.html import EMPTY, Html, bullets, details, join, table, tag, text
from lib_toolkit.reports.report_sections import (
    SEVERITIES,
    Cell,
    Code,
    Section,
    Table,
    by_severity,
    headline,
    names_of,
    nothing_found,
    sections,
)

_MOST_FINDINGS, _MOST_ROWS = 40, 60


def brief_html(report: Report) -> Html:
    """What somebody wants to know before opening the whole report; everything from the file is escaped."""
    first, *others = headline(report)
    figures = next((section for section in sections(report) if section.id == "figures"), None)
    return tag(
        "div",
        tag("h3", "Report"),
        tag("p", first, class_="model-toolkit-verdict"),
        tag("p", " ".join(others)) if others else EMPTY,
        _findings(report),
        _figures(figures) if figures else EMPTY,
        tag(
            "p",
            "How this model differs from another one, and where: ",
            tag("button", "Compare", type="button", data_model_toolkit_tab="Compare"),
        ),
        class_="model-toolkit-report",
    )


def copy_button(value: str, what: str) -> Html:
    """A button that copies ``value``; the tab's script brings it to life."""
    return tag("button", "Copy", type="button", data_model_toolkit_copy=value, aria_label=f"Copy: {what}")


def _findings(report: Report) -> Html:
    if not report.findings:
        return tag("p", nothing_found(report))
    found = [(SEVERITIES[severity], finding) for severity, some in by_severity(report) for finding in some]
    shown = [_finding(words, finding) for words, finding in found[:_MOST_FINDINGS]]
    more = len(found) - _MOST_FINDINGS
    rest = tag("p", f"… and {more:,} more in the whole report.") if more > 0 else EMPTY
    return join([tag("h4", "Findings"), *shown, rest])


def _finding(words: str, finding: Finding) -> Html:
    remedy = finding.remedy
    helps = tag("p", tag("b", "What helps: "), f"{remedy.sentence} {remedy.effect}") if remedy else EMPTY
    one, several = names_of(finding)
    title = f"{len(finding.keys)} {one if len(finding.keys) == 1 else several} as examples"
    keys = details(title, bullets([tag("code", key) for key in finding.keys])) if finding.keys else EMPTY
    return tag(
        "div",
        tag("p", tag("b", f"{words}: "), finding.sentence),
        helps,
        keys,
        class_=f"model-toolkit-finding model-toolkit-{finding.severity.value}",
    )


def _figures(section: Section) -> Html:
    tables = join(_table(one) for one in section.tables if one.rows)
    return join([tag("h4", section.title), bullets(section.sentences), tables])


def _table(shown: Table) -> Html:
    rows = [[_cell(cell, row[0]) for cell in row] for row in shown.rows[:_MOST_ROWS]]
    more = len(shown.rows) - _MOST_ROWS
    rest = tag("p", f"… and {more:,} more in the whole report.") if more > 0 else EMPTY
    return join([table(shown.head, rows, shown.figures), rest])


def _cell(cell: Cell, subject: Cell) -> Html:
    if not isinstance(cell, Code):
        return text(cell)
    shown = tag("code", cell.text)
    what = subject.text if isinstance(subject, Code) else subject
    return join([shown, " ", copy_button(cell.text, what)]) if cell.copies else shown
