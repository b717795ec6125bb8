"""The report as Markdown for a model page or an issue, and as the same text for a terminal.

Markdown: CommonMark with GitHub's tables. Text from the file cannot end a cell, start an element or make a link:
what has a meaning in Markdown is escaped, and keys and values stand in code spans.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from lib_toolkit.analysis.results import Report
from lib_toolkit.reports.plain import printable
from lib_toolkit.reports.report_sections import Cell, Code, Section, Table, headline, sections

_MEANING = re.compile(r"([\\`*_{}\[\]<>#|~&!@])")
_LINE_START = re.compile(r"^(\d{1,9})([.)])(?=\s|$)|^([-+=])")
_LENGTH = 200
_ROWS = 100


def report_markdown(report: Report) -> str:
    """The report as Markdown, with a heading for each section and ending in a newline."""
    lines = [f"# {_escaped(report.model.name)}", "", *_paragraphs(headline(report), _escaped)]
    for section in sections(report):
        lines += [f"## {section.title}", "", *_paragraphs(section.sentences, _escaped)]
        for table in section.tables:
            lines += _markdown_table(table)
        lines += [f"{'  ' * depth}- {_escaped(line)}" for depth, line in section.bullets]
        lines += [""] if section.bullets else []
    return "\n".join(lines).rstrip() + "\n"


def report_text(report: Report) -> str:
    """The report for a person at a terminal, ending in a newline; no control character of the file gets through."""
    lines = [*_plain(headline(report)), ""]
    for section in sections(report):
        lines += [section.title, *_text_body(section), ""]
    return "\n".join(lines).rstrip() + "\n"


def _paragraphs(sentences: Sequence[str], shown: Callable[[str], str]) -> list[str]:
    return [" ".join(shown(sentence) for sentence in sentences), ""] if sentences else []


def _plain(sentences: Iterable[str]) -> list[str]:
    return [printable(sentence) for sentence in sentences]


def _escaped(text: str) -> str:
    """Text in which nothing has a meaning for Markdown."""
    escaped = _MEANING.sub(r"\\\1", printable(text))
    # A bare address would become a link.
    escaped = re.sub(r"(?i)\b(https?|ftp)://", r"\1\\://", escaped).replace("www.", r"www\.")
    return _LINE_START.sub(lambda match: f"\\{match[0]}" if match[3] else f"{match[1]}\\{match[2]}", escaped)


def _code(text: str) -> str:
    """A code span that ``text`` cannot end, for a cell of a table."""
    shown = printable(text, _LENGTH)
    if not shown.strip():
        return ""
    if "\\|" in shown:  # programs differ in what a backslash before an escaped pipe means in a code span
        return _escaped(shown)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{pad}{shown}{pad}{fence}".replace("|", "\\|")


def _markdown_cell(cell: Cell) -> str:
    return _code(cell.text) if isinstance(cell, Code) else _escaped(cell)


def _markdown_table(table: Table) -> list[str]:
    if not table.rows:
        return []
    rule = ["---:" if column in table.figures else "---" for column in range(len(table.head))]
    lines = [table.head, rule, *(tuple(map(_markdown_cell, row)) for row in table.rows[:_ROWS])]
    return [*(f"| {' | '.join(line)} |" for line in lines), *_rest(table), ""]


def _rest(table: Table) -> list[str]:
    more = len(table.rows) - _ROWS
    return ["", f"… and {more:,} more."] if more > 0 else []


def _text_body(section: Section) -> list[str]:
    lines = [f"  {sentence}" for sentence in _plain(section.sentences)]
    for table in filter(lambda one: one.rows, section.tables):
        lines += [*([""] if lines else []), *_text_table(table)]
    lines += [f"  {'  ' * depth}- {printable(line)}" for depth, line in section.bullets]
    return lines


def _text_table(table: Table) -> list[str]:
    """Aligned columns; the head is left out where the columns speak for themselves."""
    rows = [tuple(_text_cell(cell) for cell in row) for row in table.rows[:_ROWS]]
    shown = [table.head, *rows] if len(table.head) > 2 else rows
    widths = [max(len(row[column]) for row in shown) for column in range(len(table.head))]
    lines = [
        "  "
        + "  ".join(
            cell.rjust(width) if column in table.figures else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
    return lines + [f"  {line}" for line in _rest(table) if line]


def _text_cell(cell: Cell) -> str:
    return printable(cell.text, _LENGTH) if isinstance(cell, Code) else printable(cell, _LENGTH)
