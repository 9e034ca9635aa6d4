"""Images reduced, resized and averaged over squares.

Legend: H, W = height and width, C channels.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]


def box_means(values: Floats, side: int, *, border: Literal["reflect", "symmetric"]) -> NDArray[np.float64]:
    """Return the mean of the square around each pixel, float64 of the shape of the values.

    Args:
        values: float32 (H, W) or (H, W, C).
        side: Of the squares, in pixels; odd.
        border: How the image is mirrored at its borders, as in ``np.pad``.
    """
    reach = side // 2
    around = ((reach + 1, reach), (reach + 1, reach), (0, 0))[: values.ndim]
    sums = np.pad(values, around, border).cumsum(0, dtype=np.float64).cumsum(1)
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    means: NDArray[np.float64] = total / side**2
    return means


def resize_floats(values: Floats, height: int, width: int) -> Floats:
    """Return float32 (H, W, C) resized to (height, width, C), bicubic; results may leave the range."""
    planes = [
        np.asarray(Image.fromarray(values[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
        for channel in range(values.shape[2])
    ]
    return np.stack(planes, 2)


def half_size(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the means of 2 x 2 pixels of uint8 (H, W, C), uint8 (H // 2, W // 2, C); halves to even.

    An odd last row or column is left out. (Pillow's ``reduce`` keeps it, and rounds halves up, which makes
    an image brighter by an eighth of a step.)
    """
    height, width = (side // 2 for side in pixels.shape[:2])
    blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, pixels.shape[2])
    means: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return means
