"""The report of a model as JSON-able data, in the schema that ``report.schema.json`` documents.

The fields of ``inspect --json --keys`` stand at the top level with the same meaning; what only a report knows
stands beside them. Text from the file is given as it is: whoever shows it escapes it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

from lib_toolkit import __version__
from lib_toolkit.analysis.results import Finding, Metric, Report, TensorHealth
from lib_toolkit.errors import ToolkitError
from lib_toolkit.reports.identification import identification_json
from lib_toolkit.reports.merge_tree import Ancestor, merge_tree
from lib_toolkit.reports.provenance import history, step_json
from lib_toolkit.reports.report_pruned import pruned
from lib_toolkit.reports.summary import facts_of, verdict

SCHEMA = 1
"""Version of the JSON; grows when a field changes its meaning or goes. New fields may come at any time."""


def report_schema() -> dict[str, object]:
    """The JSON schema of the report (draft 2020-12). Raises ToolkitError when the installation lacks the file."""
    schema: dict[str, object] = json.loads(packaged_text("report.schema.json"))
    return schema


def packaged_text(name: str) -> str:
    """A text file that stands beside this module. Raises ToolkitError when the installation lacks it."""
    try:
        return Path(__file__).parent.joinpath(name).read_text(encoding="utf-8")
    except OSError:
        raise ToolkitError(f"The file {name} is missing from this installation; install the toolkit again.") from None


def report_json(report: Report) -> dict[str, object]:
    """The report as plain dicts, lists, strings, numbers and None. What a quick report cannot know is None or empty."""
    model, found = report.model, report.found
    merge = merge_tree(model.metadata, model.name)
    return {
        **identification_json(model, found),
        "schema": SCHEMA,
        "tool": {"name": "model-toolkit", "version": __version__},
        "quick": report.quick,
        "verdict": list(verdict(facts_of(model), found)),
        "findings": [_finding(finding) for finding in report.findings],
        "metric": _metric(report.metric),
        "fingerprints": [{**asdict(print_), "names": list(print_.names)} for print_ in report.fingerprints],
        "file_fingerprint": report.file_fingerprint,
        "hashes": dict(report.hashes.as_dict()) if report.hashes else None,
        "embedded_hashes": [
            {"entry": entry, "value": value, "agrees": agrees} for entry, (value, agrees) in report.embedded.items()
        ],
        "pruned": _pruned(report),
        "provenance": [step_json(step) for step in history(model.metadata)],
        "merge": _ancestor(merge) if merge else None,
        "keys": _keys(report),
    }


def _keys(report: Report) -> list[dict[str, object]]:
    keys = identification_json(report.model, report.found, keys=True)["keys"]
    assert isinstance(keys, list)
    return [{**entry, "health": _health(report.health.get(entry["key"]))} for entry in keys]


def _health(health: TensorHealth | None) -> dict[str, object] | None:
    if health is None:
        return None
    # JSON has no infinity and no NaN.
    return {**asdict(health), "largest": health.largest if math.isfinite(health.largest) else None}


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "id": finding.id,
        "severity": finding.severity.value,
        "sentence": finding.sentence,
        "remedy": asdict(finding.remedy) if finding.remedy else None,
        "keys": list(finding.keys),
    }


def _metric(metric: Metric | None) -> dict[str, object] | None:
    if metric is None:
        return None
    return {
        "text": metric.text,
        "unet": metric.unet,
        "vae": metric.vae,
        "clip": metric.clip,
        "known": list(metric.known),
    }


def _pruned(report: Report) -> dict[str, object] | None:
    """What ``prune`` would make of the file, as far as its header tells."""
    preview = pruned(report)
    if preview is None:
        return None
    return {
        "bytes": preview.size,
        "dropped": [{"reason": group.what, "count": group.count, "bytes": group.bytes} for group in preview.dropped],
        "changed": [{"what": group.what, "count": group.count} for group in preview.changed],
        "shares": [
            {"role": share.role, "tensors": share.tensors, "bytes": share.before, "bytes_pruned": share.after}
            for share in preview.shares
        ],
        "warnings": list(preview.warnings),
    }


def _ancestor(ancestor: Ancestor) -> dict[str, object]:
    return {
        "role": ancestor.role or None,
        "name": ancestor.name,
        "hash": ancestor.hash,
        "legacy_hash": ancestor.legacy_hash,
        "state": ancestor.state,
        "recipe": dict(ancestor.recipe),
        "parents": [_ancestor(parent) for parent in ancestor.parents],
    }
