"""The noise level that a denoiser should be told, which is what the estimator learns.

A denoiser that has learned mostly from white noise removes most of correlated noise, as a camera's
demosaicing leaves it, when it is told up to 1.7 times its level, and of noise that is weaker than the texture
around it, when it is told the true one. Where the texture is several times as strong as correlated noise,
denoising does more harm than good, and the level is 0 (docs/experiments.md has the measurement).

Legend: B patches, C channels, S pixels a side; sigma the standard deviation of the noise, where white is 1.
"""

from __future__ import annotations

import math
from typing import Final

from torch import Tensor
from torch.nn import functional

_CORRELATION: Final = (0.05, 0.5)
"""Of neighbors: up to the first one noise counts as white, from the second one on as fully correlated."""
_OVER_TEXTURE: Final = (math.log(0.35), math.log(2.0))
"""Logarithms of sigma as a multiple of the differences between neighboring clean pixels: up to the first the
level is not raised, from the second on it is."""
_WORTH: Final = (math.log(0.2), math.log(0.36))
"""The same: up to the first the level of correlated noise is 0, from the second one on it is the true one."""
_RAISED: Final = 0.7
_WINDOW: Final = 17
"""Side in pixels of the squares that the differences are measured in."""
_LEAST_DETAIL: Final = 0.5 / 255
_TINY: Final = 1e-8


def level_to_tell(noisy: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """Return the sigma that a denoiser removes most with, float32 (B, S, S).

    Args:
        noisy: float32 (B, C, S, S) in [0, 1].
        clean: float32 (B, C, S, S).
        sigma: float32 (B, S, S), the true one at each pixel.
    """
    correlated = _share(neighbor_correlation(noisy - clean), *_CORRELATION)[:, None, None]
    detail = _root_mean_square(_differences(clean.mean(1))).clamp_min(_LEAST_DETAIL)
    above = (sigma / detail + _TINY).log()
    raised = 1 + _RAISED * correlated * _share(above, *_OVER_TEXTURE)
    return sigma * raised * (1 - correlated * (1 - _share(above, *_WORTH)))


def neighbor_correlation(noise: Tensor) -> Tensor:
    """Return the correlation of the brightness of neighboring pixels, float32 (B,), of noise (B, C, S, S)."""
    luma = noise.mean(1)
    luma = luma - luma.mean((1, 2), keepdim=True)
    across = (luma[:, :, 1:] * luma[:, :, :-1]).mean((1, 2))
    down = (luma[:, 1:] * luma[:, :-1]).mean((1, 2))
    return (across + down) / 2 / luma.square().mean((1, 2)).clamp_min(_TINY)


def _differences(luma: Tensor) -> Tensor:
    """(B, S, S) -> (B, S, S): mean square of the differences to the next pixels below and right."""
    below = functional.pad(luma.diff(dim=1), (0, 0, 0, 1)).square()
    right = functional.pad(luma.diff(dim=2), (0, 1)).square()
    return (below + right) / 2


def _root_mean_square(squares: Tensor) -> Tensor:
    padded = functional.pad(squares[:, None], (_WINDOW // 2,) * 4, "replicate")
    return functional.avg_pool2d(padded, _WINDOW, 1)[:, 0].sqrt()


def _share(values: Tensor, low: float, high: float) -> Tensor:
    return ((values - low) / (high - low)).clamp(0, 1)
