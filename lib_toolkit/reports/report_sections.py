"""The report as sections of sentences and tables, before it becomes Markdown, terminal text or a page.

Pure functions of the result object. Text from the file stands in it as it is; whoever renders it escapes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lib_toolkit.analysis.results import Finding, Report, Severity
from lib_toolkit.identify import Leftover, Match
from lib_toolkit.reports.merge_tree import Ancestor, merge_tree
from lib_toolkit.reports.numbers import counted, human_bytes, human_count
from lib_toolkit.reports.provenance import history
from lib_toolkit.reports.report_pruned import pruned, pruning_sentences, worth_pruning
from lib_toolkit.reports.summary import facts_of, verdict
from lib_toolkit.tensors import Tensor, nbytes

SEVERITIES: Mapping[Severity, str] = {
    Severity.ERROR: "It will not work",
    Severity.WARNING: "Worth a look",
    Severity.INFO: "Good to know",
}
"""Severities in words, the most serious first."""

_OPTIONS: Mapping[str, str] = {
    "precision": "prune",
    "keep_ema": "prune --keep-ema",
    "fix_clip": "prune --fix-clip",
    "drop_unknown": "prune --drop-unknown",
    "prune": "prune",
    "replace_vae": "import",
}
_NAMED: Mapping[str, tuple[str, str]] = {"hash-disagrees": ("entry", "entries"), "damaged": ("part", "parts")}
"""What the keys of a finding are, by its id, where they are no tensors; in the singular and the plural."""

_EXAMPLES = 5


@dataclass(frozen=True)
class Code:
    """Text to be shown letter by letter: keys, hashes. ``copies``: worth copying as a whole."""

    text: str
    copies: bool = False


Cell: TypeAlias = "str | Code"


@dataclass(frozen=True)
class Table:
    """Rows under a head; the columns in ``figures`` are numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    figures: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Section:
    """A part of the report. ``id`` is stable; ``bullets`` are (depth, text) of a list."""

    id: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    bullets: tuple[tuple[int, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sentences or self.bullets or any(table.rows for table in self.tables))


def sections(report: Report) -> tuple[Section, ...]:
    """All sections with something in them, in the order of reading."""
    every = (
        _bytes(report),
        _findings(report),
        _figures(report),
        _components(report),
        _architectures(report),
        _leftovers(report),
        _values(report),
        _provenance(report),
        _merge(report),
        _metadata(report),
        _others(report),
    )
    return tuple(section for section in every if section)


def headline(report: Report) -> tuple[str, ...]:
    """What the model is, in sentences; the first one is the answer."""
    quick = ("Only the header was read: values were not looked at.",) if report.quick else ()
    return (*verdict(facts_of(report.model), report.found), *quick)


def _bytes(report: Report) -> Section:
    preview = pruned(report)
    if preview is None:
        return Section("bytes", "What the bytes are")
    total = sum(share.before for share in preview.shares) or 1
    rows = tuple(
        (
            share.title,
            f"{share.tensors:,}",
            f"{share.before:,}",
            f"{100 * share.before / total:.1f} %",
            f"{share.after:,}",
        )
        for share in preview.shares
    )
    head = ("Part", "Tensors", "Bytes", "Share", "Bytes after a prune")
    width = len(head) if worth_pruning(preview) else len(head) - 1
    table = Table(head[:width], tuple(row[:width] for row in rows), frozenset({1, 2, 3, 4}))
    types = ((name, human_bytes(size)) for name, size in facts_of(report.model).dtypes.items())
    tables = (table, Table(("Type", "Size"), tuple(types), frozenset({1})))
    return Section("bytes", "What the bytes are", pruning_sentences(report, preview), tables)


def by_severity(report: Report) -> tuple[tuple[Severity, tuple[Finding, ...]], ...]:
    """The findings, the most serious first; severities without any are left out."""
    groups = ((severity, tuple(f for f in report.findings if f.severity is severity)) for severity in SEVERITIES)
    return tuple((severity, found) for severity, found in groups if found)


def option(finding: Finding) -> str | None:
    """The verb and option of the command line that carry out a finding's remedy."""
    return _OPTIONS.get(finding.remedy.wish) if finding.remedy and finding.remedy.wish else None


def names_of(finding: Finding) -> tuple[str, str]:
    """What a finding's keys are, in the singular and the plural."""
    return _NAMED.get(finding.id, ("tensor", "tensors"))


def nothing_found(report: Report) -> str:
    """The sentence of a report without findings."""
    looked = "the header, all that was read" if report.quick else "its header and its values"
    return f"Nothing is wrong with {looked}, as far as it was checked."


def _findings(report: Report) -> Section:
    bullets: list[tuple[int, str]] = []
    for severity, findings in by_severity(report):
        for finding in findings:
            bullets.append((0, f"{SEVERITIES[severity]}: {finding.sentence}"))
            if finding.remedy:
                command = f" ({option(finding)})" if option(finding) else ""
                bullets.append((1, f"{finding.remedy.sentence} {finding.remedy.effect}{command}"))
            if finding.keys:
                bullets.append((1, f"{names_of(finding)[1].capitalize()}: {_examples(finding.keys, 2)}"))
    return Section("findings", "Findings", () if bullets else (nothing_found(report),), bullets=tuple(bullets))


def has_metric(report: Report) -> bool:
    """Whether there is a figure for any component of the file."""
    metric = report.metric
    return metric is not None and any(figure is not None for figure in (metric.unet, metric.vae, metric.clip))


def _figures(report: Report) -> Section:
    """What identifies the file for others: metric, fingerprints, hashes."""
    rows: list[tuple[Cell, ...]] = []
    if has_metric(report):
        assert report.metric is not None
        rows.append(("Metric (UNET/VAE/CLIP)", Code(report.metric.text, copies=True)))
    if report.file_fingerprint:
        rows.append(("Fingerprint of the file", Code(report.file_fingerprint, copies=True)))
    if report.hashes:
        titles = {"sha256": "SHA-256", "autov2": "AutoV2", "autov3": "AutoV3", "legacy": "Legacy"}
        rows += [(titles[name], Code(text, copies=True)) for name, text in report.hashes.as_dict().items() if text]
    tables = [Table(("Figure", "Value"), tuple(rows))]
    if report.fingerprints:
        head = ("Component", "Prefix", "Fingerprint", "Buffers and the rest", "Known as")
        tables.append(_filled(Table(head, tuple(_fingerprint_rows(report)))))
    if report.embedded:
        entries = tuple(
            (Code(entry), Code(value), _agreement(agrees)) for entry, (value, agrees) in report.embedded.items()
        )
        tables.append(Table(("Hash that the file states", "Value", "Agrees"), entries))
    known = report.metric.known if report.metric else ()
    return Section("figures", "Figures to compare", known, tuple(tables))


def _fingerprint_rows(report: Report) -> Iterable[tuple[Cell, ...]]:
    for one in report.fingerprints:
        rest: Cell = Code(one.rest, copies=True) if one.rest else ""
        names = ", ".join(one.names)
        yield one.component, Code(one.prefix) if one.prefix else "", Code(one.value, copies=True), rest, names


def _filled(table: Table) -> Table:
    """The table without the columns after the third that are empty in every row."""
    columns = [column for column in range(len(table.head)) if column < 3 or any(row[column] for row in table.rows)]
    return Table(
        tuple(table.head[column] for column in columns), tuple(tuple(row[c] for c in columns) for row in table.rows)
    )


def _agreement(agrees: bool | None) -> str:
    return "cannot be checked" if agrees is None else "yes" if agrees else "no: this file has another"


def _components(report: Report) -> Section:
    found = report.found
    rows = tuple(
        (
            match.component.name,
            match.component.cls,
            Code(match.prefix) if match.prefix else "(none)",
            match.layout,
            _state(match),
            f"{match.tensors:,}",
            f"{match.parameters:,}",
            human_bytes(match.bytes),
        )
        for match in found.components
    )
    head = ("Component", "Class", "Prefix", "Layout", "State", "Tensors", "Parameters", "Size")
    sentences = () if rows else ("No component of a known model was found.",)
    faults = tuple((0, sentence) for match in found.components for sentence in _faults(match))
    return Section("components", "Components", sentences, (Table(head, rows, frozenset({5, 6, 7})),), faults)


def _state(match: Match) -> str:
    if match.complete:
        return "complete"
    return f"{len(match.missing):,} missing, {len(match.wrong_shape):,} of another shape"


def _faults(match: Match) -> Iterable[str]:
    name = match.component.name
    if match.missing:
        missing = counted(len(match.missing), "tensor")
        yield f"{name} lacks {missing} of {match.required:,}: {_examples(match.missing)}"
    for wrong in match.wrong_shape[:_EXAMPLES]:
        yield f"{name}: {wrong.key} is {list(wrong.found)}, should be {list(wrong.expected)}"


def _architectures(report: Report) -> Section:
    found = report.found
    matched = f"{found.name}{f' (id {found.id})' if found.id else ''}"
    if found.kind == "unknown":
        sentence = "No architecture that is known here fits."
    elif found.intact:
        several = found.architecture is not None and len(found.architecture.classes) > 1
        sentence = f"Matched: {matched}." + (" Every class that it asks for is complete." if several else "")
    elif found.missing_classes:
        sentence = f"Nearest: {matched}. Missing or incomplete: {', '.join(found.missing_classes)}."
    else:
        sentence = f"Nearest: {matched}; it is not complete."
    rejected = tuple(
        (entry.name, entry.reason, Code(_examples(entry.examples)) if entry.examples else "")
        for entry in found.rejected
    )
    # The findings tell of everything that is missing or wrong.
    told = {finding.sentence for finding in report.findings}
    facts = [note for note in found.notes if note not in told]
    table = Table(("Rejected", "Why", "Some of the keys"), rejected)
    return Section("architectures", "Architecture", (sentence,), (table,), tuple((0, fact) for fact in facts))


def _leftovers(report: Report) -> Section:
    left = report.found.leftovers
    outside = [
        Leftover(path, nbytes(tensor), "outside the state dict") for path, tensor in report.model.outside.items()
    ]
    groups = (
        ("Protected", left.protected),
        ("Removable", (*left.removable, *outside)),
        ("Unknown", left.unknown),
    )
    rows = tuple((title, *row) for title, entries in groups for row in _by_reason(entries))
    head = ("Class", "Why", "Tensors", "Size", "Examples")
    return Section("leftovers", "Tensors outside the components", (), (Table(head, rows, frozenset({2, 3})),))


def _by_reason(entries: Sequence[Leftover]) -> Iterable[tuple[Cell, ...]]:
    sizes: Counter[str] = Counter()
    keys: dict[str, list[str]] = {}
    for entry in entries:
        sizes[entry.reason] += entry.bytes
        keys.setdefault(entry.reason, []).append(entry.key)
    for reason, names in keys.items():
        yield reason, f"{len(names):,}", human_bytes(sizes[reason]), Code(_examples(names))


def _values(report: Report) -> Section:
    """What the floating-point values are like; nothing in a quick report."""
    tensors = report.model.tensors
    health = {key: one for key, one in report.health.items() if key in tensors and _is_float(tensors[key])}
    if not health:
        return Section("values", "Values")
    elements, nan = sum(one.count for one in health.values()), sum(one.nan for one in health.values())
    infinite = sum(one.infinite for one in health.values())
    beyond = sum(one.beyond_fp16 for one in health.values())
    zeros = sum(one.count > 0 and one.zero == one.count for one in health.values())
    were = "tensor was" if len(health) == 1 else "tensors were"
    sentences = [
        f"{len(health):,} floating-point {were} checked, {elements:,} values ({human_count(elements)}): "
        f"{nan or 'none'} NaN, {infinite or 'none'} infinite, {beyond or 'none'} beyond FP16."
    ]
    weights = (set(report.found.component_of()) & health.keys() or health.keys()) - set(report.found.position_ids)
    if weights:
        key = max((key for key in tensors if key in weights), key=lambda one: health[one].largest)
        sentences.append(f"The largest magnitude of a weight is {health[key].largest:.3g}, in {key}.")
    if zeros:
        sentences.append(f"{counted(zeros, 'tensor')} {'holds' if zeros == 1 else 'hold'} zeros alone.")
    return Section("values", "Values", tuple(sentences))


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype.kind.startswith(("float", "bfloat", "fp"))


def _provenance(report: Report) -> Section:
    steps = tuple((0, step.sentence()) for step in history(report.model.metadata))
    return Section("provenance", "Where it comes from", bullets=steps)


def _merge(report: Report) -> Section:
    tree = merge_tree(report.model.metadata, report.model.name)
    if tree is None:
        return Section("merge", "What it was merged from")
    lines = tuple((depth, ancestor_line(ancestor)) for depth, ancestor in tree.walk())
    return Section("merge", "What it was merged from", bullets=lines)


def ancestor_line(ancestor: Ancestor) -> str:
    """A model of the merge in one line."""
    role = f"{ancestor.role}: " if ancestor.role else ""
    digest = f" [{ancestor.hash[:10]}]" if ancestor.hash and ancestor.name else ""
    remarks = "; ".join(filter(None, (ancestor.method, ancestor.remark)))
    return f"{role}{ancestor.title}{digest}{f' ({remarks})' if remarks else ''}"


def _metadata(report: Report) -> Section:
    rows = tuple((Code(key), Code(value)) for key, value in report.model.metadata.items())
    return Section("metadata", "Metadata", (), (Table(("Entry", "Value"), rows),))


def _others(report: Report) -> Section:
    values = ((path, v if isinstance(v, str) else repr(v)) for path, v in report.model.values.items())
    rows = tuple((Code(path), Code(value)) for path, value in values)
    return Section("others", "Other values in the file", (), (Table(("Entry", "Value"), rows),))


def _examples(keys: Sequence[str], most: int = _EXAMPLES) -> str:
    shown = ", ".join(keys[:most])
    return f"{shown} and {len(keys) - most:,} more" if len(keys) > most else shown
