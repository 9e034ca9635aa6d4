"""The denoiser, which is given a map of the noise level, and the network that estimates the map.

A residual U-Net on pixels folded two by two, with the noise level as one more plane: Zhang, Zuo, Zhang,
"FFDNet", arXiv:1710.04026, and Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser Prior",
arXiv:2008.13751. Like those it has no BatchNorm: the size of the features carries the noise level.

Legend: N images, C = 3 channels, H and W multiples of :data:`SIZE_MULTIPLE`, F features.
Pixels are float32, 0 black to 1 white; sigma, the standard deviation of the noise, is on the same scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lookalike.trainer.config import FOLD, DenoiserShape

SIZE_MULTIPLE: Final = 16
"""Height and width must be multiples of this: the estimator folds four by four and halves twice."""
CELL: Final = 8
"""Side in pixels of the squares that sigma is estimated in."""
UNIT: Final = 2 / 255
"""The sigma that the estimator counts in: errors well below it matter little."""
_CHANNELS: Final = 3
_ESTIMATOR_FOLD: Final = 4


@final
class DenoiserNet(nn.Module):
    """Noisy pixels and the sigma of their noise at each to clean pixels."""

    def __init__(self, spec: DenoiserShape) -> None:
        super().__init__()
        self.spec = spec
        (w1, w2, w3), (n1, n2, n3) = spec.widths, spec.blocks
        folded = _CHANNELS * FOLD**2
        self.head = nn.Conv2d(folded + 1, w1, 3, padding=1)
        self.before1, self.down1 = _blocks(w1, n1), nn.Conv2d(w1, w2, 2, stride=2)
        self.before2, self.down2 = _blocks(w2, n2), nn.Conv2d(w2, w3, 2, stride=2)
        self.middle = _blocks(w3, n3)
        self.up2, self.after2 = nn.ConvTranspose2d(w3, w2, 2, stride=2), _blocks(w2, n2)
        self.up1, self.after1 = nn.ConvTranspose2d(w2, w1, 2, stride=2), _blocks(w1, n1)
        self.tail = nn.Conv2d(w1, folded, 3, padding=1)
        nn.init.zeros_(self.tail.weight)  # the network starts as the identity
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]  # it has a bias

    def forward(self, pixels: Tensor, sigma: Tensor) -> Tensor:
        """(N, C, H, W) and (N, H, W) -> (N, C, H, W), not clipped."""
        folded = functional.pixel_unshuffle(pixels, FOLD)  # (N, C, H, W) -> (N, 4C, H/2, W/2)
        plane = functional.avg_pool2d(sigma.to(folded.dtype)[:, None], FOLD)  # (N, H, W) -> (N, 1, H/2, W/2)
        first = self.before1(self.head(torch.cat([folded, plane], 1)))  # -> (N, F1, H/2, W/2)
        second = self.before2(self.down1(first))  # -> (N, F2, H/4, W/4)
        third = self.middle(self.down2(second))  # -> (N, F3, H/8, W/8)
        second = self.after2(self.up2(third) + second)  # -> (N, F2, H/4, W/4)
        first = self.after1(self.up1(second) + first)  # -> (N, F1, H/2, W/2)
        return pixels + functional.pixel_shuffle(self.tail(first), FOLD)  # -> (N, C, H, W)


@final
class NoiseEstimator(nn.Module):
    """Noisy pixels to sigma in each cell of 8 x 8 pixels: pixels are folded four by four and halved twice.

    At the coarsest scale its convolutions are dilated (F. Yu, V. Koltun: Multi-Scale Context Aggregation by
    Dilated Convolutions, ICLR 2016), so that it sees some hundred pixels around. What it learns is
    log(1 + sigma / 2 of 255), so that weak noise counts as much as strong noise.
    """

    def __init__(self, features: int, dilations: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        wide = 2 * features
        self.fine = nn.Sequential(
            nn.Conv2d(_CHANNELS * _ESTIMATOR_FOLD**2, features, 3, padding=1), _Block(features)
        )
        self.cells = nn.Sequential(nn.Conv2d(features, wide, 2, stride=2), _Block(wide))
        self.around = nn.Sequential(
            nn.Conv2d(wide, wide, 2, stride=2),
            *(_Block(wide, dilation) for dilation in dilations),
            nn.ConvTranspose2d(wide, wide, 2, stride=2),
        )
        self.estimate = nn.Sequential(_Block(wide), nn.Conv2d(wide, 1, 1))

    def logarithm(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H/8, W/8), log(1 + sigma / 2 of 255); may be below 0."""
        fine = self.fine(functional.pixel_unshuffle(pixels, _ESTIMATOR_FOLD))  # -> (N, F, H/4, W/4)
        cells = self.cells(fine)  # -> (N, 2F, H/8, W/8)
        logarithm: Tensor = self.estimate(cells + self.around(cells))[:, 0]  # -> (N, H/8, W/8)
        return logarithm

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H/8, W/8), sigma; in training :meth:`logarithm`."""
        logarithm = self.logarithm(pixels)
        return logarithm if self.training else UNIT * logarithm.relu().expm1()


def reflect_pad(pixels: Tensor) -> Tensor:
    """Pad (N, C, H, W) below and at the right by reflection to multiples of :data:`SIZE_MULTIPLE`."""
    for axis in (2, 3):
        side = pixels.shape[axis]
        if missing := -side % SIZE_MULTIPLE:
            # torch's own padding reflects no side by more than its length.
            rows = torch.from_numpy(np.pad(np.arange(side), (0, missing), "reflect"))
            pixels = pixels.index_select(axis, rows.to(pixels.device))
    return pixels


class _Block(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): a residual block of two convolutions."""

    def __init__(self, features: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(features, features, 3, padding=dilation, dilation=dilation)
        with torch.no_grad():
            self.second.weight.mul_(0.1)  # a deep network that starts near the identity trains fast

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.second(self.first(features).relu())
        return features + residual


def _blocks(features: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(features) for _ in range(count)))
