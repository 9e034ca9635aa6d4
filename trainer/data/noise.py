"""The noise of ``encoder/images/noise.py`` on torch tensors, channels first.

Random numbers come from numpy's Generator in the layout of ``encoder/images/noise.py``: the same seed gives
the same noisy images in both modules and on every machine.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lookalike.encoder.images import MIN_POISSON_LEVEL, NoiseKind, NoiseSpec, sample_noise, saved_as_jpeg


def make_noisy(images: Tensor, noise: NoiseSpec, rng: np.random.Generator) -> Tensor:
    """Add noise to images float32 (N, C, H, W), with a level drawn for each."""
    return add_noise(images, torch.from_numpy(noise.levels(len(images), rng)), kind=noise.kind, rng=rng)


def add_noise(images: Tensor, levels: Tensor, *, kind: NoiseKind, rng: np.random.Generator) -> Tensor:
    """Add noise to images; the result is float32 (N, C, H, W) in [0, 1].

    Args:
        images: float32 (N, C, H, W) in [0, 1], on any device.
        levels: float32 (N,), one for each image, within the limits of the kind.
        kind: As in ``encoder/images/noise.py``.
        rng: Source of the random numbers.
    """
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()  # (N, H, W, C)
    noise = torch.from_numpy(sample_noise(pixels, levels.cpu().numpy(), kind=kind, rng=rng))
    if noise.ndim == 4:
        noise = noise.permute(0, 3, 1, 2)  # (N, C or 1, H, W)
    return apply_noise(images, levels.to(images.device), noise.to(images.device), kind=kind)


def apply_noise(images: Tensor, levels: Tensor, noise: Tensor, *, kind: NoiseKind) -> Tensor:
    """Apply sampled noise to images; the result is float32 (N, C, H, W) in [0, 1].

    Args:
        images: float32 (N, C, H, W) in [0, 1].
        levels: float32 (N,).
        noise: From :func:`sample_noise`, but (N, C, H, W) or (N, 1, H, W).
        kind: As in ``encoder/images/noise.py``.
    """
    level = levels[:, None, None, None]
    if kind in ("gaussian", "resized"):
        noisy = images + level * noise
    elif kind == "shadows":
        brightness = images.mean(1, keepdim=True)
        noisy = images + level * noise * (1 - 2 * brightness).clamp(0, 1)
    elif kind == "camera":
        noisy = noise
    elif kind == "poisson":
        noisy = torch.where(level < MIN_POISSON_LEVEL, images, noise * level.square())
    elif kind == "masking":
        noisy = torch.where(noise < level, 0.0, images)
    elif kind == "salt-pepper":
        noisy = torch.where(noise < level / 2, 0.0, torch.where(noise < level, 1.0, images))
    else:
        noisy = _jpeg(images, levels)
    return noisy.clamp(0, 1)


def _jpeg(images: Tensor, qualities: Tensor) -> Tensor:
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    decoded = torch.from_numpy(saved_as_jpeg(pixels, qualities.cpu().numpy()))
    return decoded.permute(0, 3, 1, 2).to(images.device)
