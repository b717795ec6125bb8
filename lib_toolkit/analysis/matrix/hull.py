"""The point of a convex hull that is nearest to a model, from distances alone.

With the model as origin, the products of the other models are ⟨x, y⟩ = (‖x‖² + ‖y‖² − ‖x−y‖²) / 2, and the mixture
Σ w·x with w ≥ 0 and Σ w = 1 that comes nearest is the hull's point of least norm. Method: P. Wolfe, Finding the
nearest point in a polytope, Mathematical Programming 11 (1976): grow the set of models in use one by one, and drop
those whose weight would become negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Floats

_STEPS = 500
_NEGLIGIBLE = 1e-12


def products(squared: Floats, target: int, others: Sequence[int]) -> Floats:
    """The inner products of ``others``, seen from ``target``, out of squared distances."""
    at = np.asarray(others, dtype=np.intp)
    apart = squared[target, at]
    made: Floats = (apart[:, None] + apart[None, :] - squared[np.ix_(at, at)]) / 2
    return made


def nearest_mixture(gram: Floats, enough: float = math.inf) -> Floats:
    """Weights ≥ 0 with the sum 1 that make wᵀ·gram·w least.

    Ends early, with weights that are not the best, as soon as it is clear that no mixture comes nearer than ``enough``.
    """
    scale = float(np.abs(gram).max(initial=0.0)) or 1.0
    weights = np.zeros(len(gram))
    used = [int(np.argmin(np.diag(gram)))]
    weights[used] = 1.0
    for _ in range(_STEPS):
        slope = gram @ weights
        best = int(np.argmin(slope))
        if best in used or slope[best] >= weights @ slope - _NEGLIGIBLE * scale:
            break
        # No point of the hull is nearer to the origin than the plane through its lowest corner.
        if slope[best] > enough * math.sqrt(max(0.0, float(weights @ slope))):
            break
        used.append(best)
        weights = _settled(gram, weights, used)
    return weights


def affine_weights(gram: Floats) -> Floats:
    """Weights of any sign with the sum 1 that make wᵀ·gram·w least; equal models share what they have."""
    count = len(gram)
    scale = float(np.abs(gram).max(initial=0.0)) or 1.0
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = gram / scale
    system[count, count] = 0.0
    wanted = np.zeros(count + 1)
    wanted[count] = 1.0
    return np.asarray(np.linalg.lstsq(system, wanted, rcond=1e-13)[0][:count], dtype="<f8")


def _settled(gram: Floats, weights: Floats, used: list[int]) -> Floats:
    """Move to the best mixture of ``used``, leaving out (also of the list) models that would count negatively."""
    weights = weights.copy()
    while True:
        wanted = affine_weights(gram[np.ix_(used, used)])
        if wanted.min() > _NEGLIGIBLE:
            weights[:] = 0.0
            weights[used] = wanted
            return weights
        now = weights[used]
        falling = wanted <= _NEGLIGIBLE
        drop = now[falling] - wanted[falling]
        steps = np.divide(now[falling], drop, out=np.zeros_like(drop), where=drop > 0)
        step = min(1.0, float(steps.min()))
        mixed = (1 - step) * now + step * wanted
        mixed[mixed <= _NEGLIGIBLE] = 0.0
        weights[:] = 0.0
        weights[used] = mixed / mixed.sum()
        used[:] = [place for place, weight in zip(used, mixed, strict=True) if weight > 0]
        if len(used) == 1:
            return weights
