"""The noise of ``encoder/images/noise.py`` on torch tensors, channels first: what a network learns to take off.

All random numbers are drawn by numpy's Generator in the layout of ``encoder/images/noise.py``: the same seed gives
the same noisy pictures there and here, whatever machine draws them.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lookalike.encoder.images.noise import MIN_POISSON_LEVEL, NoiseKind, NoiseSpec, sample_noise, saved_as_jpeg

__all__ = ["add_noise", "applied", "make_noisy"]


def make_noisy(images: Tensor, noise: NoiseSpec, rng: np.random.Generator) -> Tensor:
    """Return images float32 (N, C, H, W) with noise on them, a level of its own for each."""
    return add_noise(images, torch.from_numpy(noise.levels(len(images), rng)), kind=noise.kind, rng=rng)


def add_noise(images: Tensor, levels: Tensor, *, kind: NoiseKind, rng: np.random.Generator) -> Tensor:
    """Return images with noise on them, float32 (N, C, H, W) in [0, 1]; the same seed gives the same.

    Args:
        images: float32 (N, C, H, W) in [0, 1], on any device.
        levels: float32 (N,), one for each image, within the limits of the kind.
        kind: As in ``encoder/images/noise.py``.
        rng: What is drawn from.
    """
    seen = images.permute(0, 2, 3, 1).cpu().numpy()  # (N, H, W, C)
    draws = torch.from_numpy(sample_noise(seen, levels.cpu().numpy(), kind=kind, rng=rng))
    if draws.ndim == 4:
        draws = draws.permute(0, 3, 1, 2)  # (N, C or 1, H, W)
    return applied(images, levels.to(images.device), draws.to(images.device), kind=kind)


def applied(images: Tensor, levels: Tensor, draws: Tensor, *, kind: NoiseKind) -> Tensor:
    """Return images with the noise that was drawn for them, float32 (N, C, H, W) in [0, 1].

    Args:
        images: float32 (N, C, H, W) in [0, 1].
        levels: float32 (N,).
        draws: As :func:`sample_noise` has them, but (N, C, H, W) or (N, 1, H, W).
        kind: As in ``encoder/images/noise.py``.
    """
    each = levels[:, None, None, None]
    if kind == "gaussian":
        made = images + each * draws
    elif kind == "poisson":
        made = torch.where(each < MIN_POISSON_LEVEL, images, draws * each.square())
    elif kind == "masking":
        made = torch.where(draws < each, 0.0, images)
    elif kind == "salt-pepper":
        made = torch.where(draws < each / 2, 0.0, torch.where(draws < each, 1.0, images))
    else:
        made = _saved(images, levels)
    return made.clamp(0, 1)


def _saved(images: Tensor, qualities: Tensor) -> Tensor:
    seen = images.permute(0, 2, 3, 1).cpu().numpy()
    back = torch.from_numpy(saved_as_jpeg(seen, qualities.cpu().numpy()))
    return back.permute(0, 3, 1, 2).to(images.device)
