"""Everything that is known of a model: one pass over its file, or its header alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lib_toolkit.analysis import metric as metrics
from lib_toolkit.analysis.collect import collect
from lib_toolkit.analysis.embedded import disagreements, embedded_hashes
from lib_toolkit.analysis.fingerprint import component, fingerprints, parts_by_key
from lib_toolkit.analysis.health import keepable, value_findings
from lib_toolkit.analysis.names import read_names
from lib_toolkit.analysis.results import Finding, Fingerprint, Remedy, Report, Severity
from lib_toolkit.analysis.structure import structure_findings
from lib_toolkit.analysis.values import Request
from lib_toolkit.checksums import ChecksumLane
from lib_toolkit.errors import UsageError
from lib_toolkit.hashing import RunningHashes
from lib_toolkit.identify import Identification, Match
from lib_toolkit.model import Model
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.sweep import EveryByte, Lane

_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
_EXAMPLES = 5


def analyse(
    model: Model,
    found: Identification,
    progress: Progress = SILENT,
    quick: bool = False,
    workers: int | None = None,
    names: Mapping[str, str] | None = None,
) -> Report:
    """The report on a model: metric, fingerprints, hashes and health, each byte of the file read once.

    ``quick`` reads no tensor. ``names`` are those that the user gave to fingerprints; by default they are read from
    the user's settings. Raises FormatError when the file cannot be read, and CancelledError.
    """
    findings = structure_findings(model, found)
    if quick:
        stated = embedded_hashes(model.metadata, None, None)
        return Report(model, found, True, _sorted(findings), embedded=stated)
    known, complaint = _names(names)
    chosen = metrics.components(model, found)
    figures = {key: figure for figure, match in chosen.items() for key in metrics.tensors_of(figure, match)}
    requests = _requests(model, found, figures)
    lanes = _FileLanes(model)
    collected = collect(model, requests, lanes.lanes, progress, "reading", workers)
    metric = metrics.from_histograms(chosen, collected.histograms)
    records = [record for fact in collected.facts.values() for record in fact.records]
    prints, of_file = fingerprints(found, records, known)
    # Facts come in the order in which workers finished; reports name tensors in the order of the file.
    facts = {key: collected.facts[key] for key in model.tensors}
    findings += [*complaint, *lanes.damage(), *value_findings(model, found, facts, metric, prints)]
    hashes, data_sha256 = (lanes.hashes.result(), lanes.hashes.data_sha256) if lanes.lanes else (None, None)
    stated = embedded_hashes(model.metadata, hashes, data_sha256)
    findings += disagreements(stated, data_sha256)
    health = {key: fact.health for key, fact in facts.items() if fact.health is not None}
    return Report(model, found, False, _sorted(findings), metric, prints, of_file, hashes, stated, health)


def fingerprint_of(
    model: Model, found: Identification, match: Match, progress: Progress = SILENT, workers: int | None = None
) -> Fingerprint:
    """The fingerprint of one component of ``found``; reads its tensors alone, each byte once."""
    index = found.components.index(match)
    parts = parts_by_key(model, found)
    own = {key: tuple(part for part in parts[key] if part.owner == index) for key in match.keys.values()}
    requests = {key: Request(parts=some) for key, some in own.items()}
    collected = collect(model, requests, (), progress, "reading", workers)
    return component(match, [record for fact in collected.facts.values() for record in fact.records], {})


def _requests(model: Model, found: Identification, figures: Mapping[str, str]) -> dict[str, Request]:
    """Everything is asked of every tensor; samples only where an EMA copy is to be compared."""
    unets = [match for match in found.components if match.component.kind == "unet"]
    compared = {key for match in unets for key in match.keys.values()} if len(unets) > 1 else set[str]()
    kept = keepable(model, found)
    return {
        key: Request(parts, key in compared, key in kept, figures.get(key))
        for key, parts in parts_by_key(model, found).items()
    }


class _FileLanes:
    """What looks at the file as such: its hashes, and the checksums of its container."""

    def __init__(self, model: Model) -> None:
        self.hashes = RunningHashes(model.origin.format == "safetensors")
        self._checksums = ChecksumLane(model.checksums)
        self.lanes: list[Lane] = []
        if model.origin.file is not None:
            self.lanes = [EveryByte(self.hashes.add_whole), EveryByte(self.hashes.add_data), self._checksums]

    def damage(self) -> list[Finding]:
        """An error where parts of the container are not as they were written."""
        wrong = self._checksums.wrong() if self.lanes else ()
        if not wrong:
            return []
        text = f"The file is damaged: parts whose checksum does not fit: {len(wrong):,}, such as {wrong[0]}."
        remedy = Remedy("Get the file again.", "What is damaged cannot be mended.")
        return [Finding("damaged", Severity.ERROR, text, remedy, wrong[:_EXAMPLES])]


def _names(given: Mapping[str, str] | None) -> tuple[Mapping[str, str], list[Finding]]:
    """The names to use. Names that cannot be read are told of; they are no reason to refuse a report."""
    if given is not None:
        return given, []
    try:
        return read_names(), []
    except UsageError as error:
        return {}, [Finding("names-unreadable", Severity.INFO, str(error))]


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))
