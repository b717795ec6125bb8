"""The metric (UNET/VAE/CLIP): three figures that people compare on model pages.

For a tensor t, m(t) is the sum over its elements of sigmoid(x) - 0.5 with x = t rounded to FP16. Precision of each
step here: the sigmoid of each of the 65,536 FP16 patterns is computed in FP64 and rounded to FP32, as the tool that
introduced the metric has it; from there on all is FP64: minus 0.5 (exact), times how often the pattern occurs
(exact counts), and one correctly rounded sum (math.fsum) over all patterns of all tensors of the component. The figure
n = floor(|sum / base - 1| · factor) loses 5000 as long as it has more than four digits.

What the figures take in, their bases and the known values are those that are in circulation; the older tool summed
in FP32, so that its figures may differ by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.collect import collect
from lib_toolkit.analysis.results import Metric
from lib_toolkit.analysis.values import PATTERNS, Request
from lib_toolkit.dtypes import DType
from lib_toolkit.identify import Identification, Match
from lib_toolkit.model import Model
from lib_toolkit.progress import SILENT, Progress

if TYPE_CHECKING:
    import numpy.typing as npt

    from lib_toolkit.analysis.values import Histogram

FIGURES = ("unet", "vae", "clip")
TITLES = {"unet": "UNet", "vae": "VAE", "clip": "CLIP"}
_KINDS = {"unet": "unet", "vae": "vae", "clip": "text_encoder"}
_HIGHEST = 10_000
_STEP = 5_000
_TOLERANCE = 1


@dataclass(frozen=True)
class Scale:
    """How the sum over a component of some class becomes a figure."""

    base: float
    factor: int


_UNET = Scale(-6131.5400, 10_000)
_VAE = Scale(17870.7051, 10_000)
_CLIP_V1 = Scale(-2097.8596, 1_000_000)
_CLIP_V2 = Scale(-8757.5630, 10_000)

SCALES: Mapping[str, Scale] = {
    "UNET-v1": _UNET,
    "UNET-v1-Pix2Pix": _UNET,
    "UNET-v2": _UNET,
    "UNET-v2-Depth": _UNET,
    "UNET-v1-Demo": _UNET,
    "VAE-v1": _VAE,
    "VAE-v1-Demo": _VAE,
    "CLIP-v1": _CLIP_V1,
    "CLIP-v1-Demo": _CLIP_V1,
    "CLIP-v2": _CLIP_V2,
}
"""By class of component; others have no figure."""

KNOWN: Mapping[str, Mapping[int, str]] = {
    "VAE-v1": {0: "SD-v1", 869: "SD-v2", 2982: "NAI", 155: "WD-VAE-v1", 41: "WD-VAE-v2"},
    "CLIP-v1": {0: "SD-v1"},
    "CLIP-v2": {1141: "SD-v2", 2543: "WD-v1-4"},
}
"""Figures of components that everybody uses, by class."""

_DEMO: Mapping[str, Mapping[int, str]] = {"VAE-v1-Demo": {9991: "demo"}}
"""The same for the models that ``demo`` makes: nobody else knows these, so that names of files leave them out."""


def metric(model: Model, found: Identification, progress: Progress = SILENT, workers: int | None = None) -> Metric:
    """The metric of a model, in one pass over the tensors that it is made of.

    Raises FormatError when they cannot be read, and CancelledError.
    """
    chosen = components(model, found)
    requests = {key: Request(figure=figure) for figure, match in chosen.items() for key in tensors_of(figure, match)}
    collected = collect(model, requests, (), progress, "measuring", workers)
    return from_histograms(chosen, collected.histograms)


def components(model: Model, found: Identification) -> dict[str, Match]:
    """The component behind each figure that is defined: complete, of a class with a scale, stored as plain numbers.

    Of several the one that is in use: no EMA copy where there is another, in its place in a checkpoint first.
    """
    chosen: dict[str, Match] = {}
    for figure, kind in _KINDS.items():
        candidates = [m for m in found.components if m.component.kind == kind and m.complete]
        candidates.sort(key=lambda m: (m.layout == "ema", m.prefix not in m.component.homes))
        if candidates and candidates[0].component.cls in SCALES and _plain(model, found, figure, candidates[0]):
            chosen[figure] = candidates[0]
    return chosen


def _plain(model: Model, found: Identification, figure: str, match: Match) -> bool:
    """Whether the stored numbers are the weights: 8-bit floats are where no scale belongs to them."""
    types = {model.tensors[key].dtype for key in tensors_of(figure, match)}
    small = {DType.F8_E4M3, DType.F8_E5M2}
    return all(dtype.castable or (dtype in small and not found.quantised) for dtype in types)


def tensors_of(figure: str, match: Match) -> list[str]:
    """The keys of the file that a figure takes in."""
    return [key for native, key in match.keys.items() if _counts(figure, native)]


def _counts(figure: str, native: str) -> bool:
    if figure == "vae":
        return "encoder." in native or "decoder." in native
    if figure == "clip":
        return "mlp." in native and ".23." not in native
    return True


def from_histograms(chosen: Mapping[str, Match], histograms: Mapping[str, Histogram]) -> Metric:
    """The figures out of the histograms of their tensors' FP16 patterns; None where NaNs leave none."""
    figures: dict[str, int | None] = dict.fromkeys(FIGURES)
    known: list[str] = []
    for figure, match in chosen.items():
        cls = match.component.cls
        number = _figure(total(histograms[figure]), SCALES[cls]) if figure in histograms else None
        figures[figure] = number
        if number is not None and (name := known_name(cls, number)) is not None:
            known.append(f"The {TITLES[figure]} has the figure of the {name} {TITLES[figure]} ({number:04d}).")
    return Metric(figures["unet"], figures["vae"], figures["clip"], tuple(known))


def known_figures(cls: str) -> Mapping[int, str]:
    """The figures of this class that have a name, the demo's among them."""
    return KNOWN.get(cls) or _DEMO.get(cls, {})


def known_name(cls: str, number: int) -> str | None:
    """What the component of this class with this figure is called, give or take one; None for no known one."""
    named = known_figures(cls)
    near = min(named, key=lambda figure: abs(figure - number), default=None)
    return named[near] if near is not None and abs(near - number) <= _TOLERANCE else None


def total(histogram: Histogram) -> float:
    """The sum of sigmoid - 0.5 over all elements that the histogram counts; NaN where one of them is NaN."""
    present = np.flatnonzero(histogram)
    return math.fsum((histogram[present] * _terms()[present]).tolist())


@lru_cache(maxsize=1)
def _terms() -> npt.NDArray[np.float64]:
    values = np.arange(PATTERNS, dtype=np.uint16).view("<f2").astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        sigmoid = 1 / (1 + np.exp(-values))
    terms: npt.NDArray[np.float64] = sigmoid.astype(np.float32).astype(np.float64) - 0.5
    return terms


def _figure(summed: float, scale: Scale) -> int | None:
    if math.isnan(summed):
        return None
    number = math.floor(abs(summed / scale.base - 1) * scale.factor)
    if number >= _HIGHEST:
        number -= _STEP * ((number - _HIGHEST) // _STEP + 1)
    return number
