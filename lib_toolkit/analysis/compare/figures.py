"""The figures of the published comparison notebook: one number for a group out of one number for each tensor.

Source: 6DammK9/nai-anime-pure-negative-prompt, chapter 03, ``v1/mega_cmp.ipynb`` (formulas only). A report of it is a
JSON object of ``da`` (keys only in A), ``db``, ``err`` (in both, not comparable) and ``kv`` (key: value).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

UNET = "model.diffusion_model"
"""How keys begin that the published tool puts into the panels of its picture."""

PANELS = ("attn1", "attn2", "other")
"""The panels, of which the first whose name occurs in a key takes it."""

_SMALLEST = 1e-280
"""Sums of squares below it have lost digits."""

_COMPONENTS = (
    ("cond_stage_model", "te"),
    ("conditioner.embedders.0", "te0"),
    ("conditioner.embedders.1", "te1"),
    ("first_stage_model", "vae"),
    (UNET, "unet"),
)
"""Beginnings of keys and the components of the published matrices."""


def figure(metric: str, values: Iterable[float]) -> float:
    """l0: how many are not zero; l1: sum of magnitudes; l2 and cossim: root of the sum of squares.

    Infinite where the figure itself is beyond the range of FP64.
    """
    if metric == "l0":
        return float(sum(value != 0 for value in values))
    if metric == "l1":
        return _sum(abs(value) for value in values)
    every = list(values)
    squares = _sum(value * value for value in every)
    if _SMALLEST < squares < math.inf:
        return math.sqrt(squares)
    # Squares leave the range of FP64 long before the values do.
    top = max(map(abs, every), default=0.0)
    return top * math.sqrt(_sum((value / top) ** 2 for value in every)) if 0 < top < math.inf else top


def _sum(values: Iterable[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def panel(key: str) -> str | None:
    """The panel of a key, None for keys outside the UNet."""
    if not key.startswith(UNET):
        return None
    return next((name for name in PANELS[:-1] if name in key), PANELS[-1])


def component(key: str) -> str:
    """The component of a key in the published matrices: te, te0, te1, vae, unet or other."""
    return next((name for start, name in _COMPONENTS if key.startswith(start)), "other")


def by_panel(values: Mapping[str, float]) -> dict[str, list[float]]:
    """The finite values of the UNet's tensors by panel; panels without any are left out."""
    return _grouped(values, panel)


def by_component(values: Mapping[str, float]) -> dict[str, list[float]]:
    """The finite values of all tensors by component; keys that begin with ``nai.`` are those of the text encoder."""
    return _grouped(values, lambda key: component(key.removeprefix("nai.")))


def _grouped(values: Mapping[str, float], name_of: Callable[[str], str | None]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for key, value in values.items():
        name = name_of(key)
        if name is not None and math.isfinite(value):
            groups.setdefault(name, []).append(value)
    order = [*PANELS, "unet", "te", "te0", "te1", "vae", "other"]
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0])))
