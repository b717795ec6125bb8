"""Trees, maps and layouts against known answers and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest

from lib_toolkit.analysis.matrix.graphs import dendrogram, families, filled, leaves, spanning_tree
from lib_toolkit.analysis.matrix.scaling import scaled, spectral


def apart(points) -> np.ndarray:
    points = np.asarray(points, dtype="<f8")
    return np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))


def random_points(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimensions))


def test_models_on_a_line_are_drawn_on_a_line_without_stress():
    line = np.outer([0, 1, 2.5, 7, 4], random_points(1, 9)[0])
    placed = scaled(apart(line))
    assert placed.stress < 1e-6
    assert apart(placed.points) == pytest.approx(apart(line), abs=1e-5)
    # On one line: the second direction holds nothing.
    values = np.linalg.svd(placed.points - placed.points.mean(axis=0), compute_uv=False)
    assert values[1] < 1e-6 * values[0]


def test_the_map_of_a_plane_is_exact_and_that_of_a_space_says_its_stress():
    plane = random_points(20, 2)
    assert scaled(apart(plane)).stress < 1e-6
    space = apart(random_points(30, 12))
    placed = scaled(space)
    told = np.sqrt(((apart(placed.points) - space) ** 2).sum() / (space**2).sum())
    assert placed.stress == pytest.approx(told) and 0.1 < placed.stress < 0.5
    assert np.array_equal(placed.points, scaled(space).points)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_models_and_equal_ones_have_a_map(count):
    for distances in (apart(random_points(count, 4)), np.zeros((count, count))):
        placed = scaled(distances)
        assert placed.points.shape == (count, 2) and np.isfinite(placed.points).all()
        assert placed.stress == pytest.approx(0, abs=1e-6)


def test_the_spanning_tree_is_that_of_a_brute_search():
    points = random_points(7, 3)
    distances = apart(points)
    edges = spanning_tree(distances)
    # Kruskal's method, told apart from Prim's by its union of sets.
    home, total = list(range(7)), 0.0
    pairs = [(distances[row, column], row, column) for row in range(7) for column in range(row)]
    for length, a, b in sorted(pairs):
        if home[a] != home[b]:
            total += length
            home = [home[b] if one == home[a] else one for one in home]
    assert sum(edge.length for edge in edges) == pytest.approx(total)
    assert len(edges) == 6 and {edge.a for edge in edges} | {edge.b for edge in edges} == set(range(7))


def test_networkx_finds_the_same_tree_and_the_same_published_layout():
    networkx = pytest.importorskip("networkx")
    distances = apart(random_points(12, 5))
    graph = networkx.Graph()
    for a in range(12):
        for b in range(a):
            graph.add_edge(a, b, length=distances[a, b], weight=1 / distances[a, b])
    tree = networkx.minimum_spanning_tree(graph, weight="length")
    ours = {frozenset((edge.a, edge.b)) for edge in spanning_tree(distances)}
    assert ours == {frozenset(edge) for edge in tree.edges}
    nodes = sorted(graph)
    theirs = networkx.spectral_layout(graph, weight="weight")
    theirs = np.array([theirs[node] for node in nodes])
    placed = spectral(np.divide(1, distances, out=np.zeros_like(distances), where=distances > 0))
    for axis in (0, 1):
        same, turned = theirs[:, axis], -theirs[:, axis]
        assert min(np.abs(placed[:, axis] - one).max() for one in (same, turned)) < 1e-6
    # Where networkx gives up, two models still stand apart.
    assert spectral(np.array([[0.0, 1], [1, 0]])).tolist() == [[-1, 0], [1, 0]]
    assert spectral(np.zeros((1, 1))).tolist() == [[0, 0]]


def test_a_dendrogram_joins_by_average_distance():
    distances = apart([[0.0], [1.0], [10.0], [12.0]])
    joins = dendrogram(distances)
    assert [(join.left, join.right) for join in joins] == [(0, 1), (2, 3), (4, 5)]
    assert [join.height for join in joins] == pytest.approx([1, 2, (10 + 12 + 9 + 11) / 4])
    assert leaves(joins, 4) == [0, 1, 2, 3]
    assert leaves([], 1) == [0] and dendrogram(np.zeros((1, 1))) == []


def test_models_without_a_common_ground_are_families_of_their_own():
    distances = np.full((5, 5), np.nan)
    for a, b in ((0, 0), (1, 1), (2, 2), (3, 3), (1, 3), (3, 1), (2, 3), (3, 2)):
        distances[a, b] = abs(a - b)
    assert families(distances) == [[1, 2, 3], [0]]
    assert filled(distances, [1, 2, 3])[0, 1] == 2
