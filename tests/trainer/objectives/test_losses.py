"""Every loss and PSNR against values worked by hand.

The bound is tried on a model whose likelihood is known: z ~ N(0, 1), x given z ~ N(W z, D^2), so x ~
N(0, W^2 + D^2), and the posterior is N(W x / (W^2 + D^2), D^2 / (W^2 + D^2)).
"""

import math

import pytest
import torch
from torch import Tensor, distributions
from torch.distributions import Normal

from lookalike.encoder.metrics import psnr_from_mse
from lookalike.trainer.objectives import denoising_loss, estimation_loss, mean_squared_error
from lookalike.trainer.objectives.losses import (
    bernoulli_nll,
    free_bits,
    gaussian_nll,
    importance_bound,
    kl_divergence,
    log_importance_weights,
)

W, D = 1.5, 0.5


def test_mean_squared_error_is_the_mean_over_all_values() -> None:
    image, target = torch.tensor([[0.0, 1.0], [0.5, 0.25]]), torch.tensor([[1.0, 1.0], [0.0, 0.25]])
    assert mean_squared_error(image, target).item() == (1 + 0 + 0.25 + 0) / 4


def test_mean_squared_error_passes_the_gradient_on() -> None:
    image = torch.tensor([0.5, 0.0], requires_grad=True)
    mean_squared_error(image, torch.tensor([0.0, 1.0])).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert image.grad is not None
    assert image.grad.tolist() == [0.5, -1.0]  # 2 (image - target) / 2


@pytest.mark.parametrize(
    ("error", "decibels"),
    [(1.0, 0.0), (0.1, 10.0), (0.01, 20.0), (0.001, 30.0), (1 / 255**2, 20 * math.log10(255))],
)
def test_psnr_of_known_errors(error: float, decibels: float) -> None:
    assert psnr_from_mse(error) == pytest.approx(decibels)


def test_one_grey_level_everywhere_is_48_decibels() -> None:
    image = torch.full((2, 3, 4, 4), 100 / 255)
    assert psnr_from_mse(mean_squared_error(image, image + 1 / 255).item()) == pytest.approx(
        48.1308, abs=1e-3
    )


def test_psnr_of_equal_images_is_infinite() -> None:
    assert psnr_from_mse(0.0) == math.inf


def test_denoising_loss_of_known_errors() -> None:
    clean = torch.zeros(2, 3, 2, 2)
    denoised = torch.tensor([0.1, 0.2])[:, None, None, None].expand(clean.shape)
    sigma = torch.zeros(2, 2, 2)
    sigma[0] = torch.tensor([[0.2, 0.0], [0.0, 0.0]])  # its mean square is 0.01
    expected = (math.log(0.01 + 0.0003 + 2e-5) + math.log(0.04 + 2e-5)) / 2
    assert denoising_loss(denoised, clean, sigma).item() == pytest.approx(expected, rel=1e-5)
    assert denoising_loss(clean, clean, sigma * 0).item() == pytest.approx(math.log(2e-5), rel=1e-5)


def test_estimation_loss_weighs_what_is_too_high() -> None:
    estimated, target = torch.tensor([[[0.5, 0.1]], [[0.2, 0.3]]]), torch.tensor([[[0.1, 0.2]], [[0.2, 0.1]]])
    # Too high by 0.4 and 0.2, too low by 0.1: twice the mean of these, weighted.
    assert estimation_loss(estimated, target, over=0.7).item() == pytest.approx(
        2 * (0.7 * 0.6 + 0.3 * 0.1) / 4
    )
    equal = (estimated - target).abs().mean().item()
    assert estimation_loss(estimated, target, over=0.5).item() == pytest.approx(equal)
    assert estimation_loss(target, target, over=0.7).item() == 0


@pytest.mark.parametrize("over", [0.5, 0.7, 0.9])
def test_the_best_estimate_is_a_quantile(over: float) -> None:
    target = torch.linspace(0, 1, 1001)[None, None]
    losses = [estimation_loss(torch.full_like(target, level), target, over=over) for level in target[0, 0]]
    best = target[0, 0, int(torch.stack(losses).argmin())].item()
    assert best == pytest.approx(1 - over, abs=0.002)


def test_divergence_of_known_gaussians_from_the_standard_one() -> None:
    mean = torch.tensor([[0.0, 1.0, -2.0, 0.0]])
    log_variance = torch.tensor([[0.0, 0.0, 0.0, math.log(4.0)]])
    expected = [0, 1 / 2, 2, (4 - 1 - math.log(4)) / 2]
    assert kl_divergence(mean, log_variance)[0].tolist() == pytest.approx(expected)


def test_divergence_is_that_of_torchs_distributions() -> None:
    source = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 7, 5, generator=source)
    expected = distributions.kl_divergence(
        Normal(mean, (log_variance / 2).exp()),
        Normal(0.0, 1.0),
    )
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)


def test_free_bits_floor_each_latents_mean() -> None:
    divergences = torch.tensor([[0.0, 3.0, 0.1], [0.2, 1.0, 0.1]], requires_grad=True)
    assert free_bits(divergences, 0.0).item() == pytest.approx(0.1 + 2 + 0.1)
    loss = free_bits(divergences, 0.5)
    assert loss.item() == pytest.approx(0.5 + 2 + 0.5)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert divergences.grad is not None
    assert divergences.grad.tolist() == [[0, 0.5, 0], [0, 0.5, 0]]


def test_bernoulli_nll_of_known_probabilities() -> None:
    probabilities = torch.tensor([0.25, 0.5, 0.9, 0.2]).reshape(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    expected = -math.log(0.25 * 0.5 * 0.9 * 0.8)
    assert bernoulli_nll(probabilities.logit(), target).tolist() == pytest.approx([expected])
    several = bernoulli_nll(probabilities.logit().expand(3, 1, 1, 2, 2), target)
    assert several.shape == (3, 1)
    assert several.flatten().tolist() == pytest.approx([expected] * 3)


def test_gaussian_nll_of_known_deviations() -> None:
    image = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    target = torch.tensor([0.5, 1.0]).reshape(1, 1, 1, 2)
    lost = gaussian_nll(image, target, torch.tensor(0.25).log())
    # (0.5 / 0.25)^2 / 2 + 0, and for each of two pixels log(0.25 sqrt(2 pi))
    assert lost.tolist() == pytest.approx([2 + 2 * math.log(0.25 * math.sqrt(2 * math.pi))])


def weights(x: Tensor, mean: Tensor, log_variance: Tensor, draws: int) -> Tensor:
    """log p(x|z) + log p(z) - log q(z|x), (M, N), of the linear-Gaussian model; x (N, 1)."""
    noise = torch.randn(draws, *mean.shape, generator=torch.Generator().manual_seed(0))
    latents = mean + (log_variance / 2).exp() * noise  # (M, N, 1)
    image, target = (W * latents)[..., None, None], x[..., None, None]
    return log_importance_weights(latents, noise, log_variance) - gaussian_nll(
        image, target, torch.tensor(D).log()
    )


def evidence(x: Tensor) -> Tensor:
    spread = math.sqrt(W**2 + D**2)
    log_density: Tensor = Normal(0.0, spread).log_prob(x[:, 0])  # type: ignore[no-untyped-call]  # torch's own
    return log_density


def test_bound_with_the_true_posterior_is_the_likelihood_at_every_draw() -> None:
    x = torch.tensor([[-2.0], [0.0], [0.7]])
    total = W**2 + D**2
    log_variance = torch.full_like(x, math.log(D**2 / total))
    log_weights = weights(x, W * x / total, log_variance, 5)
    torch.testing.assert_close(log_weights, evidence(x).expand(5, 3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(importance_bound(log_weights), evidence(x), atol=1e-5, rtol=1e-5)


def test_bound_with_another_posterior_is_the_elbo_and_rises_to_the_likelihood() -> None:
    x = torch.tensor([[1.0]])
    mean, log_variance = torch.tensor([[0.3]]), torch.tensor([[math.log(0.3)]])
    log_weights = weights(x, mean, log_variance, 200_000)
    # E log N(x; W z, D^2) has (x - W m)^2 + W^2 v in the place of the square; the divergence is known.
    square = (1 - W * 0.3) ** 2 + W**2 * 0.3
    kl = (0.09 + 0.3 - 1 - math.log(0.3)) / 2
    elbo = -(square / D**2 + math.log(2 * math.pi)) / 2 - math.log(D) - kl
    assert log_weights.mean().item() == pytest.approx(elbo, abs=0.02)
    few, many = (importance_bound(log_weights.reshape(draws, -1)).mean().item() for draws in (5, 50))
    assert elbo + 0.5 < few < many < evidence(x).item() + 0.01
    assert importance_bound(log_weights).item() == pytest.approx(evidence(x).item(), abs=0.01)


def test_bound_of_one_draw_is_its_weight_and_of_equal_draws_their_weight() -> None:
    log_weights = torch.tensor([[-90.0, -1000.0]])
    assert torch.equal(importance_bound(log_weights), log_weights[0])
    torch.testing.assert_close(importance_bound(log_weights.expand(7, 2)), log_weights[0])
    assert importance_bound(torch.tensor([[0.0], [math.log(3.0)]])).item() == pytest.approx(math.log(2))
