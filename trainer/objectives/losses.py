"""Loss functions.

Legend: N images, C channels, S pixels a side, Z latent size, M samples of the latent for each image.
Likelihoods and divergences are in nats and summed over pixels and latent.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

_FLOOR = 2e-5
"""Mean squared error that makes no difference any more: 47 dB."""


def mean_squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean over all values of the squared difference, a scalar."""
    return (image - target).square().mean()


def denoising_loss(denoised: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """Return the mean over images of log(mean squared error + 0.03 sigma^2 + 2e-5), a scalar.

    Without the two last terms it is the negative PSNR in nepers, as in Chen et al., "Simple Baselines for
    Image Restoration", arXiv:2204.04676. They keep easy, flat patches from dominating, and patches without
    noise: their errors are small, and the gradient of the logarithm is large there.

    Args:
        denoised: float32 (B, C, H, W).
        clean: float32 (B, C, H, W).
        sigma: float32 (B, H, W), standard deviation of the noise.
    """
    error = (denoised - clean).square().mean((1, 2, 3))  # (B,)
    return (error + 0.03 * sigma.square().mean((1, 2)) + _FLOOR).log().mean()


def estimation_loss(estimated: Tensor, target: Tensor, *, over: float) -> Tensor:
    """Return the mean weighted absolute error of estimates, a scalar; those too high may count more.

    With unequal weights the best estimate is a quantile below the median (R. Koenker, G. Bassett: Regression
    Quantiles, Econometrica 46, 1978): where it is unsure, the network errs to leave the image as it is.

    Args:
        estimated: float32 (B, H, W).
        target: float32 (B, H, W).
        over: Weight of an estimate that is too high; of one too low, 1 - over.
    """
    error = estimated - target
    return 2 * (over * error.clamp_min(0) - (1 - over) * error.clamp_max(0)).mean()


def cosface_loss(cosines: Tensor, people: Tensor, *, scale: float, margin: float) -> Tensor:
    """Return the large margin cosine loss, a scalar (CosFace; Wang et al., CVPR 2018).

    The cross-entropy of ``scale * cosine``, with ``margin`` subtracted from the right person's cosine.

    Args:
        cosines: float32 (B, K) of each image with each of K people.
        people: int64 (B,), the right person.
        scale: Of the cosines, before the softmax.
        margin: Subtracted from the right person's cosine.
    """
    return cross_entropy(scale * (cosines - margin * one_hot(people, cosines.shape[1])), people)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) of each latent: (N, Z) of (N, Z) and (N, Z).

    (Kingma & Welling, ICLR 2014, appendix B.)
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def free_bits(divergences: Tensor, nats: float) -> Tensor:
    """Return the sum over the latent of the mean divergence, at least ``nats`` for each dimension: a scalar.

    Below that a dimension costs nothing, so that it is not switched off ("free bits"; Kingma et al.,
    Improving Variational Inference with Inverse Autoregressive Flow, NIPS 2016).

    Args:
        divergences: (N, Z) of :func:`kl_divergence`.
        nats: For each dimension; 0: the plain sum.
    """
    means = divergences.mean(0)  # (Z,)
    return means.clamp(min=nats).sum() if nats else means.sum()


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    """Return -log p(target) of Bernoulli pixels, (..., N) of (..., N, C, S, S).

    A likelihood of binary targets only; of gray ones it is a cross-entropy, not comparable to a likelihood.
    """
    nll = binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    return nll.flatten(-3).sum(-1)


def gaussian_nll(image: Tensor, target: Tensor, log_deviation: Tensor) -> Tensor:
    """Return -log p(target) of Gaussian pixels with one deviation, (..., N) of (..., N, C, S, S).

    A density of real pixels in [0, 1]: it may be negative.
    """
    squared = ((image - target) / log_deviation.exp()).square()
    return (0.5 * (squared + math.log(2 * math.pi)) + log_deviation).flatten(-3).sum(-1)


def log_importance_weights(latents: Tensor, noise: Tensor, log_variance: Tensor) -> Tensor:
    """Return log N(z; 0, I) - log q(z|x) of ``z = mean + deviation * noise``: (..., N) of (..., N, Z)."""
    return 0.5 * (noise.square() + log_variance - latents.square()).sum(-1)


def importance_bound(log_weights: Tensor) -> Tensor:
    """Return the log of the mean weight over the M samples, (N,) of (M, N).

    In expectation a lower bound of log p(x) that rises with M; with one sample it is the ELBO (Y. Burda,
    R. Grosse, R. Salakhutdinov: Importance Weighted Autoencoders, ICLR 2016).

    Args:
        log_weights: log p(x|z) + log p(z) - log q(z|x).
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))
