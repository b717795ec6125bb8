"""The report as one HTML page: no network, nothing of the file can act in it, it opens by a double click.

Everything but the tree of tensors is there without a script. The page forbids itself all that it does not need:
only the one script whose digest stands in its head may run, so that not even a fault in escaping would let text of
the file do anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

from lib_toolkit import __version__
from lib_toolkit.analysis.results import Finding, Report
from lib_toolkit.reports.html import EMPTY, Html, bullets, details, join, table, tag, text
from lib_toolkit.reports.merge_tree import Ancestor, merge_tree
from lib_toolkit.reports.numbers import counted, human_bytes, human_count
from lib_toolkit.reports.plain import printable
from lib_toolkit.reports.report_json import packaged_text
from lib_toolkit.reports.report_pruned import pruned, worth_pruning
from lib_toolkit.reports.report_sections import (
    SEVERITIES,
    Cell,
    Code,
    Section,
    Table,
    by_severity,
    has_metric,
    headline,
    names_of,
    nothing_found,
    option,
    sections,
)
from lib_toolkit.reports.report_tensors import embedded, tensor_rows
from lib_toolkit.reports.shares import bar
from lib_toolkit.reports.summary import Facts, facts_of

_SHORT, _LONGEST = 120, 20_000
_LISTED = 200

COMPARE = Html("the Compare panel of the tab says it, and so does <code>model-toolkit compare</code>.")
"""Where a report leads those who want to know more than one file can tell."""


def report_html(report: Report) -> str:
    """The whole page. Raises ToolkitError when the installation lacks the page's own style or script."""
    script, style = packaged_text("page/report.js"), packaged_text("page/report.css")
    shown = _with_tensors(report)
    parts = [_section(report, section) for section in shown]
    navigation = [tag("a", section.title, href=f"#{section.id}") for section in shown]
    body = join(
        [
            _header(report),
            tag("nav", *navigation, aria_label="Sections"),
            tag("main", *parts),
            tag(
                "footer",
                tag("p", "How this model differs from another one, and where: ", COMPARE),
                f"Made by Model Toolkit {__version__}. This page asks nobody for anything: it works offline.",
            ),
            tag("div", id="said", role="status", class_="unseen"),
            _data(report),
            tag("script", Html(script)),
        ]
    )
    return f'<!DOCTYPE html>\n<html lang="en">{_head(report, script, style)}{tag("body", body)}</html>\n'


def _head(report: Report, script: str, style: str) -> Html:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )
    meta = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="color-scheme" content="light dark">'
    )
    return tag("head", Html(meta), tag("title", f"{report.model.name}: model report"), tag("style", Html(style)))


def _header(report: Report) -> Html:
    facts, found = facts_of(report.model), report.found
    first, *others = headline(report)
    state = "intact" if found.intact else "unknown" if found.kind == "unknown" else "broken"
    severe = {severity.value for severity, _ in by_severity(report)}
    mood = "bad" if "error" in severe or state == "broken" else "doubt" if "warning" in severe else "good"
    return tag(
        "header",
        tag("p", "Model report", "" if not report.quick else " (header only)", class_="eyebrow"),
        tag("h1", report.model.name),
        tag("p", first, class_=f"verdict {mood if state != 'unknown' else 'doubt'}"),
        tag("p", " ".join(others)),
        _cards(facts, found.name),
    )


def _cards(facts: Facts, name: str) -> Html:
    """The figures that people look for first."""
    floats = [kind for kind in facts.dtypes if kind.startswith(("F", "BF"))] or list(facts.dtypes)
    shown = {
        "Kind": name,
        "Size": human_bytes(facts.size),
        "Parameters": human_count(facts.parameters),
        "Precision": floats[0] if floats else "none",
        "Tensors": f"{facts.tensors:,}",
    }
    return tag("dl", *(tag("div", tag("dt", term), tag("dd", value)) for term, value in shown.items()), class_="cards")


def _with_tensors(report: Report) -> tuple[Section, ...]:
    """The sections with that of the tensors in its place, before where the file comes from."""
    every = list(sections(report))
    if not report.model.tensors:
        return tuple(every)
    later = {"provenance", "merge", "metadata", "others"}
    place = next((index for index, section in enumerate(every) if section.id in later), len(every))
    return (*every[:place], Section("tensors", "Tensors"), *every[place:])


def _section(report: Report, section: Section) -> Html:
    special = {
        "bytes": _bytes,
        "findings": _findings,
        "figures": _figures,
        "tensors": _tensors,
        "merge": _merge,
        "metadata": _entries,
        "others": _entries,
    }
    body = special.get(section.id, _plain)(report, section)
    return tag("section", tag("h2", section.title), body, id=section.id)


def _plain(report: Report, section: Section) -> Html:
    lines = [line for _, line in section.bullets]
    return join(
        [
            tag("p", " ".join(section.sentences)) if section.sentences else EMPTY,
            *(_table(one) for one in section.tables),
            bullets(lines[:_LISTED]),
        ]
    )


def _table(shown: Table) -> Html:
    """A table, nothing without rows; what is too long for a page is counted."""
    if not shown.rows:
        return EMPTY
    rows = [tuple(_cell(cell, title) for cell, title in zip(row, shown.head, strict=True)) for row in shown.rows]
    more = len(rows) - _LISTED
    rest = tag("p", f"… and {more:,} more.") if more > 0 else EMPTY
    return join([table(shown.head, rows[:_LISTED], shown.figures), rest])


def _cell(cell: Cell, title: str) -> Html:
    if not isinstance(cell, Code):
        return text(cell)
    return join([tag("code", cell.text), " ", copy_button(cell.text, title)]) if cell.copies else tag("code", cell.text)


def copy_button(value: str, what: str) -> Html:
    """A button that copies ``value``; the page's script brings it to life and to sight."""
    return tag("button", "Copy", type="button", class_="copy", data_copy=value, aria_label=f"Copy: {what}")


def _bytes(report: Report, section: Section) -> Html:
    preview = pruned(report)
    assert preview is not None  # the section is empty without one
    worth = worth_pruning(preview)
    # Where a prune changes nothing, a second bar of the same parts would only raise questions.
    shares = preview.shares if worth else tuple(replace(share, after=share.before) for share in preview.shares)
    return join(
        [
            tag("div", bar(shares), class_="bars" if worth else "bars single"),
            tag("p", " ".join(section.sentences)),
            details("Exact figures", *(_table(one) for one in section.tables)),
        ]
    )


def _findings(report: Report, section: Section) -> Html:
    if not report.findings:
        return tag("p", nothing_found(report), class_="card good")
    return join(
        _finding(finding, severity.value, SEVERITIES[severity])
        for severity, findings in by_severity(report)
        for finding in findings
    )


def _finding(finding: Finding, level: str, words: str) -> Html:
    remedy = finding.remedy
    command = option(finding)
    helps = EMPTY
    if remedy:
        verb = join([" ", tag("code", f"model-toolkit {command}")]) if command else EMPTY
        helps = tag("p", tag("b", "What helps: "), remedy.sentence, " ", remedy.effect, verb, class_="remedy")
    keys = bullets([tag("code", key) for key in finding.keys[:_LISTED]], "keys")
    one, several = names_of(finding)
    title = f"{len(finding.keys)} {one if len(finding.keys) == 1 else several} as examples"
    shown = details(title, keys) if finding.keys else EMPTY
    label = tag("span", words, class_="level")
    return tag("article", tag("p", label, " ", finding.sentence), helps, shown, class_=f"card {level}", id=None)


def _figures(report: Report, section: Section) -> Html:
    metric = EMPTY
    if has_metric(report):
        assert report.metric is not None
        button = copy_button(report.metric.text, "metric")
        figure = tag("p", tag("span", report.metric.text, class_="figure", id="metric"), " ", button)
        words = tag("p", "Metric (UNET/VAE/CLIP)", class_="caption")
        metric = tag("div", words, figure, bullets(report.metric.known), class_="metric")
    first, *others = section.tables
    first = replace(first, rows=first.rows[1:] if metric else first.rows)
    return join([metric, *(_table(one) for one in (first, *others))])


def _merge(report: Report, section: Section) -> Html:
    tree = merge_tree(report.model.metadata, report.model.name)
    return tag("ul", _ancestor(tree), class_="merge") if tree else EMPTY


def _ancestor(ancestor: Ancestor) -> Html:
    role = tag("span", ancestor.role, class_="role") if ancestor.role else EMPTY
    digest = tag("code", ancestor.hash[:10], title=ancestor.hash) if ancestor.hash else EMPTY
    facts = [(tag("code", key), value) for key, value in ancestor.recipe.items()]
    told = [
        tag("div", role, " ", tag("b", ancestor.title), " ", digest),
        tag("div", ancestor.method, class_="method") if ancestor.method else EMPTY,
        tag("div", ancestor.remark, class_="remark") if ancestor.remark else EMPTY,
        details("The recipe", table(("Field", "Value"), facts)) if facts else EMPTY,
    ]
    below = tag("ul", *(_ancestor(parent) for parent in ancestor.parents)) if ancestor.parents else EMPTY
    return tag("li", tag("div", *told, class_="ancestor"), below)


def _entries(report: Report, section: Section) -> Html:
    """Entries with their values; long ones are folded, and cut where no person would read on."""
    rows = [(_text(key), _text(value)) for key, value in section.tables[0].rows]
    shown = [tag("div", tag("dt", tag("code", key)), tag("dd", _entry(value))) for key, value in rows[:_LISTED]]
    more = tag("p", f"… and {len(rows) - _LISTED:,} more.") if len(rows) > _LISTED else EMPTY
    return join([tag("dl", *shown, class_="entries"), more])


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Code) else cell


def _entry(value: str) -> Html:
    if len(value) <= _SHORT and "\n" not in value:
        return text(value)
    pretty = _indented(value)
    lines = Html("\n".join(text(line, _LONGEST) for line in pretty[:_LONGEST].splitlines()))
    cut = f"Cut here: the value has {len(value):,} characters; the JSON report holds it whole."
    rest = tag("p", cut) if len(pretty) > _LONGEST else EMPTY
    return details(f"{printable(value[:60], 60)}… ({len(value):,} characters)", tag("pre", lines), rest)


def _indented(value: str) -> str:
    """JSON spread over lines, everything else as it is."""
    if value[:1] not in ("{", "[") or len(value) > 50 * _LONGEST:
        return value
    try:
        return json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return value


def _tensors(report: Report, section: Section) -> Html:
    total = counted(len(report.model.tensors), "tensor")
    return join(
        [
            tag(
                "div",
                Html(
                    '<input id="search" type="search" placeholder="Search: name, type, shape or part" '
                    'aria-label="Search the tensors" autocomplete="off" spellcheck="false">'
                ),
                tag("button", "Unfold one level", type="button", id="unfold"),
                tag("button", "Fold all", type="button", id="fold"),
                class_="tools",
            ),
            tag("p", f"{total}.", id="count", role="status"),
            tag("ul", id="tree", role="tree", aria_label="Tensors by name"),
            tag("noscript", tag("p", "The list of tensors needs JavaScript; everything else does not.")),
        ]
    )


def _data(report: Report) -> Html:
    rows: Mapping[str, object] = tensor_rows(report)
    return tag("script", embedded(rows), type="application/json", id="tensor-data")
