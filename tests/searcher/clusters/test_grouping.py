"""Groups of vectors."""

import tracemalloc

import numpy as np
import pytest

from lookalike.searcher.clusters import cluster_vectors, grouping
from tests.searcher.clusters.test_neighbors import people, random_vectors

AXES = np.eye(16, dtype=np.float32)


def test_vectors_of_one_direction_are_a_group_the_largest_first() -> None:
    vectors = np.concatenate([AXES[[0, 0, 1, 1, 1, 5]], people(1, 1, spread=0)[:, :16] * 0 + AXES[7]])
    assert cluster_vectors(vectors, 0.5).tolist() == [2, 2, 1, 1, 1, 0, 0]
    assert cluster_vectors(vectors, 0.5, min_size=3).tolist() == [0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("exact_up_to", [10_000, 50])
def test_people_are_found_whatever_the_order(seed: int, exact_up_to: int) -> None:
    vectors = people(40, 6, spread=0.7, seed=seed)
    order = np.random.default_rng(seed).permutation(len(vectors))
    labels = np.empty(len(vectors), np.int64)
    labels[order] = cluster_vectors(vectors[order], 0.5, exact_up_to=exact_up_to)
    groups = labels.reshape(40, 6)
    assert (groups == groups[:, :1]).all()
    assert sorted(groups[:, 0].tolist()) == list(range(1, 41))


def test_one_vector_between_two_groups_does_not_join_them() -> None:
    between = (AXES[0] + AXES[1]) / np.sqrt(2)  # a cosine of 0.71 to both
    vectors = np.stack([*[AXES[0]] * 5, *[AXES[1]] * 5, between])
    labels = cluster_vectors(vectors, 0.72)
    assert len(set(labels[:5].tolist())) == len(set(labels[5:10].tolist())) == 1
    assert labels[0] != labels[5]


@pytest.mark.parametrize("links", [1, 40, 5000])
def test_groups_are_the_same_however_many_links_are_looked_at_together(
    links: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = people(300, 5, spread=0.9)
    known = np.where(np.arange(len(vectors)) % 11 == 0, 1 + np.arange(len(vectors)) // 5, 0)
    whole = cluster_vectors(vectors, 0.5, known=known)
    monkeypatch.setattr(grouping, "_LINKS", links)
    assert cluster_vectors(vectors, 0.5, known=known).tolist() == whole.tolist()


def test_memory_holds_a_few_numbers_of_each_link() -> None:
    count, links = 50_000, 400_000
    rng = np.random.default_rng(0)
    one = np.sort(rng.integers(0, count - 10, links)).astype(np.int32)
    other = (one + rng.integers(1, 10, links)).astype(np.int32)
    strength = rng.random(links).astype(np.float32)
    tracemalloc.start()
    grouping._propagate(one, other, strength, np.zeros(count, np.int64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120 * links


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_vectors_are_in_no_group(count: int) -> None:
    assert cluster_vectors(AXES[:count], 0.5).tolist() == [0] * count


def test_others_join_a_known_group_and_its_number_stays() -> None:
    vectors = np.stack([AXES[0], AXES[0], AXES[0], AXES[1], AXES[1], AXES[2]])
    known = np.array([7, 7, 0, 0, 0, 3])
    assert cluster_vectors(vectors, 0.5, known=known).tolist() == [7, 7, 7, 8, 8, 3]
    assert cluster_vectors(vectors, 0.5, known=known, min_size=9).tolist() == [7, 7, 7, 0, 0, 3]


def test_known_groups_stay_apart_and_share_what_is_between_them() -> None:
    vectors = np.stack([AXES[0]] * 3 + [AXES[0]] * 2 + [AXES[1]] * 2)
    labels = cluster_vectors(vectors, 0.5, known=np.array([2, 2, 0, 5, 0, 0, 5]))
    assert labels[[0, 1, 3, 6]].tolist() == [2, 2, 5, 5]
    assert set(labels[[2, 4, 5]].tolist()) <= {2, 5}
    assert labels[5] == 5  # its only neighbor is in that group


@pytest.mark.parametrize("seed", range(5))
def test_a_second_run_changes_nothing_and_known_groups_never_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([people(20, 4, spread=0.9, seed=seed)[:, :16], random_vectors(60, seed=seed)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first = cluster_vectors(vectors, 0.6)
    assert cluster_vectors(vectors, 0.6, known=first).tolist() == first.tolist()
    known = np.where(rng.random(len(vectors)) < 0.5, rng.integers(1, 9, len(vectors)), 0)
    labels = cluster_vectors(vectors, 0.6, known=known)
    assert (labels[known > 0] == known[known > 0]).all()
    sizes = np.bincount(labels)[1:]
    assert (sizes[9:] >= 2).all()
