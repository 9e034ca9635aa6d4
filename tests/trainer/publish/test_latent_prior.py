"""Mixtures fitted to latents: seeded, and where the latents are."""

import numpy as np
import pytest

from lookalike.encoder.bundle import GaussianMixture
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.publish.latent_prior import fit_latent_prior


def clouds(
    count: int = 600,
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    centres = np.array([[4, 0], [-4, 0], [0, 4]])
    return (centres[labels] + 0.3 * rng.standard_normal((count, 2))).astype(np.float32), labels


def test_mixture_puts_its_mass_where_the_latents_are() -> None:
    latents, _ = clouds()
    sampling = fit_latent_prior(latents)
    assert sampling.by_class is None
    assert sampling.mixture is not None
    drawn = sampling.mixture.sample(np.random.default_rng(0), 300)
    nearest = np.linalg.norm(drawn[:, None] - latents[None], axis=2).min(1)
    assert np.quantile(nearest, 0.95) < 0.3


def test_gaussian_of_each_class_lies_on_it() -> None:
    latents, labels = clouds()
    by_class = fit_latent_prior(latents, labels, 3).by_class
    assert by_class is not None
    np.testing.assert_allclose(by_class.means, [[4, 0], [-4, 0], [0, 4]], atol=0.1)
    assert by_class.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_mixtures_are_rounded_where_sixteen_bits_reach(scale: float) -> None:
    latents, labels = clouds()
    by_class = fit_latent_prior(scale * latents, labels, 3).by_class
    assert by_class is not None
    exact = GaussianMixture.by_class(scale * latents, labels, 3)
    np.testing.assert_allclose(by_class.covariances, exact.covariances, rtol=1e-3)
    if scale == 1:
        np.testing.assert_array_equal(by_class.means, exact.means.astype(np.float16))
    else:
        np.testing.assert_array_equal(by_class.means, exact.means)


def test_fit_is_seeded() -> None:
    latents, _ = clouds()
    one, again = (fit_latent_prior(latents, seed=3).mixture for _ in range(2))
    assert one is not None
    assert again is not None
    np.testing.assert_array_equal(one.means, again.means)


@pytest.mark.parametrize("count", [2, 5, 50])
def test_few_latents_have_few_components(count: int) -> None:
    latents, _ = clouds(count)
    mixture = fit_latent_prior(latents).mixture
    assert mixture is not None
    assert mixture.components == max(1, count // 40)


def test_collapsed_number_keeps_the_mixture_proper() -> None:
    latents, _ = clouds()
    mixture = fit_latent_prior(np.concatenate([latents, np.zeros((600, 1), np.float32)], 1)).mixture
    assert mixture is not None
    assert np.abs(mixture.sample(np.random.default_rng(0), 100)[:, 2]).max() < 1


def test_class_without_example_is_refused() -> None:
    latents, labels = clouds()
    with pytest.raises(InvalidArgumentError, match="every class needs an example"):
        fit_latent_prior(latents, labels, 4)
