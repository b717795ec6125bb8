"""A comparison as one page: verdicts, the U tinted by change, tables by component, block and layer, histograms.

The page needs no script and no network, follows the system's dark or light colours, and prints.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from lib_toolkit import __version__
from lib_toolkit.analysis.compare.alignment import WEIGHT, Row, title_of
from lib_toolkit.analysis.compare.measures import METRICS
from lib_toolkit.analysis.compare.places import Third
from lib_toolkit.analysis.compare.results import A, B, Comparison, Group, file_keys
from lib_toolkit.analysis.compare.verdicts import percent
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.reports.compare_third import EXPLAINED, HEAD, third_rows
from lib_toolkit.reports.html import EMPTY, Html, bullets, details, join, sideways, table, tag
from lib_toolkit.reports.numbers import counted, human_bytes, human_count
from lib_toolkit.reports.report_json import packaged_text
from lib_toolkit.reports.unet_picture import Overlay, UBlock, unet_blocks, unet_svg

_LISTED = 200
_MOST_CHANGED = 30
_BINS = 48
_CHART_WIDTH, _CHART_HEIGHT = 640, 150
_FIGURES = frozenset(range(1, 12))

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:.7rem}
.sides>div{padding:.6rem .9rem;border:1px solid var(--line);border-radius:10px;background:var(--card)}
.sides b{color:var(--accent);margin-right:.4rem}.sides p{margin:.2rem 0}
.model-toolkit-unet{display:block;width:100%;max-width:100%;height:auto;color:var(--ink)}
.chart{max-width:100%;height:auto;color:var(--ink)}.chart rect{fill:var(--unet)}.chart line{stroke:var(--line)}
.groups td:first-child{white-space:nowrap}.groups table{font-size:.84rem}.groups th{font-size:.74rem}
.groups th,.groups td,.groups .model-toolkit-number:not(:last-child){padding-right:.7rem}
.verdicts li{margin:.35rem 0}.verdicts li:first-child{font-size:1.15rem;font-weight:600}
:root{--u-tint:#e8590c}
@media print{svg{break-inside:avoid;print-color-adjust:exact;-webkit-print-color-adjust:exact}details>*{display:block}}
"""


def compare_html(comparison: Comparison, metrics: Sequence[str] = METRICS) -> str:
    """The whole page; ``metrics`` says which figures stand in the tables."""
    a, b = comparison.models
    title = f"{a.name} and {b.name}: comparison"
    sections = [
        ("verdicts", "What it means", bullets(comparison.verdicts, "verdicts")),
        ("third", "The third model", _third(comparison)),
        ("unet", "The UNet", unet_section(comparison)),
        ("components", "Components", group_table(comparison.by_component(), metrics)),
        ("merge-blocks", "Merge blocks", group_table(comparison.by_merge_block(), metrics)),
        ("blocks", "Blocks of each component", _folded(group_table(_blocks(comparison), metrics))),
        ("layers", "Kinds of layers", group_table(comparison.by_layer(), metrics)),
        ("histograms", "How the changes spread", _framed("Histograms", histograms(comparison))),
        ("tensors", "Tensors that changed most", _tensors(comparison)),
        ("unmatched", "Not in both, or not comparable", _unmatched(comparison)),
    ]
    shown = [(identity, heading, body) for identity, heading, body in sections if body]
    body = join(
        [
            tag("p", "Comparison", class_="eyebrow"),
            tag("h1", f"{a.name} and {b.name}"),
            tag("div", _side(comparison, A), _side(comparison, B), class_="sides"),
            tag("nav", *(tag("a", heading, href=f"#{identity}") for identity, heading, _ in shown), aria_label="Parts"),
            tag("main", *(tag("section", tag("h2", heading), part, id=identity) for identity, heading, part in shown)),
            tag(
                "footer", f"Made by Model Toolkit {__version__}. This page asks nobody for anything: it works offline."
            ),
        ]
    )
    return page(title, body)


def page(title: str, body: Html) -> str:
    """A page in the style of the reports, without scripts. Raises ToolkitError where the style is not installed."""
    style = Html(packaged_text("page/report.css") + _STYLE)
    meta = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark">'
    )
    head = tag("head", Html(meta), tag("title", title), tag("style", style))
    return f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", body)}</html>\n'


def _side(comparison: Comparison, place: int) -> Html:
    return _model("AB"[place], comparison.models[place], comparison.found[place])


def _model(letter: str, model: Model, found: Identification) -> Html:
    facts = f"{found.name}, {human_bytes(model.origin.size)}, {counted(len(model.tensors), 'tensor')}"
    return tag(
        "div",
        tag("p", tag("b", letter), model.name),
        tag("p", facts),
        tag("p", tag("code", str(model.origin.path))),
    )


def _third(comparison: Comparison) -> Html:
    third = comparison.third
    if third is None:
        return EMPTY
    return join([tag("div", _model("M", third.model, third.found), class_="sides"), third_places(third)])


def third_places(third: Third) -> Html:
    """Where the third model lies between A and B: by component, and by merge block on a click."""
    head = [name.capitalize() for name in HEAD]
    numbers = frozenset(range(1, len(HEAD)))
    shown, folded = (
        table(head, rows, numbers, wide=True) if (rows := third_rows(places)) else EMPTY
        for places in (third.components, third.merge_blocks)
    )
    return join(
        [
            tag("p", EXPLAINED) if shown else tag("p", "No tensor of it can be placed between A and B."),
            shown,
            details("Show the merge blocks", folded) if folded else EMPTY,
        ]
    )


def unet_section(comparison: Comparison) -> Html:
    """The U of A, and its blocks as a table; nothing without a UNet in both."""
    picture, blocks = unet_parts(comparison)
    return join([_framed("Picture of the UNet", picture), blocks])


def _framed(words: str, picture: Html) -> Html:
    """Pictures that scroll where they would become too small to read."""
    return sideways(words, picture, class_="picture") if picture else EMPTY


def unet_parts(comparison: Comparison) -> tuple[Html, Html]:
    """The U of A, blocks tinted by how much they changed, and the same as a table; both empty without a UNet in
    both. Blocks of A that could not be compared are hatched, and told why."""
    component = next((one for one in comparison.components if one.id == "unet"), None)
    match, other = component.matches if component is not None else (None, None)
    if match is None or other is None:
        return EMPTY, EMPTY
    groups = {group.name: group for group in comparison.by_block() if group.component == "unet"}
    missing = _of_blocks(comparison.only_a)
    unlike = _of_blocks([one.row for one in comparison.not_compared])
    blocks = unet_blocks(match, comparison.models[A])
    relative = {name: share for name, group in groups.items() if (share := group.measures.relative) is not None}
    left = {block.name: _left_out(missing[block.name], unlike[block.name]) for block in blocks}
    captions = {name: _caption(groups[name], ", ".join(left.get(name, ()))) for name in relative}
    gaps = {
        block.name: "all zero in A" if block.name in groups else "not comparable" if unlike[block.name] else "not in B"
        for block in blocks
        if block.name not in relative
    }
    picture = unet_svg(blocks, Overlay("‖A−B‖ / ‖A‖", relative, captions, gaps), f"UNet of {comparison.models[A].name}")
    rows = [_block_row(block, groups.get(block.name), gaps.get(block.name), left[block.name]) for block in blocks]
    head = ("Block", "Made of", "Parameters", "‖A−B‖ / ‖A‖", "Changed elements", "Changed tensors")
    return picture, table(head, rows, frozenset({2, 3, 4, 5}), wide=True)


def _of_blocks(rows: Iterable[Row]) -> Counter[str]:
    """How many weights of each block of the UNet are among the rows."""
    return Counter(row.block for row in rows if row.component == "unet" and row.kind == WEIGHT and row.block)


def _left_out(missing: int, unlike: int) -> tuple[str, ...]:
    """What of a block was not compared."""
    parts = [f"{missing:,} not in B"] if missing else []
    return tuple([*parts, f"{unlike:,} not comparable"] if unlike else parts)


def _block_row(block: UBlock, group: Group | None, gap: str | None, left: tuple[str, ...]) -> tuple[str, ...]:
    """A block of the U as the table tells it."""
    start = (block.name, block.kind, human_count(block.parameters))
    if group is None:
        return *start, gap or "–", "–", "–"
    # A line for each, since columns of numbers do not wrap.
    told = (f"{group.changed_tensors:,} of {len(group.members):,}", *left)
    tensors = join([tag("div", line) for line in told]) if left else told[0]
    return *start, gap or _percent(group.measures.relative), percent(group.measures.changed_share), tensors


def _caption(group: Group, left: str) -> str:
    measures = group.measures
    words = f"{_percent(measures.relative)}, {percent(measures.changed_share)} of the elements changed"
    return f"{words}; tensors left out: {left}" if left else words


def group_table(groups: Iterable[Group], metrics: Sequence[str]) -> Html:
    """Groups with their figures; nothing without groups."""
    every = list(groups)
    several = len({group.component for group in every}) > 1 and any(group.kind != "component" for group in every)
    head = [
        "Part",
        "Tensors",
        "Changed",
        "Elements",
        "Mean |A−B|",
        "Max |A−B|",
        "‖A−B‖ / ‖A‖",
        *map(_metric, metrics),
    ]
    rows = [
        (
            f"{title_of(group.component)}: {group.name}" if several else group.name,
            f"{len(group.members):,}",
            f"{group.changed_tensors:,}",
            percent(group.measures.changed_share),
            short(group.measures.mean),
            short(group.measures.largest),
            _percent(group.measures.relative),
            *(short(group.figure(metric)) for metric in metrics),
        )
        for group in every
    ]
    return tag("div", table(head, rows, _FIGURES, wide=True), class_="groups") if rows else EMPTY


def _blocks(comparison: Comparison) -> list[Group]:
    return [group for group in comparison.by_block() if group.component != "unet_ema"]


def _folded(shown: Html) -> Html:
    """A long table that opens on a click."""
    return details("Show the table", shown) if shown else EMPTY


def _metric(metric: str) -> str:
    return {"l0": "L0", "l1": "L1", "l2": "L2", "cossim": "CosSim", "cosine": "Cosine"}[metric]


def short(value: float | None) -> str:
    """A figure as tables show it."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.5g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)


def histograms(comparison: Comparison) -> Html:
    """For each component how many of its tensors changed by how much (relative distance, on a logarithmic axis)."""
    made = []
    for group in comparison.by_component():
        values = [share for one in group.members if (share := one.measures.relative)]
        if values and group.component != "schedule":
            made.append(tag("h3", group.name))
            made.append(_chart([math.log10(value) for value in values], len(group.members)))
    return join(made)


def _chart(values: Sequence[float], every: int) -> Html:
    low, high = min(values), max(values)
    span = high - low or 1.0
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / span * _BINS))] += 1
    step, top = _CHART_WIDTH / _BINS, math.log1p(max(counts))
    bars = []
    for index, count in enumerate(counts):
        height = math.log1p(count) / top * _CHART_HEIGHT
        edge = 10 ** (low + span * index / _BINS)
        words = f"{counted(count, 'tensor')} from {percent(edge)}"
        place = {"x": f"{index * step:.1f}", "y": f"{_CHART_HEIGHT - height:.1f}"}
        if count:
            bars.append(tag("rect", tag("title", words), width=f"{step - 1:.1f}", height=f"{height:.1f}", **place))
    base = str(_CHART_HEIGHT)
    labels = [
        tag("line", x1="0", x2=str(_CHART_WIDTH), y1=base, y2=base),
        tag("text", percent(10**low), x="0", y=str(_CHART_HEIGHT + 16)),
        tag("text", percent(10**high), x=str(_CHART_WIDTH), y=str(_CHART_HEIGHT + 16), text_anchor="end"),
    ]
    equal = every - len(values)
    words = f"‖A−B‖ / ‖A‖ of {counted(len(values), 'tensor')} that changed" + (
        f"; {equal:,} are equal" if equal else ""
    )
    labels.append(tag("text", words, x=str(_CHART_WIDTH // 2), y=str(_CHART_HEIGHT + 16), text_anchor="middle"))
    return tag(
        "svg",
        *bars,
        *labels,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 -4 {_CHART_WIDTH} {_CHART_HEIGHT + 28}",
        class_="chart",
        role="img",
        font_size="12",
        fill="currentColor",
        aria_label=words,
    )


def _tensors(comparison: Comparison) -> Html:
    changed = [one for one in comparison.weights() if not one.measures.identical]
    changed.sort(key=lambda one: -(one.measures.relative if one.measures.relative is not None else math.inf))
    rows = [
        (
            tag("code", one.row.key),
            title_of(one.row.component),
            _percent(one.measures.relative),
            percent(one.measures.changed_share),
            short(one.measures.mean),
            short(one.measures.largest),
            short(one.measures.cosine),
        )
        for one in changed[:_MOST_CHANGED]
    ]
    head = ("Tensor", "Part", "‖A−B‖ / ‖A‖", "Elements changed", "Mean |A−B|", "Max |A−B|", "Cosine")
    return table(head, rows, frozenset({2, 3, 4, 5, 6})) if rows else EMPTY


def _unmatched(comparison: Comparison) -> Html:
    parts = []
    for place, rows in enumerate((comparison.only_a, comparison.only_b)):
        keys = file_keys(rows, place)
        if keys:
            parts.append(details(f"Only in {'AB'[place]}: {counted(len(keys), 'tensor')}", _names(keys)))
    if comparison.not_compared:
        rows_ = [(tag("code", one.row.key), title_of(one.row.component), one.reason) for one in comparison.not_compared]
        shown = table(("Tensor", "Part", "Why"), rows_[:_LISTED])
        parts.append(details(f"Not comparable: {counted(len(rows_), 'tensor')}", shown, _more(len(rows_))))
    return join(parts)


def _names(keys: Sequence[str]) -> Html:
    return join([bullets([tag("code", key) for key in keys[:_LISTED]]), _more(len(keys))])


def _more(count: int) -> Html:
    return tag("p", f"… and {count - _LISTED:,} more.") if count > _LISTED else EMPTY
