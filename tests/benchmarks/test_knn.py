"""Neighbours worked out by hand, and through a real store."""

import numpy as np
import pytest

from lookalike.deploy.evaluation import MnistData
from lookalike.deploy.evaluation.data import DigitImages
from lookalike.deploy.evaluation.retrieval import majority_vote
from lookalike.encoder.datasets import MNIST, Split
from lookalike.encoder.errors import InvalidArgumentError
from tests.benchmarks.knn import baseline_knn, nearest

ROWS = np.array([[1.0, 0], [3, 0.3], [0, 1], [0, 5]], np.float32)


def digits(train: DigitImages, test: DigitImages) -> MnistData:
    return MnistData("mnist", tuple("0123456789"), train, test)


def real(mnist: MNIST, split: Split, count: int) -> DigitImages:
    whole = DigitImages(mnist.images(split)[..., None], mnist.labels(split).astype(np.int64))
    return whole.sample(count, seed=0)


def test_nearest_worked_out_by_hand() -> None:
    asked = np.array([[2.9, 0], [0, 2.5]], np.float32)
    (found,) = nearest(ROWS, asked, k=2, metric="Euclid")
    np.testing.assert_array_equal(found, [[1, 0], [2, 3]])
    (found,) = nearest(ROWS, asked, k=2, metric="cosine")
    np.testing.assert_array_equal(found[0], [0, 1])  # [3, 0.3] is nearer, and turned away
    assert set(found[1]) == {2, 3}
    with pytest.raises(ValueError, match="n_neighbors = 5"):
        list(nearest(ROWS, asked, k=5, metric="cosine"))


def test_nearest_is_the_sorted_distance_of_many() -> None:
    rng = np.random.default_rng(0)
    rows, asked = rng.normal(size=(300, 4)).astype(np.float32), rng.normal(size=(700, 4)).astype(np.float32)
    found = np.concatenate([*nearest(rows, asked, k=7, metric="Euclid")])
    distances = np.linalg.norm(asked[:, None] - rows[None], axis=2)
    np.testing.assert_array_equal(found, np.argsort(distances, axis=1)[:, :7])


def test_votes() -> None:
    assert majority_vote(["a", "b", "b"]) == "b"
    assert majority_vote([3, 1, 1, 3, 2]) == 3  # of equals the nearest
    assert majority_vote([]) is None


def test_some_are_drawn_in_order_and_the_same_again() -> None:
    whole = DigitImages(np.zeros((50, 4, 4, 1), np.uint8), np.arange(50))
    some = whole.sample(20, seed=1)
    assert len(some) == 20
    assert (np.diff(some.labels) > 0).all()
    np.testing.assert_array_equal(some.labels, whole.sample(20, seed=1).labels)
    assert (some.labels != whole.sample(20, seed=2).labels).any()
    assert whole.sample(50, seed=1) is whole
    with pytest.raises(InvalidArgumentError, match="uint8"):
        DigitImages(np.zeros((50, 4, 5, 1), np.uint8), np.arange(50))


@pytest.mark.mnist
def test_baselines_of_real_digits(mnist: MNIST) -> None:
    train, test = real(mnist, "train", 2000), real(mnist, "test", 300)
    found = baseline_knn(digits(train, test), test, [32, 32, 900])
    assert [(row.name, row.metric, row.numbers) for row in found] == [
        ("raw pixels", "Euclid", 784), ("raw pixels", "cosine", 784),
        ("PCA-32", "Euclid", 32), ("PCA-32", "cosine", 32),
    ]  # fmt: skip
    assert all(0.88 < row.accuracy < 0.97 for row in found)
    assert all((row.stored, row.queries, row.k, row.through) == (2000, 300, 5, "numpy") for row in found)
    assert all(0.005 < row.standard_error < 0.02 for row in found)
