"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.metrics import (
    frechet_distance,
    mean_distance,
    precision_recall,
    psnr,
    psnr_from_mse,
    roc_auc,
)


def cloud(count: int, *, seed: int = 0, spread: float = 1.0, at: float = 0.0) -> NDArray[np.float64]:
    points: NDArray[np.float64] = spread * np.random.default_rng(seed).normal(size=(count, 3)) + at
    return points


def exactly(mean: list[float], deviation: list[float]) -> NDArray[np.float64]:
    """Points whose mean and covariance (of n - 1) are exactly these: corners of a box, scaled."""
    corners = np.array([[1 if bits >> place & 1 else -1 for place in range(3)] for bits in range(8)])
    points: NDArray[np.float64] = corners * np.array(deviation) * math.sqrt(7 / 8) + np.array(mean)
    return points


def test_psnr_of_known_errors() -> None:
    black = np.zeros((2, 3), np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 1) == pytest.approx(20 * math.log10(255))
    assert psnr_from_mse(0.01) == pytest.approx(20)


def test_roc_auc_counts_ties_half() -> None:
    assert roc_auc(np.array([3.0, 1.0, 1.0, 0.0]), np.array([True, True, False, False])) == 3.5 / 4


def test_frechet_distance_of_known_gaussians() -> None:
    # Without correlations: |m - m'|^2 + sum of (s - s')^2.
    one = exactly([0, 0, 0], [1, 2, 3])
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, exactly([3, 4, 0], [1, 2, 3])) == pytest.approx(25)
    assert frechet_distance(one, exactly([0, 0, 1], [2, 2, 1])) == pytest.approx(1 + 1 + 0 + 4)
    flat = one[:, :1]
    assert frechet_distance(flat, 2 * flat) == pytest.approx(1)


def test_frechet_distance_minds_how_features_go_together() -> None:
    # Covariances [[1, r], [r, 1]] and [[1, -r], [-r, 1]] commute: eigenvalues 1 + r and 1 - r change places,
    # so 2 (sqrt(1 + r) - sqrt(1 - r))^2.
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(1000, 2))
    plain -= plain.mean(0)
    plain = plain @ np.linalg.inv(np.linalg.cholesky(np.cov(plain.T))).T  # covariance I
    root = np.linalg.cholesky(np.array([[1, 0.6], [0.6, 1]]))
    one = plain @ root.T
    other = one * [1, -1]
    hand = 2 * (math.sqrt(1.6) - math.sqrt(0.4)) ** 2
    assert frechet_distance(one, other) == pytest.approx(hand)
    assert frechet_distance(other, one) == pytest.approx(hand)


def test_precision_and_recall_on_a_line() -> None:
    # k = 1: each of the real points 0, 1, 2 reaches 1, and 10 reaches 8; of the drawn ones 0.5 reaches 2,
    # 2.5 reaches 2 and 30 reaches 27.5.
    real = np.array([[0.0], [1], [2], [10]])
    drawn = np.array([[0.5], [2.5], [30]])
    precision, recall = precision_recall(real, drawn, k=1)
    assert precision == pytest.approx(2 / 3)  # 30 is further from 10 than 8
    assert recall == pytest.approx(4 / 4)  # 10 is within 27.5 of 30
    far = np.array([[100.0], [101], [102]])
    assert precision_recall(real, far, k=1) == (0, 0)
    assert precision_recall(real, real + 1e-6, k=3) == (1, 1)


def test_sameness_costs_recall_and_wildness_costs_precision() -> None:
    real = cloud(1500)
    precision, recall = precision_recall(real, cloud(1500, seed=1, spread=0.3))
    assert precision > 0.95
    assert recall < 0.3
    precision, recall = precision_recall(real, cloud(1500, seed=1, spread=3))
    assert precision < 0.5
    assert recall > 0.8


def test_precision_does_not_mind_where_the_cloud_is() -> None:
    real, drawn = cloud(300), cloud(200, seed=1, spread=0.8)
    moved = precision_recall((real + 1e4).astype(np.float32), (drawn + 1e4).astype(np.float32))
    assert moved == pytest.approx(precision_recall(real, drawn), abs=0.05)


def test_mean_distance_worked_out_by_hand() -> None:
    assert mean_distance(np.array([[0.0, 0], [3, 4]])) == pytest.approx(5)
    assert mean_distance(np.array([[0.0], [1], [3]])) == pytest.approx(2)  # 1, 2 and 3
    assert mean_distance(np.ones((5, 2))) == 0
    many = cloud(1200)
    pairs = np.linalg.norm(many[:, None] - many[None], axis=2)
    assert mean_distance(many) == pytest.approx(pairs.sum() / (1200 * 1199))


def test_clouds_that_are_too_small_are_refused() -> None:
    one, two = np.zeros((1, 2)), np.zeros((2, 2))
    with pytest.raises(InvalidArgumentError, match="at least two points, got 1 and 2"):
        frechet_distance(one, two)
    with pytest.raises(InvalidArgumentError, match="got k=3 for 2 and 2"):
        precision_recall(two, two)
    with pytest.raises(InvalidArgumentError, match="at least two points, got 1"):
        mean_distance(one)
