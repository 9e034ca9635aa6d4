"""The latents of a trained VAE, turned and scaled so that all of them together are as N(0, I) says.

A decoder draws of N(0, I) what it has learned only if the training latents are spread so. Of pictures of
thousands of values the divergence is too small a part of the bound to see to that soon: latents stay
correlated, N(0, I) lies mostly beside them, and what is drawn of it is a pattern of the decoder's own. A
linear map of the latents mends it and changes no reconstruction.

Legend: N images, Z latent size.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.trainer.models.vae import CVAE, VAE

__all__ = ["aligning", "whiten_posterior"]

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
_LEAST: Final = 1e-6


def aligning(means: Floats, deviations: Floats) -> tuple[Reals, Reals, Reals]:
    """Return the map of latents z to ``matrix @ (z - centre)``, which have mean 0 and covariance I.

    Of all such maps it is the one under which the mean variance of q(z|x) stays diagonal, most of it told
    first: the generalised eigenvectors of the covariance of latents and that of q(z|x).

    Args:
        means: float32 (N, Z), of q(z|x).
        deviations: float32 (N, Z), of q(z|x).

    Returns:
        centre float64 (Z,), matrix float64 (Z, Z), and its inverse.
    """
    centre = means.mean(0, dtype=np.float64)
    apart = means - centre
    within = np.square(deviations, dtype=np.float64).mean(0).clip(_LEAST)  # (Z,)
    scale = np.sqrt(within)
    whole = apart.T @ apart / len(apart) / np.outer(scale, scale) + np.eye(len(scale))
    variance, axes = np.linalg.eigh(whole)  # each 1 or more
    spread, axes = np.sqrt(variance[::-1]), axes[:, ::-1]
    return centre, (axes / spread).T / scale, scale[:, None] * axes * spread


@torch.no_grad()
def whiten_posterior(network: VAE | CVAE, means: Floats, deviations: Floats) -> None:
    """Align a network's latents, in place: it gives back every picture as before.

    Args:
        network: In evaluation.
        means: float32 (N, Z), of q(z|x) of the training images.
        deviations: float32 (N, Z).
    """
    centre, matrix, inverse = (_tensor(each) for each in aligning(means, deviations))
    encoder, first, norm = network.encoder, *network.decoder.entrance
    encoder.mean.bias.copy_(matrix @ (encoder.mean.bias.double() - centre))
    encoder.mean.weight.copy_(matrix @ encoder.mean.weight.double())
    encoder.mixing = matrix.square().float()
    told = first.weight[:, : len(centre)].double()
    if norm.running_mean is None:
        raise TypeError("the decoder's BatchNorm keeps running statistics")
    norm.running_mean -= (told @ centre).float()  # z = centre + inverse @ what is told now
    first.weight[:, : len(centre)] = (told @ inverse).float()


def _tensor(values: Reals) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
