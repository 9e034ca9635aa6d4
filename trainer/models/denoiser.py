"""The denoiser, which is given the noise level, and the network that estimates the level.

A residual U-Net on pixels folded two by two, with the noise level as one more plane: Zhang, Zuo, Zhang,
"FFDNet", arXiv:1710.04026, and Zhang et al., "Plug-and-Play Image Restoration with Deep Denoiser Prior",
arXiv:2008.13751. Like those it has no BatchNorm: the size of the features carries the noise level.

Legend: N images, C = 3 channels, H and W multiples of :data:`SIZE_MULTIPLE`, F features.
Pixels are float32, 0 black to 1 white; sigma, the standard deviation of the noise, is on the same scale.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lookalike.trainer.config import FOLD, DenoiserShape

SIZE_MULTIPLE: Final = 8
"""Height and width must be multiples of this: pixels are folded once and halved twice."""
_CHANNELS: Final = 3


@final
class DenoiserNet(nn.Module):
    """Noisy pixels and the sigma of their noise to clean pixels."""

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
        """(N, C, H, W) and (N,) -> (N, C, H, W), not clipped."""
        folded = functional.pixel_unshuffle(pixels, FOLD)  # (N, C, H, W) -> (N, 4C, H/2, W/2)
        plane = torch.zeros_like(folded[:, :1]) + sigma.to(folded.dtype)[:, None, None, None]
        first = self.before1(self.head(torch.cat([folded, plane], 1)))  # -> (N, F1, H/2, W/2)
        second = self.before2(self.down1(first))  # -> (N, F2, H/4, W/4)
        third = self.middle(self.down2(second))  # -> (N, F3, H/8, W/8)
        second = self.after2(self.up2(third) + second)  # -> (N, F2, H/4, W/4)
        first = self.after1(self.up1(second) + first)  # -> (N, F1, H/2, W/2)
        return pixels + functional.pixel_shuffle(self.tail(first), FOLD)  # -> (N, C, H, W)


@final
class Estimator(nn.Module):
    """Noisy pixels to the sigma of their noise: a weighted mean of one estimate for each position."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            nn.Conv2d(_CHANNELS * FOLD**2, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(),
        )
        self.estimate = nn.Conv2d(features, 2, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) -> (N,), 0 or more in evaluation; negative too in training, to keep the gradient."""
        local = self.local(functional.pixel_unshuffle(pixels, FOLD))  # -> (N, F, H/4, W/4)
        estimate, weight = self.estimate(local).flatten(2).unbind(1)  # -> (N, HW/16) each
        sigma: Tensor = (estimate * weight.softmax(1)).sum(1)  # -> (N,)
        return sigma if self.training else sigma.relu()


class DenoiserOutput(NamedTuple):
    """The output of both networks for noisy pixels.

    Attributes:
        denoised: (N, C, H, W), not clipped.
        estimated: (N,), the estimated sigma.
        sigma: (N,), the sigma given to the denoiser.
    """

    denoised: Tensor
    estimated: Tensor
    sigma: Tensor


@final
class BlindDenoiser(nn.Module):
    """Both networks, trained side by side: they share no weights and no outputs."""

    def __init__(self, shape: DenoiserShape) -> None:
        super().__init__()
        self.shape = shape
        self.denoiser = DenoiserNet(shape)
        self.estimator = Estimator(shape.estimator)

    def forward(self, pixels: Tensor, sigma: Tensor | None = None) -> DenoiserOutput:
        """(N, C, H, W), any H and W, and sigma (N,); None: the denoiser is given the estimate."""
        padded = reflect_pad(pixels)  # -> (N, C, H', W'), multiples
        with torch.autocast(pixels.device.type, enabled=False):  # bfloat16 rounds weak noise away
            estimated = self.estimator(padded)
        given = estimated if sigma is None else sigma
        height, width = pixels.shape[2:]
        return DenoiserOutput(self.denoiser(padded, given)[:, :, :height, :width], estimated, given)


def reflect_pad(pixels: Tensor) -> Tensor:
    """Pad (N, C, H, W) below and at the right by reflection to multiples of :data:`SIZE_MULTIPLE`."""
    below, right = (-side % SIZE_MULTIPLE for side in pixels.shape[2:])
    return functional.pad(pixels, (0, right, 0, below), "reflect") if below or right else pixels


class _Block(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): a residual block of two convolutions."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)  # a deep network that starts near the identity trains fast

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.second(self.first(features).relu())
        return features + residual


def _blocks(features: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(features) for _ in range(count)))
