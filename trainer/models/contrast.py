"""LocalContrastNorm evened out: what a face shows in dim light as in bright.

Legend: N images, C channels, H = W = S pixels.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

__all__ = ["LocalContrastNorm"]

_AROUND: Final = 3 / 64
"""Deviation of the window, of the side."""
_DARK: Final = 0.02
"""LocalContrastNorm under this, of 1, is not amplified."""


@final
class LocalContrastNorm(nn.Module):
    """float32 (N, C, S, S) in [0, 1] to grey (N, 1, S, S) of zero mean and unit deviation around a pixel.

    A divisive normalisation (Jarrett et al., "What is the best multi-stage architecture for object
    recognition?", ICCV 2009) with a Gaussian window.
    """

    kernel: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("kernel", _bell(_AROUND * size))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, 1, S, S)."""
        grey = images.mean(1, keepdim=True)
        apart = grey - self._around(grey)
        return apart / (self._around(apart * apart) + _DARK**2).sqrt()

    def _around(self, images: Tensor) -> Tensor:
        radius = len(self.kernel) // 2
        edged = pad(images, 4 * (radius,), mode="reflect")
        across = conv2d(edged, self.kernel.view(1, 1, 1, -1))
        return conv2d(across, self.kernel.view(1, 1, -1, 1))


def _bell(deviation: float) -> Tensor:
    """Return a Gaussian of odd length, three deviations each way, of sum 1."""
    radius = int(3 * deviation + 0.5)
    bell = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    return bell / bell.sum()
