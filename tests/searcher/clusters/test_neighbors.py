"""The nearest neighbors of every vector."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.searcher.clusters import nearest

Vectors = NDArray[np.float32]


def unit(rows: NDArray[np.float64]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def random_vectors(count: int, *, seed: int = 0) -> Vectors:
    return unit(np.random.default_rng(seed).normal(size=(count, 16)))


def people(count: int, each: int, *, spread: float, seed: int = 0) -> Vectors:
    """Vectors around so many directions: those of one have a cosine of about 1 / (1 + spread²)."""
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(count, 64))).repeat(each, axis=0)
    noise = rng.normal(size=centers.shape) / np.sqrt(centers.shape[1])
    return unit(centers + spread * noise)


@pytest.mark.parametrize(("count", "k"), [(2, 1), (5, 3), (300, 7), (700, 16)])
def test_neighbors_are_those_of_a_full_comparison(count: int, k: int) -> None:
    vectors = random_vectors(count)
    index, cosines = nearest(vectors, k)
    exact = vectors @ vectors.T
    np.fill_diagonal(exact, -3)
    for row in range(count):
        assert set(index[row].tolist()) == set(np.argsort(-exact[row])[:k].tolist())
        np.testing.assert_allclose(cosines[row], exact[row, index[row]], atol=1e-5)


def test_of_too_few_vectors_the_rest_is_missing() -> None:
    index, cosines = nearest(random_vectors(3), 5)
    assert (index >= 0).sum(axis=1).tolist() == [2, 2, 2]
    assert (cosines[index < 0] == -2).all()
    assert nearest(random_vectors(0), 4)[0].shape == (0, 4)


def test_a_vector_is_not_its_own_neighbor_but_its_copy_is() -> None:
    vectors = np.repeat(random_vectors(4), 2, axis=0)
    index, cosines = nearest(vectors, 1)
    assert index[:, 0].tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


def test_in_cells_nearly_all_near_neighbors_are_found() -> None:
    vectors = people(4000, 5, spread=0.8)
    done: list[int] = []
    index, _ = nearest(vectors, 8, exact_up_to=1000, on_progress=done.append)
    assert abs(sum(done) - len(vectors)) <= 8
    of = np.arange(len(vectors)) // 5
    own = ((of[index] == of[:, None]) & (index >= 0)).sum(axis=1)
    assert own.mean() > 0.95 * 4
    assert all(len(set(row.tolist())) == 8 for row in index[::50])
