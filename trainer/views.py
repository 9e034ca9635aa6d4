"""Other views of a face: what a photograph may change without changing who is on it.

Legend: B images in a batch, C channels, H = W = S pixels.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = ["another_view"]

_SHIFT: Final = 0.08
"""Highest move each way, of half the side: 2.5 pixels of 64."""
_ZOOM: Final = 0.05
_TURN: Final = math.radians(4)
_GAMMA: Final = 0.35
_SLOPE: Final = 0.35
_NOISE: Final = 0.02
_BLURRED: Final = 0.3


def another_view(images: Tensor, source: torch.Generator) -> Tensor:
    """Mirror, move, turn, zoom, light, blur and roughen each image by amounts of its own.

    What comes in at the border repeats the edge.

    Args:
        images: float32 (B, C, S, S) in [0, 1].
        source: Of the amounts.

    Returns:
        float32 (B, C, S, S), about in [0, 1].
    """
    turned = grid_sample(
        images,
        affine_grid(_placement(len(images), source), list(images.shape), align_corners=False),
        padding_mode="border",
        align_corners=False,
    )
    seen = _blurred(_lit(turned, source), source)
    level = _NOISE * _uniform(len(seen), source)
    return seen + level * torch.randn(seen.shape, generator=source)


def _placement(count: int, source: torch.Generator) -> Tensor:
    """Return affine maps (B, 2, 3) from where a pixel goes to where it comes from."""
    zoom = 1 + _ZOOM * _signed(count, source)
    angle = _TURN * _signed(count, source)
    mirror = torch.where(torch.rand(count, generator=source) < 0.5, -1.0, 1.0)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    right, down = _SHIFT * _signed(count, source), _SHIFT * _signed(count, source)
    across = torch.stack([mirror * cosine, -sine, right], 1)
    along = torch.stack([mirror * sine, cosine, down], 1)
    return torch.stack([across, along], 1)


def _lit(images: Tensor, source: torch.Generator) -> Tensor:
    """Change gamma, and light half of the images from one side."""
    count, _, side, _ = images.shape
    gamma = torch.exp(_GAMMA * torch.randn(count, 1, 1, 1, generator=source))
    ramp = torch.linspace(-1, 1, side)
    right, down = (_SLOPE * torch.randn(count, 1, 1, 1, generator=source) for _ in range(2))
    slope = (right * ramp + down * ramp[:, None]).clamp(-1, 1)  # (B, 1, S, S)
    some = _uniform(count, source) < 0.5
    lit: Tensor = images.clamp(1e-3, 1) ** gamma * (1 + slope * some)
    return lit


def _blurred(images: Tensor, source: torch.Generator) -> Tensor:
    """Blur some of the images a little, by the binomial filter (1, 2, 1)/4 each way."""
    edged = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (edged[:, :, :-2] + 2 * edged[:, :, 1:-1] + edged[:, :, 2:]) / 4
    both = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    return torch.where(_uniform(len(images), source) < _BLURRED, both, images)


def _uniform(count: int, source: torch.Generator) -> Tensor:
    """Return (B, 1, 1, 1) in [0, 1)."""
    return torch.rand(count, 1, 1, 1, generator=source)


def _signed(count: int, source: torch.Generator) -> Tensor:
    """Return (B,) in [-1, 1)."""
    return 2 * torch.rand(count, generator=source) - 1
