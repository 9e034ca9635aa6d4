"""Whether what is taken for noise has the colors of noise.

Noise of a sensor is in all colors: behind its mosaic of filters neighboring pixels have no common noise, and
so neighboring places differ in color by a share of the noise. Leather and stone of one color differ in
brightness alone, and paint and petals by more than their texture: both are taken for noise where they cover
all of an image, for then nothing smooth is beside them. Of weak noise cameras and JPEG may leave no color.

Legend: H, W = height and width, C channels, h, w rows and columns of cells; sigma in [0, 1].
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.searcher.denoising.flat_colors import cell_means

Floats = NDArray[np.float32]

_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as JPEG's
_OF_NOISE: Final = (0.12, 1.0)
"""Median over the noisy cells of the step of color, as a share of sigma. It was 0.14 to 0.95 on validation
photographs with white noise and that of cameras, 0.05 to 0.08 on leather, 1.6 to 1.8 on a painted brush."""
_COLORLESS: Final = 6 / 255
"""Noise below this may have no color: cameras that smooth colors widely leave 0.0 to 0.1 of it."""

_MIN_CELLS: Final = 16
"""Fewer say nothing."""


def color_steps(pixels: Floats, cell: int) -> Floats:
    """Return how much the quarters of each cell differ in color, float32 (h, w).

    That is the mean of the differences in red and blue, each less the brightness, between quarters side by
    side.

    Args:
        pixels: float32 (H, W, 3) in [0, 1].
        cell: Side of a cell in pixels, an even number.
    """
    side = cell // 2
    means = np.stack([cell_means(pixels[..., channel], side) for channel in range(3)], 2)  # (2h, 2w, 3)
    rows, columns = (-(-length // cell) for length in pixels.shape[:2])
    missing = [2 * whole - have for whole, have in zip((rows, columns), means.shape[:2], strict=True)]
    means = np.pad(means, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
    colors = means[..., ::2] - (means @ _LUMA)[..., None]  # (2h, 2w, 2)
    quarters = colors.reshape(rows, 2, columns, 2, 2)
    across, down = (np.abs(np.diff(quarters, axis=axis)).mean(axis=(1, 3, 4)) for axis in (3, 1))
    return np.asarray((across + down) / 2, np.float32)


def has_colors_of_noise(steps: Floats, sigma: Floats) -> bool:
    """Whether cells with noise differ in color as by noise of that strength; of too few cells, True.

    Args:
        steps: float32 (N,), of :func:`color_steps`, of the cells with noise.
        sigma: float32 (N,), above 0, of the same cells.
    """
    if len(steps) < _MIN_CELLS:
        return True
    least, most = _OF_NOISE
    share = float(np.median(steps / sigma))
    return share <= most and (share >= least or float(np.median(sigma)) < _COLORLESS)
