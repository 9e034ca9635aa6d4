"""What latents are compared by: nearest neighbours counted by hand, and the map that serves them chosen.

Legend: N images, D latent size, Z numbers of it that are drawn, K classes.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.bundle import LatentStatistics
from lookalike.trainer.publish.metric import neighbour_accuracy, select_metric


def turned(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_most_of_the_nearest_tell_the_class() -> None:
    stored, labels = turned(0, 10, 20, 90, 100), np.array([0, 1, 1, 2, 2])
    asking = turned(1, 95)
    assert neighbour_accuracy(stored, labels, asking, np.array([0, 2]), neighbours=1) == 1.0
    assert neighbour_accuracy(stored, labels, asking, np.array([0, 2]), neighbours=3) == 0.5
    assert neighbour_accuracy(stored, labels, asking, np.array([1, 2]), neighbours=3) == 1.0


def test_of_two_classes_with_as_many_the_nearer_wins() -> None:
    stored, labels = turned(0, 1, 20, 21), np.array([1, 1, 0, 0])
    assert neighbour_accuracy(stored, labels, turned(2), np.array([1]), neighbours=4) == 1.0


def test_fewer_stored_than_neighbours_all_vote() -> None:
    assert neighbour_accuracy(turned(0, 90), np.array([0, 1]), turned(5), np.array([0])) == 1.0


def latents(count: int, seed: int, *, classes: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The class is in a number of small spread; five of large spread tell nothing, one has collapsed."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    small = 0.3 * (2 * labels - 1) + 0.05 * rng.standard_normal(count)
    rest = rng.standard_normal((count, 6)) * np.array([1, 1, 1, 1, 1, 1e-3])
    numbers = np.concatenate([small[:, None], rest], 1)  # (N, 7)
    told = np.eye(2)[labels] if classes else np.empty((count, 0))
    return np.concatenate([numbers, told], 1).astype(np.float32), labels


def test_whitening_is_chosen_where_it_tells_classes_apart_and_keeps_what_is_in_use() -> None:
    train, labels = latents(400, 0)
    asking, asked = latents(200, 1)
    affine, name, share = select_metric(
        LatentStatistics.from_latents(train), train, labels, asking, asked, prior=7
    )
    assert name == "whitened"
    assert affine.matrix.shape == (6, 7)
    assert share is not None
    assert share > 0.85
    assert share == neighbour_accuracy(affine(train), labels, affine(asking), asked)


def test_class_probabilities_weigh_as_little_as_serves() -> None:
    train, labels = latents(400, 0, classes=2)
    rng = np.random.default_rng(2)
    train[:, 0] = 0.3 * rng.standard_normal(400)  # style tells nothing now
    asking, asked = latents(200, 1, classes=2)
    asking[:, 0] = 0.3 * rng.standard_normal(200)
    affine, name, share = select_metric(
        LatentStatistics.from_latents(train), train, labels, asking, asked, prior=7
    )
    assert "classes" in name
    assert share == pytest.approx(1.0, abs=0.01)
    style, told = affine.matrix[:, :7], affine.matrix[:, 7:]
    weight = told.max()
    assert 0 < weight < 2
    np.testing.assert_array_equal(told[-2:], weight * np.eye(2))
    assert np.square((train[:, :7] - affine.offset[:7]) @ style.T).sum(1).mean() == pytest.approx(1, abs=0.05)
    assert not affine.offset[7:].any()


def test_without_classes_latents_are_whitened() -> None:
    train, _ = latents(50, 0)
    nobody = np.full(50, -1)
    affine, name, share = select_metric(
        LatentStatistics.from_latents(train), train, nobody, train, nobody, prior=7
    )
    assert (name, share) == ("whitened", None)
    assert affine.matrix.shape == (6, 7)


def test_images_without_a_class_have_no_say() -> None:
    train, labels = latents(200, 0)
    asking, asked = latents(100, 1)
    first = select_metric(LatentStatistics.from_latents(train), train, labels, asking, asked, prior=7)
    some = labels.copy()
    some[::7] = -1
    again = select_metric(LatentStatistics.from_latents(train), train, some, asking, asked, prior=7)
    assert again[1] == first[1]
