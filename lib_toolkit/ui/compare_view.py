"""A comparison in short, for a place beside the controls; all that it leaves out stands in the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib_toolkit.analysis.compare.places import Third
from lib_toolkit.analysis.compare.results import A, B, Comparison
from lib_toolkit.analysis.matrix.graphs import dendrogram, families, filled, leaves
from lib_toolkit.analysis.matrix.results import GroupResult, SetResult
from lib_toolkit.identify import Identification
from lib_toolkit.model import Model
from lib_toolkit.reports.compare_html import group_table, histograms, third_places, unet_parts
from lib_toolkit.reports.html import EMPTY, Html, bullets, details, join, tag
from lib_toolkit.reports.matrix_html import nearest_table
from lib_toolkit.reports.matrix_limits import capital
from lib_toolkit.reports.matrix_sentences import merge_sentences, summary
from lib_toolkit.reports.matrix_svg import heat_map
from lib_toolkit.reports.numbers import counted, human_bytes

_LISTED = 12
_SHAPES = 60
"""Models up to which a heat map is made of cells that say what they are."""


def pair_html(comparison: Comparison, metrics: Sequence[str]) -> Html:
    """The models, the verdicts, where a third one lies, the U of the UNet with its blocks beside it, and the figures of
    each component."""
    third = comparison.third
    picture, blocks = unet_parts(comparison)
    unet = tag("div", _framed(picture), blocks, class_="model-toolkit-beside") if picture else EMPTY
    merge_blocks = group_table(comparison.by_merge_block(), metrics)
    spread = histograms(comparison)
    return tag(
        "div",
        tag("h3", f"{comparison.models[A].name} and {comparison.models[B].name}"),
        *(_side(*side) for side in zip("AB", comparison.models, comparison.found, strict=True)),
        _side("M", third.model, third.found) if third is not None else EMPTY,
        bullets(comparison.verdicts, "model-toolkit-verdicts"),
        _third(third) if third is not None else EMPTY,
        join([tag("h4", "The UNet, block by block"), unet]) if unet else EMPTY,
        tag("h4", "Components"),
        group_table(comparison.by_component(), metrics) or tag("p", "Nothing in them can be compared."),
        details("Merge blocks", merge_blocks) if merge_blocks else EMPTY,
        details("How the changes spread", _framed(spread)) if spread else EMPTY,
        class_="model-toolkit-compare",
    )


def set_html(result: SetResult) -> Html:
    """Merges and what else can be said, and for each component the heat map of its largest family."""
    sentences = [*merge_sentences(result), *summary(result)]
    shown, more = sentences[:_LISTED], sentences[_LISTED:]
    parts = [part for component in result.components if (part := _component(result, component))]
    open_, folded = parts[:1], parts[1:]
    return tag(
        "div",
        tag("h3", f"{counted(len(result.members), 'model')}, each with each"),
        bullets(shown, "model-toolkit-verdicts"),
        details(f"{len(more):,} more", bullets(more)) if more else EMPTY,
        *(join([tag("h4", title), body]) for title, body in open_),
        *(details(title, body) for title, body in folded),
        class_="model-toolkit-compare",
    )


def _side(letter: str, model: Model, found: Identification) -> Html:
    facts = f"{found.name}, {human_bytes(model.origin.size)}, {counted(len(model.tensors), 'tensor')}"
    return tag("p", tag("b", letter), f" {model.name}: {facts}")


def _third(third: Third) -> Html:
    return join([tag("h4", "M between A and B"), third_places(third)])


def _framed(picture: Html) -> Html:
    """A picture that scrolls where it would become too small to read."""
    return tag("div", picture, class_="model-toolkit-picture", tabindex="0", role="region", aria_label="Picture")


def _component(result: SetResult, component: GroupResult) -> tuple[str, Html] | None:
    """Title and body; None for a component that no two models can be compared in."""
    every = [family for family in families(component.l2) if len(family) > 1]
    if not every:
        return None
    names = [member.name for member in result.members]
    family = every[0]
    order = [family[place] for place in leaves(dendrogram(filled(component.l2, family)), len(family))]
    own = [names[place] for place in order]
    heat = heat_map(own, component.figures("l2")[np.ix_(order, order)], "")
    others = sum(len(one) for one in every[1:])
    said = [f"Distances (L2) of {counted(len(family), 'model')}, like beside like."]
    said += ["The page says which cell is which."] if len(family) > _SHAPES else []
    said += [f"The page also has {counted(others, 'model')} of other kinds, which have no distance to these."] * bool(
        others
    )
    nearest = nearest_table(component, family, names)
    body = [tag("p", " ".join(said)), _framed(heat), details("Nearest neighbours", nearest)]
    return capital(component.group.title), join(body)
