"""Latents turned and scaled: all together as N(0, I) says, every picture as before.

Legend: N images, Z latent size.
"""

from typing import Any

import numpy as np
import pytest
import torch

from lookalike.trainer.config import VAESpec
from lookalike.trainer.data import to_floats
from lookalike.trainer.models import CVAE, VAE
from lookalike.trainer.publish.vae import whiten_posterior, whitening_map
from tests.fixtures.class_images import shapes

Z = 3


def latents(count: int = 500) -> tuple[Any, Any]:
    """Means that depend on each other, float32 (N, Z), and deviations."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((count, Z)) @ [[2, 1, 0], [0, 0.5, 0.3], [0, 0, 0.1]] + [1, -2, 0]
    return means.astype(np.float32), rng.uniform(0.2, 1, (count, Z)).astype(np.float32)


def test_one_number_is_scaled_as_by_hand() -> None:
    means, deviations = np.array([[1], [5]], np.float32), np.full((2, 1), np.sqrt(5), np.float32)
    center, matrix, inverse = whitening_map(means, deviations)
    assert center.tolist() == [3]  # variance 4 of the means, 5 of each: 9 in all
    np.testing.assert_allclose(np.abs(matrix), [[1 / 3]], rtol=1e-6)
    np.testing.assert_allclose(np.abs(inverse), [[3]], rtol=1e-6)


def test_all_latents_become_as_the_prior_says_and_each_stays_diagonal() -> None:
    means, deviations = latents()
    center, matrix, inverse = whitening_map(means, deviations)
    within = np.diag(np.square(deviations, dtype=np.float64).mean(0))
    whole = np.cov(means.T.astype(np.float64), bias=True) + within
    np.testing.assert_allclose(matrix @ whole @ matrix.T, np.eye(Z), atol=1e-6)
    np.testing.assert_allclose(((means - center) @ matrix.T).mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(matrix @ inverse, np.eye(Z), atol=1e-9)
    each = matrix @ within @ matrix.T
    np.testing.assert_allclose(each, np.diag(np.diag(each)), atol=1e-6)
    assert (np.diff(np.diag(each)) > 0).all()  # what pictures tell most comes first


def test_latent_that_no_picture_moves_stays_that_of_the_prior() -> None:
    means, deviations = np.zeros((4, 2), np.float32), np.ones((4, 2), np.float32)
    means[:, 0] = (1, -1, 1, -1)
    _, matrix, _ = whitening_map(means, deviations)
    np.testing.assert_allclose(np.abs(matrix), [[np.sqrt(0.5), 0], [0, 1]], atol=1e-6)


@pytest.mark.parametrize("classes", [0, 3])
def test_network_gives_back_the_same_pictures_and_latents_of_the_prior(classes: int) -> None:
    torch.manual_seed(0)
    spec = VAESpec(size=16, channels=1, latent=Z, hidden=8, down=(4, 4), up=(4, 4), classes=classes)
    network = (CVAE(spec) if classes else VAE(spec)).train()
    images = to_floats(shapes(20))
    for _ in range(20):
        network(images)  # BatchNorm's statistics
    network.eval()
    with torch.no_grad():
        mean, log_variance, _ = network.encoder(images)
        before = network(images)
        whiten_posterior(network, mean.numpy(), (log_variance / 2).exp().numpy())
        aligned, log_variance, _ = network.encoder(images)
        after = network(images)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(aligned.mean(0), torch.zeros(Z), atol=1e-4, rtol=0)
    whole = torch.cov(aligned.T, correction=0) + log_variance.exp().mean(0).diag()
    torch.testing.assert_close(whole, torch.eye(Z), atol=1e-3, rtol=0)
