"""A measured set in the form of the published matrix notebook, and the layout of its graphs.

Source of the form: 6DammK9/nai-anime-pure-negative-prompt, chapter 03, ``v2a/mega_cmp.ipynb``. ``ml`` lists the files,
``cm`` is a model map of all pairs, ``dm`` has a matrix for te (SDXL: te0 and te1), vae, unet and other. There 0 means
equal, absent or not compared alike; a pair without a common UNet is 0 throughout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib_toolkit.analysis.matrix.results import GroupResult, SetResult
from lib_toolkit.errors import UsageError

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Floats

METRICS = ("l0", "l1", "l2")
"""Metrics whose figures for a component follow from a matrix."""

_NAMES = {
    "text_encoder": "te",
    "text_encoder_h": "te",
    "text_encoder_l": "te0",
    "text_encoder_g": "te1",
    "vae": "vae",
    "unet": "unet",
}
_ORDER = ("te", "te0", "te1", "vae", "unet", "other")


def published_matrices(result: SetResult, metric: str) -> dict[str, Floats]:
    """The figures of each component as there, 0 where there is none. Raises UsageError for another metric."""
    if metric not in METRICS:
        raise UsageError(f"The published matrices hold {', '.join(METRICS[:-1])} or {METRICS[-1]}, not {metric}.")
    count = len(result.members)
    unet = result.component("unet")
    compared = np.zeros((count, count), dtype=bool) if unet is None else ~np.isnan(unet.l2)
    gathered: dict[str, list[GroupResult]] = {}
    for component in result.components:
        gathered.setdefault(_NAMES.get(component.group.id, "other"), []).append(component)
    return {
        name: np.where(compared, _together([one.figures(metric) for one in gathered[name]], metric), 0.0)
        for name in _ORDER
        if name in gathered
    }


def published_matrix_text(result: SetResult, metric: str, title: str) -> str:
    """The file's text; ``title`` is the name of the group of models in its map."""
    paths = [str(member.path.resolve()) for member in result.members]
    keyed = [[f"m{place}", path] for place, path in enumerate(paths)]
    pairs = [[keyed[a], keyed[b]] for a in range(len(keyed)) for b in range(a + 1, len(keyed))]
    table = {
        "ml": [member.name for member in result.members],
        "cm": [[title, pairs]],
        "dm": {name: matrix.tolist() for name, matrix in published_matrices(result, metric).items()},
    }
    return json.dumps(table, allow_nan=False) + "\n"


def edge_weights(matrix: Floats) -> Floats:
    """1/distance, by which the published graph is laid out; equal models and those not compared have no edge."""
    weights: Floats = np.divide(1.0, matrix, out=np.zeros_like(matrix), where=matrix > 0)
    return weights


def _together(matrices: Sequence[Floats], metric: str) -> Floats:
    known = [np.nan_to_num(matrix, nan=0.0, posinf=0.0, neginf=0.0) for matrix in matrices]
    if metric == "l2":
        return np.asarray(np.sqrt(sum(matrix**2 for matrix in known)), dtype="<f8")
    return np.asarray(sum(known), dtype="<f8")
