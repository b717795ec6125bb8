"""A comparison as JSON-able data, in the schema that ``compare.schema.json`` documents.

Numbers are as exact as they were computed; what is not defined (the cosine of a zero vector) is None. Names from the
files are given as they are: whoever shows them escapes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from lib_toolkit import __version__
from lib_toolkit.analysis.compare.alignment import Cell, Row
from lib_toolkit.analysis.compare.measures import METRICS, Measures
from lib_toolkit.analysis.compare.results import A, B, Compared, Comparison, Group, NotCompared, file_keys
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.reports.compare_third import third_json
from lib_toolkit.reports.report_json import packaged_text

SCHEMA = 1
"""Version of the JSON; grows when a field changes its meaning or goes. New fields may come at any time."""


def compare_schema() -> dict[str, object]:
    """The JSON schema (draft 2020-12). Raises ToolkitError when the installation lacks the file."""
    schema: dict[str, object] = json.loads(packaged_text("compare.schema.json"))
    return schema


def compare_json(comparison: Comparison, metrics: Sequence[str] = METRICS) -> dict[str, object]:
    """The comparison as plain dicts, lists, strings, numbers and None; ``metrics`` says which figures it holds."""
    (a, b), (a_found, b_found) = comparison.models, comparison.found
    third = comparison.third
    return {
        "schema": SCHEMA,
        "tool": {"name": "model-toolkit", "version": __version__},
        "a": _side(a, a_found),
        "b": _side(b, b_found),
        "at_lower_precision": comparison.at_lower,
        "metrics": list(metrics),
        "verdicts": list(comparison.verdicts),
        "total": _group(comparison.total(), metrics),
        "components": [_group(group, metrics) for group in comparison.by_component()],
        "blocks": [_group(group, metrics) for group in comparison.by_block()],
        "layers": [_group(group, metrics) for group in comparison.by_layer()],
        "merge_blocks": [_group(group, metrics) for group in comparison.by_merge_block()],
        "only_a": file_keys(comparison.only_a, A),
        "only_b": file_keys(comparison.only_b, B),
        "third": None if third is None else {**_side(third.model, third.found), **third_json(third)},
        "not_compared": [_failed(one) for one in comparison.not_compared],
        "tensors": [_tensor(one, metrics) for one in comparison.compared],
    }


def _side(model: Model, found: Identification) -> dict[str, object]:
    origin = model.origin
    return {
        "name": model.name,
        "path": str(origin.path),
        "size": origin.size,
        "format": origin.format,
        "architecture": found.name,
        "id": found.id,
        "intact": found.intact,
        "tensors": len(model.tensors),
    }


def _group(group: Group, metrics: Sequence[str]) -> dict[str, object]:
    return {
        "kind": group.kind,
        "component": group.component or None,
        "name": group.name,
        "tensors": len(group.members),
        "changed_tensors": group.changed_tensors,
        "figures": {metric: _finite(group.figure(metric)) for metric in metrics},
        **_measures(group.measures),
    }


def _measures(found: Measures) -> dict[str, object]:
    counts = {key: value for key, value in asdict(found).items() if isinstance(value, int) and key != "changed_single"}
    return {
        **counts,
        "same_when_lowered": found.same_when_lowered,
        "changed_share": found.changed_share,
        "mean": _finite(found.mean),
        "rms": _finite(found.rms),
        "max": _finite(found.largest),
        "norm_a": _finite(math.sqrt(found.a_squared)),
        "norm_b": _finite(math.sqrt(found.b_squared)),
        "norm_difference": _finite(found.l2),
        "relative": _finite(found.relative),
        "cosine": _finite(found.cosine),
    }


def _tensor(one: Compared, metrics: Sequence[str]) -> dict[str, object]:
    return {
        **_row(one.row),
        "figures": {metric: _finite(one.measures.figure(metric)) for metric in metrics},
        **_measures(one.measures),
    }


def _failed(one: NotCompared) -> dict[str, object]:
    return {**_row(one.row), "reason": one.reason}


def _row(row: Row) -> dict[str, object]:
    a, b = row.cells
    return {
        "component": row.component,
        "key": row.key,
        "kind": row.kind,
        "block": row.block,
        "layer": row.layer,
        "merge_block": row.merge_block,
        "a": _cell(a),
        "b": _cell(b),
    }


def _cell(cell: Cell | None) -> dict[str, object] | None:
    if cell is None:
        return None
    return {"key": cell.key, "shape": list(cell.tensor.shape), "dtype": cell.tensor.dtype.name}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
