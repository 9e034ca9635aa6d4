"""The autoencoder starts as PCA, is what its spec says, and its BatchNorm learns without statistics.

Legend: N images, C channels, S side, P = C*S*S values, D latent size, F features.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.trainer.config import AESpec
from lookalike.trainer.models import AE, principal_axes

HIDDEN = [(12,), (40,), (20, 14), (14, 20), (24, 12, 16)]


def low_rank(count: int, rank: int, *, channels: int = 3, seed: int = 0) -> Tensor:
    """Images (N, C, 8, 8) in [0, 1] that vary along ``rank`` directions, each less than the one before."""
    source = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(channels * 64, rank, generator=source)).Q.T
    weights = torch.randn(count, rank, generator=source) * torch.logspace(0, 1 - rank, rank, base=1 / 0.6)
    mean = torch.rand(channels * 64, generator=source) * 0.2 + 0.4
    images: Tensor = mean + 0.3 * weights @ basis
    return images.reshape(count, channels, 8, 8)


def projected(images: Tensor, count: int) -> Tensor:
    """What PCA keeps, by a full SVD in float64."""
    flat = images.flatten(1).double().numpy()
    mean = flat.mean(0)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:count]
    return torch.from_numpy((flat - mean) @ axes.T @ axes + mean).float().reshape(images.shape)


def spec(**changes: Any) -> AESpec:
    values: dict[str, Any] = {"size": 8, "channels": 3, "latent": 6, "hidden": (12,)}
    return AESpec(**(values | changes))


def norms(network: nn.Module) -> list[nn.BatchNorm1d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d)]


@pytest.mark.parametrize("hidden", HIDDEN)
@torch.no_grad()
def test_start_gives_back_images_of_the_latents_rank(hidden: tuple[int, ...]) -> None:
    images = low_rank(60, 6)
    network = AE.from_pca(spec(hidden=hidden), images).eval()
    torch.testing.assert_close(network(images), images, atol=1e-4, rtol=0)
    unseen = low_rank(60, 6)[:5] * 0.5 + low_rank(60, 6)[5:10] * 0.5
    torch.testing.assert_close(network(unseen), unseen, atol=1e-4, rtol=0)


@pytest.mark.parametrize("hidden", HIDDEN)
@torch.no_grad()
def test_start_does_what_pca_of_the_latents_size_does(hidden: tuple[int, ...]) -> None:
    images = low_rank(60, 20)
    network = AE.from_pca(spec(latent=5, hidden=hidden), images).eval()
    torch.testing.assert_close(network(images), projected(images, 5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("hidden", HIDDEN)
@torch.no_grad()
def test_latents_start_with_unit_variance_and_without_correlation(hidden: tuple[int, ...]) -> None:
    images = low_rank(60, 20)
    latents = AE.from_pca(spec(hidden=hidden), images).eval().encoder(images)
    assert latents.shape == (60, 6)
    torch.testing.assert_close(latents.T @ latents / 60, torch.eye(6), atol=2e-3, rtol=0)
    torch.testing.assert_close(latents.mean(0), torch.zeros(6), atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 3])
@torch.no_grad()
def test_fewer_images_than_latents_are_given_back_exactly(count: int) -> None:
    images = low_rank(count, 6)
    network = AE.from_pca(spec(hidden=(16, 12)), images).eval()
    torch.testing.assert_close(network(images), images, atol=1e-4, rtol=0)
    assert all(bool(values.isfinite().all()) for values in network.state_dict().values())


@torch.no_grad()
def test_latent_larger_than_the_image_starts_too() -> None:
    images = low_rank(200, 64, channels=1)
    network = AE.from_pca(spec(channels=1, latent=70, hidden=(140,)), images).eval()
    torch.testing.assert_close(network(images), images, atol=1e-4, rtol=0)


def test_grey_images_pass() -> None:
    images = low_rank(20, 6, channels=1)
    network = AE.from_pca(spec(channels=1), images).eval()
    assert network.spec.values == 64
    torch.testing.assert_close(network(images).detach(), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_shapes_there_and_back(hidden: tuple[int, ...]) -> None:
    network = AE(spec(hidden=hidden))
    latents = network.encoder(torch.rand(7, 3, 8, 8))
    assert latents.shape == (7, 6)
    assert network.decoder(latents).shape == network(torch.rand(7, 3, 8, 8)).shape == (7, 3, 8, 8)
    assert len(norms(network)) == 2 * len(hidden)
    assert [layer.num_features for layer in norms(network)] == [*hidden, *reversed(hidden)]


def test_parameters_are_counted_by_hand() -> None:
    network = AE(AESpec(size=8, channels=1, latent=2, hidden=(6, 4)))
    down = (64 * 6 + 6) + 12 + (6 * 4 + 4) + 8 + (4 * 2 + 2)  # Linear, BatchNorm, Linear, BatchNorm, Linear
    up = (2 * 4 + 4) + 8 + (4 * 6 + 6) + 12 + (6 * 64 + 64)
    assert sum(weights.numel() for weights in network.parameters()) == down + up


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"latent": 0}, "latent must be at least 1"),
        ({"latent": -3}, "latent must be at least 1"),
        ({"hidden": ()}, "one or more even numbers"),
        ({"hidden": (13,)}, "one or more even numbers"),
        ({"hidden": (10,)}, "twice the latent's size"),
        ({"hidden": (64, 10)}, "twice the latent's size"),
        ({"hidden": (-12,)}, "twice the latent's size"),
    ],
)
def test_widths_that_cannot_be_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rule):
        spec(**changes)


def test_spec_becomes_json_values() -> None:
    assert spec(hidden=(16, 12)).to_json() == {"size": 8, "channels": 3, "latent": 6, "hidden": [16, 12]}


@pytest.mark.trains
def test_batchnorm_keeps_its_statistics_in_training_yet_its_weights_learn() -> None:
    images = low_rank(40, 12)
    network = AE.from_pca(spec(hidden=(16, 12)), images).train()
    assert network.training
    assert network.encoder.training
    before = [{name: value.clone() for name, value in layer.state_dict().items()} for layer in norms(network)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    (network(images) - images).square().mean().backward()
    optimizer.step()
    for layer, state in zip(norms(network), before, strict=True):
        assert not layer.training
        after = layer.state_dict()
        assert torch.equal(after["running_mean"], state["running_mean"])
        assert torch.equal(after["running_var"], state["running_var"])
        assert not torch.equal(after["weight"], state["weight"])
        assert not torch.equal(after["bias"], state["bias"])


@torch.no_grad()
def test_batch_has_no_influence_on_its_images_in_training() -> None:
    images = low_rank(40, 12)
    network = AE.from_pca(spec(), images).train()
    torch.testing.assert_close(network(images)[:1], network(images[:1]), atol=1e-5, rtol=0)


def test_same_seed_gives_the_same_start_and_another_seed_other_free_features() -> None:
    images = low_rank(40, 20)
    one, again, other = (
        AE.from_pca(spec(hidden=(30,)), images, seed=seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["decoder.0.weight"], other["decoder.0.weight"])


@pytest.mark.parametrize("hidden", HIDDEN)
@torch.no_grad()
def test_every_feature_is_alive_at_the_start(hidden: tuple[int, ...]) -> None:
    # One that ReLU cuts off for every image would never get a gradient.
    features = images = low_rank(200, 40)
    network = AE.from_pca(spec(hidden=hidden), images).eval()
    for layer in [*network.encoder, *network.decoder]:
        features = layer(features)
        if isinstance(layer, nn.ReLU):
            assert (features > 0).any(dim=0).all()


@pytest.mark.parametrize("shape", [(200, 120), (60, 300)])
def test_principal_axes_are_those_of_a_full_svd(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((side, min(shape))))[0] for side in shape)
    flat = (left * 0.9 ** np.arange(min(shape))) @ right.T + 0.5
    mean, axes, spread = principal_axes(torch.from_numpy(flat).float(), 10)
    _, singular, expected = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    np.testing.assert_allclose(mean.numpy(), flat.mean(0), atol=1e-6)
    np.testing.assert_allclose(spread.numpy(), singular[:10] / shape[0] ** 0.5, rtol=1e-4)
    np.testing.assert_allclose(np.abs(axes.numpy() @ expected[:10].T), np.eye(10), atol=2e-3)


def test_axes_that_the_data_do_not_have_are_zero() -> None:
    images = low_rank(40, 3).flatten(1)
    _, axes, spread = principal_axes(images, 8)
    torch.testing.assert_close(axes[:3] @ axes[:3].T, torch.eye(3), atol=1e-4, rtol=0)
    assert (axes[3:] == 0).all()
    assert (spread[3:] == 1).all()


def test_principal_axes_leave_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    principal_axes(low_rank(20, 3).flatten(1), 3, seed=1)
    assert torch.equal(torch.rand(3), expected)
