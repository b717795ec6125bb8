"""A comparison as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lib_toolkit.analysis.compare.results import Comparison, Group
from lib_toolkit.analysis.compare.verdicts import percent
from lib_toolkit.reports.compare_third import EXPLAINED, HEAD, third_rows
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.reports.plain import printable


def compare_text(comparison: Comparison, metrics: Sequence[str]) -> str:
    """Both files, the verdicts, and the figures of each component and of all together."""
    lines = [
        f"{side}: {printable(model.name)} ({found.name}, {human_bytes(model.origin.size)})"
        for side, model, found in zip("AB", comparison.models, comparison.found, strict=True)
    ]
    if comparison.third is not None:
        model = comparison.third.model
        lines.append(f"M: {printable(model.name)} ({comparison.third.found.name}, {human_bytes(model.origin.size)})")
    lines += ["", *(f"- {printable(sentence)}" for sentence in comparison.verdicts)]
    groups = comparison.by_component()
    if groups:
        lines += ["", *_table([*groups, comparison.total()], metrics)]
    if comparison.third is not None and comparison.third.components:
        lines += ["", "M between A and B:"]
        lines += [*_aligned([HEAD, *third_rows(comparison.third.components)]), EXPLAINED]
    missing = (len(comparison.only_a), len(comparison.only_b), len(comparison.not_compared))
    if any(missing):
        lines += [
            "",
            f"Only in A: {counted(missing[0], 'tensor')}; only in B: {counted(missing[1], 'tensor')}; "
            f"not comparable: {counted(missing[2], 'tensor')} (--json names them).",
        ]
    return "\n".join(lines) + "\n"


def _table(groups: Sequence[Group], metrics: Sequence[str]) -> list[str]:
    head = ("part", "tensors", "changed", "mean |A-B|", "max |A-B|", "|A-B|/|A|", *metrics)
    return _aligned([head, *(_row(group, metrics) for group in groups)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(group: Group, metrics: Sequence[str]) -> tuple[str, ...]:
    measures = group.measures
    return (
        group.name,
        f"{len(group.members):,}",
        f"{group.changed_tensors:,}",
        _number(measures.mean),
        _number(measures.largest),
        "-" if measures.relative is None else percent(measures.relative),
        *(_number(group.figure(metric)) for metric in metrics),
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.6g}"
