"""What is minimised and what is reported."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["mean_squared_error", "psnr"]


def mean_squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean over all values of the squared difference, a scalar."""
    return (image - target).square().mean()


def psnr(error: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error of values in [0, 1].

    PSNR = 10 log10(1 / MSE). (ITU-T Rec. J.247; peak value 1.)
    """
    return math.inf if error == 0 else -10 * math.log10(error)
