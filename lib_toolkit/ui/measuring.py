"""The metric of what is loaded, computed behind the page: a first answer never waits for it.

After an edit only what came in is read; the figures of what stayed are those of before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lib_toolkit.analysis import metric as metrics
from lib_toolkit.analysis.results import Metric
from lib_toolkit.progress import Progress
from lib_toolkit.reports.html import EMPTY, Html, tag
from lib_toolkit.tensors import nbytes
from lib_toolkit.ui.choices import kind_of_class
from lib_toolkit.ui.drafts import Built, Draft, building

LARGEST = 6_000_000_000
"""Bytes that are read for a metric without being asked for; beyond that the report computes it."""

_FIGURES = {"unet": "unet", "vae": "vae", "text_encoder": "clip"}
"""The figure of each kind of component."""


@dataclass(frozen=True)
class Measured:
    """The metric of a draft. ``figures`` are those that are defined for it; ``known`` by figure, sentences on those
    that are those of a component that everybody uses."""

    draft: Draft
    figures: Mapping[str, int | None]
    known: Mapping[str, str]

    @property
    def text(self) -> str:
        """As written on model pages: 2020/2982/0130."""
        return Metric(self.figures.get("unet"), self.figures.get("vae"), self.figures.get("clip")).text


def sizes(built: Built) -> dict[str, int]:
    """The figures that are defined for a model, with the bytes that each of them has to read."""
    chosen = metrics.components(built.model, built.found)
    return {
        figure: sum(nbytes(built.model.tensors[key]) for key in metrics.tensors_of(figure, match))
        for figure, match in chosen.items()
    }


def stale_figures(draft: Draft, before: Measured | None) -> frozenset[str]:
    """The figures that have to be computed for a draft: all but those that its edits left as they were."""
    if before is None or before.draft.begun != draft.begun:
        return frozenset(metrics.FIGURES)
    shared = 0
    for one, other in zip(draft.edits, before.draft.edits, strict=False):
        if one != other:
            break
        shared += 1
    touched = (*draft.edits[shared:], *before.draft.edits[shared:])
    stale = {_FIGURES[kind] for edit in touched if (kind := kind_of_class(edit.cls)) in _FIGURES}
    return frozenset({*stale, *(figure for figure in metrics.FIGURES if figure not in before.figures)})


def measure(draft: Draft, before: Measured | None, progress: Progress) -> Measured:
    """Compute what is not known yet of the draft's metric: the work of a job.

    Raises FormatError when a file cannot be read or is not what it was, and CancelledError.
    """
    progress.start(f"computing the metric of {draft.name}", 0)
    stale = stale_figures(draft, before)
    with building(draft, "auto") as built:
        defined = metrics.components(built.model, built.found)
        found = replace(built.found, components=tuple(match for figure, match in defined.items() if figure in stale))
        metric = metrics.metric(built.model, found, progress, workers=1)
    fresh = {"unet": metric.unet, "vae": metric.vae, "clip": metric.clip}
    old = before.figures if before is not None else {}
    figures = {figure: fresh[figure] if figure in stale else old.get(figure) for figure in defined}
    known = {
        figure: name
        for figure, number in figures.items()
        if number is not None and (name := metrics.known_name(defined[figure].component.cls, number)) is not None
    }
    return Measured(draft, figures, known)


def metric_html(measured: Measured | None, running: bool, defined: bool) -> Html:
    """The metric in a line; nothing where none is defined."""
    if not defined:
        return EMPTY
    if measured is None:
        said = "is being computed …" if running else "was not computed; the report under Advanced has it."
        return tag("p", f"The metric {said}", class_="model-toolkit-metric")
    known = [
        f"The {metrics.TITLES[figure]} has the figure of the {name} {metrics.TITLES[figure]}."
        for figure, name in measured.known.items()
    ]
    return tag("p", "Metric ", tag("b", f"({measured.text})"), ". ", " ".join(known), class_="model-toolkit-metric")


def vae_figure(measured: Measured | None, cls: str) -> str:
    """What the name of a VAE says of its figure: ``-2982``; nothing where none is known, or for a class without
    figures that people know."""
    figure = measured.figures.get("vae") if measured is not None and cls in metrics.KNOWN else None
    return "" if figure is None or kind_of_class(cls) != "vae" else f"-{figure:04d}"
