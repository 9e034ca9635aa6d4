"""Mixtures of Gaussians: what is drawn of one has its moments, what is fitted has those of the latents."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.bundle import GaussianMixture
from lookalike.encoder.bundle.latent_space import MAX_COVARIANCE_VALUES
from lookalike.encoder.errors import InvalidArgumentError

Floats = NDArray[np.float32]


def two() -> GaussianMixture:
    """A wide component at the origin and a slanted one far off."""
    return GaussianMixture.from_arrays(
        np.array([0.25, 0.75]),
        np.array([[0.0, 0.0], [100.0, -50.0]]),
        np.array([[[4.0, 0.0], [0.0, 0.0]], [[2.0, 1.0], [1.0, 2.0]]]),
    )


def test_what_is_drawn_has_the_weights_means_and_covariances() -> None:
    mixture = two()
    drawn = mixture.sample(np.random.default_rng(1), 100_000)
    assert drawn.dtype == np.float32
    assert drawn.shape == (100_000, 2)
    second = drawn[:, 0] > 50
    assert second.mean() == pytest.approx(0.75, abs=0.01)
    for k, rows in enumerate((drawn[~second], drawn[second])):
        np.testing.assert_allclose(rows.mean(axis=0), mixture.means[k], atol=0.06)
        np.testing.assert_allclose(np.cov(rows, rowvar=False), mixture.covariances[k], atol=0.12)
    assert (drawn[~second][:, 1] == 0).all()  # an axis without variance


def test_temperature_scales_the_deviations_and_0_gives_means() -> None:
    mixture = two()
    whole = mixture.sample(np.random.default_rng(2), 50)
    half = mixture.sample(np.random.default_rng(2), 50, 0.5)
    means = mixture.sample(np.random.default_rng(2), 50, 0)
    np.testing.assert_allclose(half - means, (whole - means) / 2, atol=1e-5)
    chosen = (means[:, 0] > 50).astype(int)
    np.testing.assert_array_equal(means, mixture.means[chosen])
    assert set(chosen) == {0, 1}


def test_a_seed_draws_the_same_and_more_begin_with_the_same() -> None:
    first = two().sample(np.random.default_rng(3), 40)
    np.testing.assert_array_equal(first, two().sample(np.random.default_rng(3), 40))
    np.testing.assert_allclose(two().sample(np.random.default_rng(3), 90)[:40], first, rtol=1e-6)
    assert (first != two().sample(np.random.default_rng(4), 40)).any()
    rng = np.random.default_rng(3)
    assert (two().sample(rng, 40) != two().sample(rng, 40)).any()
    assert two().sample(rng, 0).shape == (0, 2)


def test_a_deviate_is_carried_by_the_symmetric_root() -> None:
    # [[2, 1], [1, 2]] has variances 3 and 1 along (1, 1) and (1, -1).
    along = np.array([[1.0, 1.0], [1.0, -1.0]])
    placed = two().transform(along, np.array([1, 1]))
    np.testing.assert_allclose(placed - two().means[1], along * np.sqrt([[3.0], [1.0]]), rtol=1e-5)
    unit = GaussianMixture.from_arrays(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    np.testing.assert_allclose(unit.transform(along, np.zeros(2, int)), along, rtol=1e-6)


def test_one_gaussian_has_the_moments_of_the_latents() -> None:
    latents = np.array([[0, 0], [2, 0], [0, 4], [2, 4]], np.float32)
    fitted = GaussianMixture.gaussian(latents)
    np.testing.assert_array_equal(fitted.weights, [1])
    np.testing.assert_array_equal(fitted.means, [[1, 2]])
    np.testing.assert_allclose(fitted.covariances, [[[4 / 3, 0], [0, 16 / 3]]], rtol=1e-6)


def test_classes_worked_by_hand() -> None:
    # Scatters: class 0 [[8, 0], [0, 0]] of 2, class 1 nothing of 1, class 2 [[0, 0], [0, 2]] of 2; the last
    # picture has no label. Pooled over 5: diag(8/5, 2/5). Each class counts n, the pooled one Z = 2.
    latents = np.array([[-2, 0], [2, 0], [5, 5], [0, 9], [0, 7], [99, 99]], np.float32)
    fitted = GaussianMixture.by_class(latents, np.array([0, 0, 1, 2, 2, -1]), 3)
    np.testing.assert_allclose(fitted.weights, [0.4, 0.2, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(fitted.means, [[0, 0], [5, 5], [0, 8]])
    expected = [np.diag([11.2 / 4, 0.8 / 4]), np.diag([3.2 / 3, 0.8 / 3]), np.diag([3.2 / 4, 2.8 / 4])]
    np.testing.assert_allclose(fitted.covariances, expected, rtol=1e-6)


def test_classes_of_many_examples_keep_their_own_covariance() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2, dtype=np.uint8), 5_000)
    latents = rng.standard_normal((10_000, 3)).astype(np.float32) * np.where(labels, 3, 1)[:, None]
    fitted = GaussianMixture.by_class(latents.astype(np.float32), labels, 2)
    for k in range(2):
        own = np.cov(latents[labels == k], rowvar=False)
        np.testing.assert_allclose(fitted.covariances[k], own, atol=0.01)


@pytest.mark.parametrize(
    ("latents", "labels", "count", "reason"),
    [
        (np.zeros((3, 2)), np.array([0, 1]), 2, r"got \(3, 2\) and int64 \(2,\)"),
        (np.zeros((3, 2)), np.zeros(3), 1, r"whole labels \(N,\), got \(3, 2\) and float64"),
        (np.zeros(3), np.zeros(3, int), 1, r"latents \(N, Z\)"),
        (np.zeros((2, 2)), np.array([0, 2]), 2, "labels of 2 classes are below 2, the largest is 2"),
        (np.zeros((2, 2)), np.array([0, 2], np.uint8), 3, "every class needs an example, class 1 has none"),
        (np.zeros((2, 2)), np.array([-1, -1]), 1, "class 0 has none"),
        (np.zeros((0, 2)), np.zeros(0, int), 0, "labels of 0 classes"),
        (np.full((2, 2), np.nan), np.array([0, 0]), 1, "latents must be finite"),
    ],
)
def test_classes_that_cannot_be_fitted_are_refused(
    latents: NDArray[Any], labels: NDArray[Any], count: int, reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        GaussianMixture.by_class(latents.astype(np.float32), labels, count)


def changed(**parts: NDArray[Any]) -> GaussianMixture:
    mixture = two()
    return GaussianMixture(
        **{name: parts.get(name, getattr(mixture, name)) for name in GaussianMixture.__slots__}
    )


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"weights": np.array([0.5, 0.6], np.float32)}, "sum to 1, the smallest is 0.5, the sum 1.1"),
        ({"weights": np.array([-0.5, 1.5], np.float32)}, "the smallest is -0.5"),
        ({"weights": np.array([np.nan, 1], np.float32)}, "weights of a mixture must be finite"),
        ({"weights": np.array([0.25, 0.75])}, r"weights of a mixture must be float32 \(2,\).*got float64"),
        ({"weights": np.ones(1, np.float32)}, r"got float32 \(1,\)"),
        ({"means": np.zeros(2, np.float32)}, r"must be float32 \(0,\)"),
        ({"means": np.zeros((2, 3), np.float32)}, r"covariances of a mixture must be float32 \(2, 3, 3\)"),
        ({"means": np.full((2, 2), np.inf, np.float32)}, "means of a mixture must be finite"),
        ({"covariances": np.full((2, 2, 2), np.inf, np.float32)}, "covariances of a mixture must be finite"),
        (
            {"covariances": np.array([[[1, 1], [0, 1]]] * 2, np.float32)},
            "symmetric, these differ by 1",
        ),
        (
            {"covariances": np.array([[[-1, 0], [0, 1]]] * 2, np.float32)},
            "0 or more, the smallest is -1",
        ),
    ],
)
def test_what_is_no_mixture_is_refused(parts: dict[str, NDArray[Any]], reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        changed(**parts)


def test_a_mixture_has_a_largest_size() -> None:
    count = MAX_COVARIANCE_VALUES // 100 + 1
    covariances = np.broadcast_to(np.eye(10, dtype=np.float32), (count, 10, 10))
    weights = np.full(count, 1 / count, np.float32)
    with pytest.raises(InvalidArgumentError, match="use fewer components"):
        GaussianMixture(weights, np.zeros((count, 10), np.float32), covariances)


def test_rounding_of_another_library_is_put_right_and_errors_are_not() -> None:
    slanted = np.array([[[2.0, 1.0 + 1e-9], [1.0, 2.0]]])
    mixture = GaussianMixture.from_arrays(np.array([1 + 1e-9]), np.zeros((1, 2)), slanted)
    np.testing.assert_array_equal(mixture.covariances, mixture.covariances.swapaxes(1, 2))
    with pytest.raises(InvalidArgumentError, match="symmetric"):
        GaussianMixture.from_arrays(np.ones(1), np.zeros((1, 2)), np.array([[[2.0, 1.0], [0.0, 2.0]]]))
    with pytest.raises(InvalidArgumentError, match="sum to 1"):
        GaussianMixture.from_arrays(np.array([0.9]), np.zeros((1, 2)), slanted)
    with pytest.raises(InvalidArgumentError, match="must be finite"):
        GaussianMixture.from_arrays(np.ones(1), np.full((1, 2), 1e300), slanted)


@pytest.mark.parametrize("temperature", [-0.1, np.nan, np.inf])
def test_temperatures_that_cannot_be_are_refused(temperature: float) -> None:
    with pytest.raises(InvalidArgumentError, match="a temperature must be 0 or more"):
        two().sample(np.random.default_rng(0), 1, temperature)
    with pytest.raises(InvalidArgumentError, match="must be 0 or more, not -1"):
        two().sample(np.random.default_rng(0), -1)
