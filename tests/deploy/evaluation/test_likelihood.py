"""Bounds on hand-worked cases, and beside models whose likelihood is known in closed form."""

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.deploy.evaluation.likelihood import (
    CLIP,
    LogLikelihood,
    Proposal,
    bernoulli,
    bounds,
    divergence,
    log_bernoulli,
    log_normal,
)
from lookalike.encoder.errors import InvalidArgumentError

Doubles = NDArray[np.float64]
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_divergence_of_gaussians_worked_out_by_hand() -> None:
    # KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - ln s^2) / 2
    assert divergence(floats(0, 0), floats(1, 1)) == 0
    assert divergence(floats(1), floats(1)) == 0.5
    assert divergence(floats(0), floats(2)) == pytest.approx((3 - math.log(4)) / 2)
    assert divergence(floats(1, 0), floats(1, 2)) == pytest.approx(0.5 + (3 - math.log(4)) / 2)
    assert divergence(np.zeros((3, 2)), np.ones((3, 2))).shape == (3,)


def test_densities_worked_out_by_hand() -> None:
    assert log_normal(floats(0), floats(0), floats(1)) == pytest.approx(-HALF_LOG_TAU)
    # ((3 - 1) / 2)^2 / 2 = 1/2, and ln 2 for the width
    assert log_normal(floats(3, 0), floats(1, 0), floats(2, 1)) == pytest.approx(
        -0.5 - math.log(2) - 2 * HALF_LOG_TAU
    )


def test_pixels_worked_out_by_hand() -> None:
    on = np.array([[True, False, True]] * 2)
    chances = np.array([[0.5, 0.25, 0.8], [1.0, 1.0, 0.0]], np.float32)
    kept = chances.copy()
    known, sure = log_bernoulli(on, chances)
    assert known == pytest.approx(math.log(0.5 * 0.75 * 0.8))
    assert sure == pytest.approx(math.log1p(-CLIP) + 2 * math.log(CLIP))  # right once, wrong twice
    np.testing.assert_array_equal(chances, kept)


def test_clipped_pixels_are_still_a_distribution_over_all_pictures() -> None:
    every = np.array([[bits >> place & 1 for place in range(4)] for bits in range(16)], np.bool_)
    chances = np.array([0.0, 1.0, 0.3, 1 - 1e-9], np.float32)
    total = np.exp(log_bernoulli(every, np.tile(chances, (16, 1)))).sum()
    assert total == pytest.approx(1, abs=1e-6)


def linear(count: int, *, seed: int = 0) -> tuple[LogLikelihood, Doubles, Doubles, Doubles]:
    """x = W z + b + noise of deviation 0.5: its likelihood, log p(x), and mean and deviation of p(z|x).

    The columns of W are orthogonal, so that the posterior is a diagonal Gaussian.
    """
    rng = np.random.default_rng(seed)
    w = np.array([[1.0, 0], [1, 0], [0, 2], [0, 0]])
    b, noise = np.array([0.5, -1, 0, 2]), 0.5
    x = rng.normal(size=(count, 2)) @ w.T + b + noise * rng.normal(size=(count, 4))
    covariance = w @ w.T + noise**2 * np.eye(4)
    off = x - b
    exact = -0.5 * (
        np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off)
        + np.linalg.slogdet(2 * math.pi * covariance)[1]
    )
    precision = 1 + (w**2).sum(0) / noise**2
    mean = off @ w / noise**2 / precision

    def log_likelihood(latents: NDArray[np.float32], rows: NDArray[np.int64]) -> Doubles:
        return log_normal(x[rows], latents.astype(np.float64) @ w.T + b, np.full(4, noise))

    return log_likelihood, exact, mean, np.tile(1 / np.sqrt(precision), (count, 1))


def test_with_the_true_posterior_every_bound_is_the_likelihood() -> None:
    likelihood, exact, mean, deviation = linear(6)
    proposal = Proposal(mean.astype(np.float32), deviation.astype(np.float32))
    found = bounds(proposal, likelihood, samples=7)
    np.testing.assert_allclose(found.importance, exact, atol=1e-4)  # every weight is p(x)
    np.testing.assert_allclose(found.sampled_elbo, exact, atol=1e-4)
    many = bounds(proposal, likelihood, samples=20_000)
    np.testing.assert_allclose(many.elbo, exact, atol=0.05)  # the divergence is exact, the rest is drawn


def test_with_another_posterior_the_bound_rises_to_the_likelihood() -> None:
    likelihood, exact, mean, deviation = linear(400)
    proposal = Proposal((mean + 0.2).astype(np.float32), (1.5 * deviation).astype(np.float32))
    by_samples = [bounds(proposal, likelihood, samples=k) for k in (1, 5, 50, 2000)]
    means = [found.importance.mean() for found in by_samples]
    assert all(after > before for before, after in pairwise(means))
    assert means[0] < exact.mean() - 0.3
    np.testing.assert_allclose(by_samples[-1].importance, exact, atol=0.15)
    assert means[-1] == pytest.approx(exact.mean(), abs=0.01)
    # KL(q || p(z|x)) is what the ELBO lacks: two dimensions, each KL of known Gaussians.
    lacking = 0.5 * ((0.2 / deviation) ** 2 + 1.5**2 - 1 - math.log(1.5**2)).sum(1)
    np.testing.assert_allclose(by_samples[-1].elbo.mean(), (exact - lacking).mean(), atol=0.02)
    assert by_samples[-1].sampled_elbo.mean() == pytest.approx(by_samples[-1].elbo.mean(), abs=0.02)


def test_one_sample_is_the_elbo_on_average() -> None:
    likelihood, _, mean, deviation = linear(3)
    proposal = Proposal((mean + 0.3).astype(np.float32), deviation.astype(np.float32))
    singles = [bounds(proposal, likelihood, samples=1, seed=seed) for seed in range(2000)]
    for single in singles[:3]:
        np.testing.assert_array_equal(single.importance, single.sampled_elbo)
    drawn = np.mean([single.importance for single in singles], axis=0)
    many = bounds(proposal, likelihood, samples=20_000, seed=9_999)
    np.testing.assert_allclose(drawn, many.elbo, atol=0.08)


def test_classes_are_summed_over_exactly() -> None:
    # p(x|z, y) does not look at z: log p(x) = log sum_y p(y) t[x, y].
    table = np.array([[0.5, 0.1, 0.0001], [0.2, 0.3, 0.6]])
    prior = np.array([0.5, 0.3, 0.2])
    exact = np.log(table @ prior)
    posterior = table * prior / (table @ prior)[:, None]

    def log_likelihood(latents: NDArray[np.float32], rows: NDArray[np.int64]) -> Doubles:
        assert (latents[:, 2:].sum(1) == 1).all()
        chosen: Doubles = np.log(table[rows, latents[:, 2:].argmax(1)])
        return chosen

    mean, deviation = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    tight = bounds(Proposal(mean, deviation, posterior, prior), log_likelihood, samples=1)
    np.testing.assert_allclose(tight.importance, exact, atol=1e-6)
    np.testing.assert_allclose(tight.sampled_elbo, exact, atol=1e-6)
    even = np.full((2, 3), 1 / 3)
    many = bounds(Proposal(mean, deviation, even, prior), log_likelihood, samples=50_000)
    np.testing.assert_allclose(many.importance, exact, atol=0.02)
    np.testing.assert_allclose(
        many.elbo, (np.log(table) - np.log(even / prior)).mean(1), atol=0.05
    )  # each class a third of the time
    given = Proposal(mean, deviation, np.eye(3)[[1, 2]])
    np.testing.assert_allclose(
        bounds(given, log_likelihood, samples=2).importance, np.log(table[[0, 1], [1, 2]]), atol=1e-6
    )


def test_neither_pieces_nor_company_change_what_is_drawn() -> None:
    likelihood, _, mean, deviation = linear(5)
    classes = np.tile(np.array([0.2, 0.8]), (5, 1))

    def of(rows: slice, together: int) -> Doubles:
        proposal = Proposal(
            (mean[rows] + 0.1).astype(np.float32), deviation[rows].astype(np.float32), classes[rows]
        )
        found = bounds(
            proposal, lambda z, rows: likelihood(z[:, :2], rows), samples=100, batch_rows=together, seed=3
        )
        return found.importance

    whole = of(slice(None), 100_000)
    for together in (1, 7, 100, 350):
        np.testing.assert_allclose(of(slice(None), together), whole, rtol=1e-9)
    np.testing.assert_allclose(of(slice(0, 2), 64), whole[:2], rtol=1e-9)


def test_the_samples_held_are_bounded_and_counted() -> None:
    likelihood, _, mean, deviation = linear(5)
    sizes: list[int] = []
    told: list[int] = []

    def watched(latents: NDArray[np.float32], rows: NDArray[np.int64]) -> Doubles:
        sizes.append(len(latents))
        return likelihood(latents, rows)

    proposal = Proposal(mean.astype(np.float32), deviation.astype(np.float32))
    bounds(proposal, watched, samples=30, batch_rows=64, on_done=told.append)
    assert max(sizes) <= 64
    assert sum(told) == sum(sizes) == 150
    bounds(proposal, watched, samples=1000, batch_rows=64)
    assert max(sizes) <= 64


def test_pictures_are_measured_through_a_decoder() -> None:
    images = np.array([[[[True]], [[False]]], [[[False]], [[False]]]])  # (2, 2, 1, 1)

    def decode(latents: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(latents), 2, 1, 1), 0.25, np.float32)

    # The decoder does not look at z: with the prior as posterior the bound is exact.
    proposal = Proposal(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))
    found = bounds(proposal, bernoulli(images, decode), samples=4)
    np.testing.assert_allclose(found.importance, [math.log(0.25 * 0.75), 2 * math.log(0.75)], rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "deviation", "classes"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), None),
        (np.zeros((2, 3)), np.ones((3, 2)), None),
        (np.full((2, 3), np.nan), np.ones((2, 3)), None),
        (np.zeros((2, 3)), np.ones((2, 3)), np.ones((2, 2))),
        (np.zeros((2, 3)), np.ones((2, 3)), np.eye(3)),
    ],
)
def test_what_is_no_posterior_is_refused(mean: Doubles, deviation: Doubles, classes: Doubles | None) -> None:
    with pytest.raises(InvalidArgumentError, match=r"a posterior is|class probabilities"):
        Proposal(mean.astype(np.float32), deviation.astype(np.float32), classes)


def test_no_samples_are_refused() -> None:
    likelihood, _, mean, deviation = linear(1)
    with pytest.raises(InvalidArgumentError, match="1 sample or more, got 0"):
        bounds(Proposal(mean.astype(np.float32), deviation.astype(np.float32)), likelihood, samples=0)
