"""A measured set as one page: identical parts, merges, and for each component its pictures and tables.

Everything is there without a script; the one that the page brings only says under a heat map what the pointer is on.
The page needs no network, follows the system's dark or light colours, and prints.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit import __version__
from lib_toolkit.analysis.compare.verdicts import percent
from lib_toolkit.analysis.matrix.graphs import dendrogram, families, filled, leaves, spanning_tree
from lib_toolkit.analysis.matrix.merges import Merge
from lib_toolkit.analysis.matrix.results import METRICS, GroupResult, SetResult
from lib_toolkit.analysis.matrix.scaling import scaled
from lib_toolkit.reports.html import EMPTY, Html, bullets, details, join, sideways, table, tag
from lib_toolkit.reports.matrix_graph_svg import line_svg, map_svg, tree_svg
from lib_toolkit.reports.matrix_limits import capital, named
from lib_toolkit.reports.matrix_sentences import identical_sentences, merge_sentences, summary
from lib_toolkit.reports.matrix_svg import dendrogram_svg, figure, heat_data, heat_map
from lib_toolkit.reports.numbers import counted, human_bytes
from lib_toolkit.reports.report_json import packaged_text
from lib_toolkit.reports.report_tensors import embedded

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Floats

_MANY = 40
"""More models than this are told in parts that open on a click."""

_TABLED = _TOLD = 12
_STYLE = """
body{max-width:72rem}
.set-picture{display:block;max-width:100%;height:auto;color:var(--ink)}
.set-picture text{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.set-none{fill:var(--tint)}.set-line{fill:none;stroke:var(--frame);stroke-width:1.3}
.set-edge{fill:none;stroke:var(--frame);stroke-width:1.4}.set-dot{fill:var(--unet)}.set-soft{fill:var(--soft)}
.set-said{min-height:1.6em;color:var(--soft);font-variant-numeric:tabular-nums}
.set-said:empty{display:none}
h3{margin:1.6rem 0 .5rem;font-size:1.05rem}
@media print{.set-picture{max-width:100%}
svg,table{break-inside:avoid;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.set-said{display:none}details::details-content{content-visibility:visible;display:block;height:auto}}
"""


def matrix_html(result: SetResult, metrics: Sequence[str] = METRICS, title: str = "Distances of a set") -> str:
    """The whole page. Raises ToolkitError when the installation lacks the page's own style or script."""
    first = [
        ("identical", "Identical parts", _first(identical_sentences(result))),
        ("merges", "Merges", _merges(result)),
        ("summary", "In short", _first(_rest(result))),
        ("models", "Models", _models(result)),
    ]
    components = [_component(result, one, metrics) for one in result.components]
    shown = [(identity, heading, body) for identity, heading, body in (*first, *components) if body]
    body = join(
        [
            tag("p", "Comparison of a set", class_="eyebrow"),
            tag("h1", f"{title}: {counted(len(result.members), 'model')}"),
            tag("nav", *(tag("a", heading, href=f"#{identity}") for identity, heading, _ in shown), aria_label="Parts"),
            tag("main", *(tag("section", tag("h2", heading), part, id=identity) for identity, heading, part in shown)),
            tag(
                "footer", f"Made by Model Toolkit {__version__}. This page asks nobody for anything: it works offline."
            ),
        ]
    )
    return _page(title, body)


def _page(title: str, body: Html) -> str:
    script = packaged_text("page/matrix.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    meta = join(
        [
            Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Html('<meta name="color-scheme" content="light dark">'),
        ]
    )
    style = Html(packaged_text("page/report.css") + _STYLE)
    head = tag("head", meta, tag("title", title), tag("style", style))
    return f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", body, tag("script", Html(script)))}</html>\n'


def _rest(result: SetResult) -> list[str]:
    """The summary without what stands above it."""
    above = set(identical_sentences(result))
    return [sentence for sentence in summary(result) if sentence not in above]


def _folded(words: str, count: int, part: Html) -> Html:
    """A part under its heading, or, of a large set, behind it."""
    return details(words, part) if count > _MANY else join([tag("h3", words), part])


def _first(sentences: Sequence[str]) -> Html:
    """The first few sentences, the others behind a click."""
    shown, more = list(sentences[:_TOLD]), list(sentences[_TOLD:])
    return join([bullets(shown), details(f"{len(more):,} more", bullets(more)) if more else EMPTY])


def _merges(result: SetResult) -> Html:
    if not result.merges:
        return EMPTY
    rows = [
        (
            result.members[merge.model].name,
            next(one.group.title for one in result.components if one.group.id == merge.component),
            _recipe(result, merge),
            percent(merge.residual / merge.distance) if merge.distance else "0 %",
            f"{figure(merge.residual)} ≤ {figure(merge.bound)}",
        )
        for merge in result.merges
    ]
    head = ("Model", "Part", "Made of", "Left over, of the way to the nearest", "Residual ≤ bound from rounding")
    blocks = [_blocks(result, merge) for merge in result.merges if merge.blocks]
    return join(
        [
            _first(merge_sentences(result)),
            _folded("Each part with its residual", len(rows), table(head, rows, frozenset({3, 4}))),
            details("Block by block", *blocks) if blocks else EMPTY,
        ]
    )


def _recipe(result: SetResult, merge: Merge) -> str:
    if merge.by_block:
        return f"{named([result.members[place].name for place in merge.parents])}, in shares by block"
    parts = zip(merge.weights, merge.parents, strict=True)
    return " + ".join(f"{weight:.4f} × {result.members[place].name}" for weight, place in parts)


def _blocks(result: SetResult, merge: Merge) -> Html:
    head = ["", *(share.block for share in merge.blocks)]
    rows = [
        (
            result.members[place].name,
            *("–" if share.weights is None else f"{share.weights[index]:.4f}" for share in merge.blocks),
        )
        for index, place in enumerate(merge.parents)
    ]
    numbers = frozenset(range(1, len(head)))
    return join([tag("h3", result.members[merge.model].name), table(head, rows, numbers, wide=True)])


def _models(result: SetResult) -> Html:
    rows = [
        (
            str(place + 1),
            member.name,
            member.architecture,
            human_bytes(member.size),
            _shown(result.total.to_set[place]),
            _shown(result.total.to_average[place]),
        )
        for place, member in enumerate(result.members)
    ]
    head = ("No.", "Model", "Architecture", "Size", "Mean |difference| to the others", "… to their average")
    return _folded("All models", len(rows), table(head, rows, frozenset({0, 3, 4, 5})))


def _component(result: SetResult, component: GroupResult, metrics: Sequence[str]) -> tuple[str, str, Html]:
    """The section of a component: one block of pictures for each family of models that can be compared."""
    names = [member.name for member in result.members]
    every = families(component.l2)
    parts = [_notes(component, names)]
    for number, family in enumerate(one for one in every if len(one) > 1):
        parts.append(_family(component, family, names, f"{component.group.id}-{number + 1}"))
    alone = [names[family[0]] for family in every if len(family) == 1]
    if alone and len(every) > 1:
        parts.append(tag("p", f"Comparable with no other: {named(alone)}."))
    if 1 < len(names) <= _TABLED and any(len(one) > 1 for one in every):
        parts.append(details("The matrices as tables", *(_table(component, metric, names) for metric in metrics)))
    return f"part-{component.group.id.replace('#', '-')}", capital(component.group.title), join(parts)


def _notes(component: GroupResult, names: Sequence[str]) -> Html:
    absent = [name for place, name in enumerate(names) if not component.own[place]]
    told = [f"Absent in {named(absent)}."] if absent else []
    told += [f"{counted(len(pairs), 'pair')} not comparable: {why}." for why, pairs in component.reasons]
    holed = np.triu(~np.isnan(component.l2) & (component.changed > 0) & (component.left_out > 0), 1)
    if holed.any():
        told.append(
            f"{counted(int(holed.sum()), 'pair')} compared without values that are NaN or infinite in one of both."
        )
    partial = np.triu(~component.complete & ~np.isnan(component.l2), 1)
    if partial.any():
        told.append(
            f"{counted(int(partial.sum()), 'pair')} compared in a part of their tensors: the rest does not fit."
        )
    return bullets(told)


def _family(component: GroupResult, family: Sequence[int], names: Sequence[str], identity: str) -> Html:
    apart = filled(component.l2, family)
    own = [names[place] for place in family]
    joins, tree, placed = dendrogram(apart), spanning_tree(apart), scaled(apart)
    order = leaves(joins, len(family))
    data = f"heat-{identity.replace('#', '-')}"
    known = component.figures("l2")[np.ix_(family, family)]
    ordered = known[np.ix_(order, order)]
    sorted_names = [own[place] for place in order]
    idle = "Point at a cell to read it." if len(family) > 2 else ""
    stress = f"Stress {placed.stress:.3f}: {_fidelity(placed.stress)}. Lines are the spanning tree."
    line = line_svg(own, known[0].tolist(), own[0])
    return join(
        [
            tag("h3", "Distances (L2), like beside like"),
            _framed("Heat map", heat_map(sorted_names, ordered, data)),
            tag("p", idle, id=f"{data}-said", class_="set-said", data_idle=idle),
            tag("script", embedded(heat_data(sorted_names, ordered)), type="application/json", id=data),
            _folded("Map", 0, join([_framed("Map", map_svg(own, placed, tree)), tag("p", stress)])),
            _folded("Dendrogram (average linkage)", len(family), _framed("Dendrogram", dendrogram_svg(own, joins))),
            _folded("Minimum spanning tree", len(family), _framed("Spanning tree", tree_svg(own, tree, apart, known))),
            _folded(f"Distances to the first, {own[0]}", len(family), _framed("Distances to the first", line)),
            _folded("Nearest neighbours", len(family), nearest_table(component, family, names)),
        ]
    )


def _framed(words: str, picture: Html) -> Html:
    return sideways(words, picture, class_="picture")


def _fidelity(stress: float) -> str:
    return (
        "the map shows the distances as they are"
        if stress < 0.02
        else "a fair picture of the distances"
        if stress < 0.15
        else "the distances do not fit into a plane, the map is a rough picture"
    )


def nearest_table(component: GroupResult, family: Sequence[int], names: Sequence[str]) -> Html:
    """For each model of a family its nearest other one."""
    inside = set(family)
    rows = [
        (
            names[place],
            names[near],
            _apart(component, place, near, apart),
            _cosine(component, place, near),
        )
        for place, near, apart in component.nearest()
        if place in inside
    ]
    return table(("Model", "Nearest", "Distance (L2)", "Cosine"), rows, frozenset({2, 3}))


def _apart(component: GroupResult, place: int, near: int, apart: float) -> str:
    if near in _same(component, place):
        return "identical"
    return "equal but for NaN or infinite values" if component.silent[place, near] else figure(apart)


def _same(component: GroupResult, place: int) -> tuple[int, ...]:
    return next((group for group in component.identical if place in group), ())


def _cosine(component: GroupResult, place: int, near: int) -> str:
    value = float(component.figures("cosine")[place, near])
    return f"{value:.6f}" if math.isfinite(value) else "–"


def _table(component: GroupResult, metric: str, names: Sequence[str]) -> Html:
    matrix: Floats = component.figures(metric)
    head = [metric, *(str(place + 1) for place in range(len(names)))]
    rows = [
        (f"{place + 1} {names[place]}", *(_shown(value) for value in row)) for place, row in enumerate(matrix.tolist())
    ]
    return table(head, rows, frozenset(range(1, len(head))), wide=True)


def _shown(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else "–"
