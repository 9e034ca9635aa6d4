"""How alike two pictures are, in the figures that are reported."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["psnr", "psnr_of"]


def psnr(error: float, *, peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error; infinite when it is 0.

    PSNR = 10 log10(peak^2 / MSE). (ITU-T Rec. J.247.)

    Args:
        error: Mean of the squared differences.
        peak: The largest value there can be: 1 of floats in [0, 1], 255 of uint8.
    """
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def psnr_of(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the PSNR in dB of two uint8 arrays of one shape; infinite when they are equal."""
    return psnr(float(np.square(image.astype(np.float64) - other).mean()), peak=255)
