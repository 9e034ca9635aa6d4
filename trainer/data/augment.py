"""Augmentation of face images: changes that keep the person recognizable.

Legend: B images in a batch, C channels, R input pixels a side, S output pixels a side.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

_MIN_ERASED: Final = 0.125
_MAX_ERASED: Final = 0.4375


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Strength of the augmentation; each image gets random amounts of its own.

    Attributes:
        shift: Largest shift each way, as a share of half the side: 0.08 is 2.5 pixels of 64.
        zoom: Largest change of scale, of 1.
        rotation: Largest angle, in degrees.
        gamma: Standard deviation of the logarithm of the gamma exponent.
        slope: Standard deviation of the brightness slope across half of the images.
        brightness: Standard deviation of the logarithm of the brightness.
        color: Standard deviation of the logarithm of the gain of each channel.
        noise: Largest standard deviation of Gaussian noise, of 1.
        blurred: Share of the images that are slightly blurred.
        random_erasing: Share of the images in which a rectangle is erased, 1/8 to 7/16 of the side each way.
    """

    shift: float = 0.08
    zoom: float = 0.05
    rotation: float = 4.0
    gamma: float = 0.35
    slope: float = 0.35
    brightness: float = 0.0
    color: float = 0.0
    noise: float = 0.02
    blurred: float = 0.3
    random_erasing: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def augment(
    images: Tensor,
    generator: torch.Generator,
    config: AugmentConfig | None = None,
    *,
    size: int | None = None,
) -> Tensor:
    """Mirror, shift, rotate, zoom, relight, blur, add noise to and erase parts of each image at random.

    What comes into view at the border repeats the edge.

    Args:
        images: float32 (B, C, R, R) in [0, 1].
        generator: Source of the random amounts.
        config: How strong; by default what the descriptor is fitted with.
        size: S, side of the center that is returned; None: all, S = R.

    Returns:
        float32 (B, C, S, S), about in [0, 1].
    """
    config = config or AugmentConfig()
    size = size or images.shape[3]
    warped = grid_sample(
        images,
        affine_grid(
            _affine_maps(len(images), generator, config) * (size / images.shape[3]),
            [*images.shape[:2], size, size],
            align_corners=False,
        ),
        padding_mode="border",
        align_corners=False,
    )
    blurred = _blur(_relight(warped, generator, config), generator, config)
    level = config.noise * _uniform(len(blurred), generator)
    return _erase(blurred + level * torch.randn(blurred.shape, generator=generator), generator, config)


def _affine_maps(count: int, generator: torch.Generator, config: AugmentConfig) -> Tensor:
    """Return affine maps (B, 2, 3) from output to input coordinates."""
    zoom = 1 + config.zoom * _signed(count, generator)
    angle = math.radians(config.rotation) * _signed(count, generator)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    right, down = config.shift * _signed(count, generator), config.shift * _signed(count, generator)
    x = torch.stack([mirror * cosine, -sine, right], 1)
    y = torch.stack([mirror * sine, cosine, down], 1)
    return torch.stack([x, y], 1)


def _relight(images: Tensor, generator: torch.Generator, config: AugmentConfig) -> Tensor:
    """Change gamma, brightness and color, and light half of the images from one side."""
    count, _, side, _ = images.shape
    gamma = torch.exp(config.gamma * torch.randn(count, 1, 1, 1, generator=generator))
    ramp = torch.linspace(-1, 1, side)
    right, down = (config.slope * torch.randn(count, 1, 1, 1, generator=generator) for _ in range(2))
    slope = (right * ramp + down * ramp[:, None]).clamp(-1, 1)  # (B, 1, S, S)
    half = _uniform(count, generator) < 0.5
    lit: Tensor = images.clamp(1e-3, 1) ** gamma * (1 + slope * half)
    if config.brightness:
        lit = lit * torch.exp(config.brightness * torch.randn(count, 1, 1, 1, generator=generator))
    if config.color:
        gains = torch.randn(count, images.shape[1], 1, 1, generator=generator)
        lit = lit * torch.exp(config.color * gains)
    return lit


def _blur(images: Tensor, generator: torch.Generator, config: AugmentConfig) -> Tensor:
    """Blur some of the images by the binomial filter (1, 2, 1)/4 each way."""
    padded = pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    both = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    return torch.where(_uniform(len(images), generator) < config.blurred, both, images)


def _erase(images: Tensor, generator: torch.Generator, config: AugmentConfig) -> Tensor:
    """Fill a rectangle of some images with gray ("Random Erasing", Zhong et al., AAAI 2020)."""
    if not config.random_erasing:
        return images
    count, _, side, _ = images.shape
    positions = (torch.arange(side) + 0.5) / side
    inside = (_uniform(count, generator) < config.random_erasing).expand(-1, 1, side, side)
    for axis in (positions[:, None], positions):
        length = _MIN_ERASED + (_MAX_ERASED - _MIN_ERASED) * _uniform(count, generator)
        inside = inside & ((axis - _uniform(count, generator)).abs() < length / 2)
    return torch.where(inside, _uniform(count, generator), images)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    """Return (B, 1, 1, 1) in [0, 1)."""
    return torch.rand(count, 1, 1, 1, generator=generator)


def _signed(count: int, generator: torch.Generator) -> Tensor:
    """Return (B,) in [-1, 1)."""
    return 2 * torch.rand(count, generator=generator) - 1
