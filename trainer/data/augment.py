"""Other views of a face: what a photograph may change without changing who is on it.

Legend: B images in a batch, C channels, R pixels a side, of which S are seen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

_LEAST_COVERED: Final = 0.125
_MOST_COVERED: Final = 0.4375


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """How far views differ; each image draws its own amounts.

    Attributes:
        shift: Highest move each way, of half the side: 0.08 is 2.5 pixels of 64.
        zoom: Highest change of scale, of 1.
        turn: Highest angle, in degrees.
        gamma: Deviation of the exponent's logarithm.
        slope: Deviation of the light's slope across half of the images.
        brightness: Deviation of the light's logarithm.
        noise: Highest deviation of Gaussian noise, of 1.
        blurred: Share of the images that are blurred a little.
        covered: Share of the images of which a rectangle is covered, 1/8 to 7/16 of the side each way.
    """

    shift: float = 0.08
    zoom: float = 0.05
    turn: float = 4.0
    gamma: float = 0.35
    slope: float = 0.35
    brightness: float = 0.0
    noise: float = 0.02
    blurred: float = 0.3
    covered: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def augment(
    images: Tensor, source: torch.Generator, spec: AugmentConfig | None = None, *, size: int | None = None
) -> Tensor:
    """Mirror, move, turn, zoom, light, blur, roughen and cover each image by amounts of its own.

    What comes in at the border repeats the edge.

    Args:
        images: float32 (B, C, R, R) in [0, 1].
        source: Of the amounts.
        spec: How far to go; by default as far as the descriptor's views go.
        size: S, of the middle that is seen; None: all, S = R.

    Returns:
        float32 (B, C, S, S), about in [0, 1].
    """
    spec = spec or AugmentConfig()
    size = size or images.shape[3]
    turned = grid_sample(
        images,
        affine_grid(
            _placement(len(images), source, spec) * (size / images.shape[3]),
            [*images.shape[:2], size, size],
            align_corners=False,
        ),
        padding_mode="border",
        align_corners=False,
    )
    seen = _blurred(_lit(turned, source, spec), source, spec)
    level = spec.noise * _uniform(len(seen), source)
    return _covered(seen + level * torch.randn(seen.shape, generator=source), source, spec)


def _placement(count: int, source: torch.Generator, spec: AugmentConfig) -> Tensor:
    """Return affine maps (B, 2, 3) from where a pixel goes to where it comes from."""
    zoom = 1 + spec.zoom * _signed(count, source)
    angle = math.radians(spec.turn) * _signed(count, source)
    mirror = torch.where(torch.rand(count, generator=source) < 0.5, -1.0, 1.0)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    right, down = spec.shift * _signed(count, source), spec.shift * _signed(count, source)
    across = torch.stack([mirror * cosine, -sine, right], 1)
    along = torch.stack([mirror * sine, cosine, down], 1)
    return torch.stack([across, along], 1)


def _lit(images: Tensor, source: torch.Generator, spec: AugmentConfig) -> Tensor:
    """Change gamma and brightness, and light half of the images from one side."""
    count, _, side, _ = images.shape
    gamma = torch.exp(spec.gamma * torch.randn(count, 1, 1, 1, generator=source))
    ramp = torch.linspace(-1, 1, side)
    right, down = (spec.slope * torch.randn(count, 1, 1, 1, generator=source) for _ in range(2))
    slope = (right * ramp + down * ramp[:, None]).clamp(-1, 1)  # (B, 1, S, S)
    some = _uniform(count, source) < 0.5
    lit: Tensor = images.clamp(1e-3, 1) ** gamma * (1 + slope * some)
    if spec.brightness:
        lit = lit * torch.exp(spec.brightness * torch.randn(count, 1, 1, 1, generator=source))
    return lit


def _blurred(images: Tensor, source: torch.Generator, spec: AugmentConfig) -> Tensor:
    """Blur some of the images a little, by the binomial filter (1, 2, 1)/4 each way."""
    edged = pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (edged[:, :, :-2] + 2 * edged[:, :, 1:-1] + edged[:, :, 2:]) / 4
    both = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    return torch.where(_uniform(len(images), source) < spec.blurred, both, images)


def _covered(images: Tensor, source: torch.Generator, spec: AugmentConfig) -> Tensor:
    """Lay a grey rectangle over some of the images ("Random Erasing", Zhong et al., AAAI 2020)."""
    if not spec.covered:
        return images
    count, _, side, _ = images.shape
    place = (torch.arange(side) + 0.5) / side
    inside = (_uniform(count, source) < spec.covered).expand(-1, 1, side, side)
    for axis in (place[:, None], place):
        reach = _LEAST_COVERED + (_MOST_COVERED - _LEAST_COVERED) * _uniform(count, source)
        inside = inside & ((axis - _uniform(count, source)).abs() < reach / 2)
    return torch.where(inside, _uniform(count, source), images)


def _uniform(count: int, source: torch.Generator) -> Tensor:
    """Return (B, 1, 1, 1) in [0, 1)."""
    return torch.rand(count, 1, 1, 1, generator=source)


def _signed(count: int, source: torch.Generator) -> Tensor:
    """Return (B,) in [-1, 1)."""
    return 2 * torch.rand(count, generator=source) - 1
