"""A measured set as JSON-able data, in the schema that ``matrix.schema.json`` documents.

A figure is a number, 0 for models that are equal and no others, and None where there is none; the reason then stands
in ``absent`` or ``not_comparable``. Names from the files are given as they are: whoever shows them escapes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit import __version__
from lib_toolkit.analysis.matrix.graphs import Edge, dendrogram, families, filled, leaves, spanning_tree
from lib_toolkit.analysis.matrix.merges import Merge, Share, rounded_copies
from lib_toolkit.analysis.matrix.results import METRICS, GroupResult, Member, SetResult
from lib_toolkit.analysis.matrix.scaling import scaled
from lib_toolkit.reports.matrix_sentences import merge_sentence, merge_sentences, summary
from lib_toolkit.reports.report_json import packaged_text

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.results import Flags
    from lib_toolkit.analysis.matrix.sums import Floats

SCHEMA = 1
"""Version of the JSON; grows when a field changes its meaning or goes. New fields may come at any time."""

_COUNTS = frozenset({"l0"})


def matrix_schema() -> dict[str, object]:
    """The JSON schema (draft 2020-12). Raises ToolkitError when the installation lacks the file."""
    schema: dict[str, object] = json.loads(packaged_text("matrix.schema.json"))
    return schema


def matrix_json(result: SetResult, metrics: Sequence[str] = METRICS) -> dict[str, object]:
    """The set as plain dicts, lists, strings, numbers and None; ``metrics`` says which matrices it holds."""
    names = [member.name for member in result.members]
    return {
        "schema": SCHEMA,
        "tool": {"name": "model-toolkit", "version": __version__},
        "metrics": list(metrics),
        "models": [_member(result, place) for place in range(len(names))],
        "failed": [{"name": one.name, "path": str(one.path), "reason": one.reason} for one in result.failures],
        "sentences": [*summary(result), *merge_sentences(result)],
        "identical": [
            {"component": component.group.id, "models": [names[place] for place in group]}
            for component in result.components
            for group in component.identical
        ],
        "components": {one.group.id: _component(one, names, metrics) for one in result.components},
        "blocks": {one.group.id: _matrices(one, metrics) for one in result.blocks},
        "total": _component(result.total, names, metrics),
        "merges": [_merge(result, merge) for merge in result.merges if len(merge.parents) == 2],
        "recipes": [_recipe(result, merge) for merge in result.merges if len(merge.parents) > 2],
    }


def matrix_text(result: SetResult, metrics: Sequence[str] = METRICS) -> str:
    """The same as text; a row of a matrix is a line, so that large sets stay small."""
    return _pretty(matrix_json(result, metrics)) + "\n"


def _pretty(value: object, depth: int = 0) -> str:
    """JSON indented down to lists of plain values, which stand on one line."""
    pad, inner = " " * depth, " " * (depth + 1)
    if isinstance(value, dict) and value:
        items = [f"{inner}{json.dumps(str(key))}: {_pretty(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{pad}}}"
    if isinstance(value, list) and any(isinstance(item, (list, dict)) for item in value):
        return "[\n" + ",\n".join(inner + _pretty(item, depth + 1) for item in value) + f"\n{pad}]"
    return json.dumps(value, allow_nan=False)


def _member(result: SetResult, place: int) -> dict[str, object]:
    member: Member = result.members[place]
    return {
        "name": member.name,
        "path": str(member.path),
        "size": member.size,
        "format": member.format,
        "architecture": member.architecture,
        "id": member.id,
        "nan": member.nan,
        "infinite": member.infinite,
        "mean_to_set": number(result.total.to_set[place]),
        "mean_to_average": number(result.total.to_average[place]),
    }


def _matrices(group: GroupResult, metrics: Sequence[str]) -> dict[str, object]:
    made: dict[str, object] = {
        metric: _square(group.figures(metric), whole=metric in _COUNTS) for metric in METRICS if metric in metrics
    }
    if "l0" in metrics:
        made["changed_elements"] = _square(group.changed, whole=True)
    return made


def _component(group: GroupResult, names: Sequence[str], metrics: Sequence[str]) -> dict[str, object]:
    return {
        "title": group.group.title,
        **_matrices(group, metrics),
        "mean": _square(group.told(group.mean)),
        "mean_to_set": [number(value) for value in group.to_set],
        "mean_to_average": [number(value) for value in group.to_average],
        "norm": [number(value) for value in group.norm],
        "tensors": [int(count) for count in group.own],
        "absent": [name for place, name in enumerate(names) if not group.own[place]],
        "not_comparable": [{"reason": why, "pairs": [list(pair) for pair in pairs]} for why, pairs in group.reasons],
        "partial": _partial(group),
        "left_out": _left_out(group),
        "left_out_of_merges": [int(count) for count in group.joint_left_out],
        "models_left_out_of_merges": [names[place] for place in group.holed],
        "identical": [[names[place] for place in same] for same in group.identical],
        "rounded_copies": [[names[place] for place in copies] for copies in rounded_copies(group)],
        "nearest": [
            {"model": names[place], "nearest": names[near], "distance": number(apart)}
            for place, near, apart in group.nearest()
        ],
        "families": [_family(group, family, names) for family in families(group.l2)],
    }


def _partial(group: GroupResult) -> list[dict[str, object]]:
    """Pairs with a figure that is not about all tensors of both."""
    count = len(group.own)
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    return [
        {"pair": [a, b], "compared": int(group.compared[a, b]), "of": [int(group.own[a]), int(group.own[b])]}
        for a, b in pairs
        if not group.complete[a, b] and not math.isnan(group.l2[a, b])
    ]


def _left_out(group: GroupResult) -> list[dict[str, object]]:
    """Pairs that differ, and whose figures are without values that are no numbers in one of the two."""
    pairs = np.argwhere(np.triu(~np.isnan(group.l2) & (group.changed > 0) & (group.left_out > 0), 1))
    return [{"pair": [int(a), int(b)], "elements": int(group.left_out[a, b])} for a, b in pairs]


def _length(edge: Edge, silent: Flags) -> float:
    return math.nan if silent[edge.a, edge.b] else edge.length


def _family(group: GroupResult, family: Sequence[int], names: Sequence[str]) -> dict[str, object]:
    """Models that can be compared, in the order of the dendrogram, with their tree and their map."""
    apart = filled(group.l2, family)
    joins = dendrogram(apart)
    placed = scaled(apart)
    silent = group.silent[np.ix_(family, family)]
    return {
        "models": [names[place] for place in family],
        "order": [names[family[place]] for place in leaves(joins, len(family))],
        "joins": [[join.left, join.right, number(join.height)] for join in joins],
        "spanning_tree": [
            {"of": [names[family[edge.a]], names[family[edge.b]]], "distance": number(_length(edge, silent))}
            for edge in spanning_tree(apart)
        ],
        "map": [[number(x), number(y)] for x, y in placed.points],
        "stress": number(placed.stress),
    }


def _merge(result: SetResult, merge: Merge) -> dict[str, object]:
    return {
        "model": result.members[merge.model].name,
        "of": [result.members[place].name for place in merge.parents],
        "ratio": number(merge.weights[1]),
        **_evidence(result, merge),
        "by_block": merge.by_block,
        "blocks": [{"block": one.block, "ratio": _second(one), **_left(one)} for one in merge.blocks],
    }


def _recipe(result: SetResult, merge: Merge) -> dict[str, object]:
    parts = zip(merge.parents, merge.weights, strict=True)
    return {
        "model": result.members[merge.model].name,
        "parts": [{"model": result.members[place].name, "weight": number(weight)} for place, weight in parts],
        **_evidence(result, merge),
        "blocks": [
            {"block": one.block, "weights": one.weights and [number(weight) for weight in one.weights], **_left(one)}
            for one in merge.blocks
        ],
    }


def _evidence(result: SetResult, merge: Merge) -> dict[str, object]:
    return {
        "component": merge.component,
        "residual": number(merge.residual),
        "bound": number(merge.bound),
        "distance": number(merge.distance),
        "sentence": merge_sentence(result, [merge]),
    }


def _second(share: Share) -> float | int | None:
    return None if share.weights is None else number(share.weights[1])


def _left(share: Share) -> dict[str, object]:
    return {"residual": number(share.residual), "bound": number(share.bound)}


def _square(matrix: Floats, whole: bool = False) -> list[list[float | int | None]]:
    return [[number(value, whole) for value in row] for row in matrix.tolist()]


def number(value: float, whole: bool = False) -> float | int | None:
    """Twelve digits, which is more than sums of FP32 differences are good for; None for what is no number."""
    if not math.isfinite(value):
        return None
    return int(value) if whole else float(f"{value:.12g}")
