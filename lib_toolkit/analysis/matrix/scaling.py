"""Places in the plane for models whose distances are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lib_toolkit.analysis.matrix.sums import Floats

_STEPS = 500
_SETTLED = 1e-9


@dataclass(frozen=True)
class Map:
    """``points``: shape (models, 2), in the unit of the distances. ``stress`` (Kruskal's, of the first kind): 0 where
    the plane shows every distance as it is; up to 0.1 is a fair picture, 0.2 a poor one."""

    points: Floats
    stress: float


def scaled(distances: Floats) -> Map:
    """Multidimensional scaling: classical to begin with, then by SMACOF until the stress no longer falls.

    Method: W. Torgerson (1952); J. de Leeuw, Applications of convex analysis to multidimensional scaling (1977).
    """
    points = _classical(distances)
    stress = _stress(points, distances)
    for _ in range(_STEPS):
        moved = _majorised(points, distances)
        after = _stress(moved, distances)
        if after >= stress - _SETTLED:
            break
        points, stress = moved, after
    return Map(_upright(points), stress)


def spectral(weights: Floats) -> Floats:
    """The layout of the published tool: two eigenvectors of the graph's Laplacian, scaled into −1 … 1.

    ``weights`` are the edges', 0 for none. Formula: networkx, ``spectral_layout``.
    """
    count = len(weights)
    if count <= 2:
        return np.array([[-1.0, 0.0], [1.0, 0.0]] if count == 2 else [[0.0, 0.0]] * count).reshape(count, 2)
    laplacian = np.diag(weights.sum(axis=1)) - weights
    values, vectors = np.linalg.eigh(laplacian)
    points = vectors[:, np.argsort(values)[1:3]]
    points = points - points.mean(axis=0)
    largest = np.abs(points).max()
    placed: Floats = points / largest if largest > 0 else points
    return placed


def _classical(distances: Floats) -> Floats:
    count = len(distances)
    if count < 2:
        return np.zeros((count, 2))
    centre = np.eye(count) - 1.0 / count
    values, vectors = np.linalg.eigh(-0.5 * centre @ distances**2 @ centre)
    lengths = np.sqrt(np.maximum(values[::-1][:2], 0.0))
    points = np.zeros((count, 2))
    points[:, : len(lengths)] = vectors[:, ::-1][:, :2] * lengths
    return points


def _majorised(points: Floats, distances: Floats) -> Floats:
    """One step of SMACOF: no place moves so that the stress grows."""
    now = _apart(points)
    ratio = np.divide(distances, now, out=np.zeros_like(now), where=now > 0)
    pull = -ratio
    np.fill_diagonal(pull, 0.0)
    np.fill_diagonal(pull, -pull.sum(axis=1))
    moved: Floats = pull @ points / len(points)
    return moved


def _apart(points: Floats) -> Floats:
    apart: Floats = np.sqrt(((points[:, None, :] - points[None, :, :]) ** 2).sum(axis=2))
    return apart


def _stress(points: Floats, distances: Floats) -> float:
    total = float((distances**2).sum())
    return float(np.sqrt(((_apart(points) - distances) ** 2).sum() / total)) if total else 0.0


def _upright(points: Floats) -> Floats:
    """Mirrored so that the first model is on the left and not above the middle: the same picture each time."""
    signs = np.where(points[:1] > 0, -1.0, 1.0) if len(points) else 1.0
    placed: Floats = points * signs
    return placed
