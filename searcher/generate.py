"""What a model keeps of a picture, and pictures that never were.

Legend: N images, H = W = S pixels, C channels, D latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.errors import ImageError, OptionError
from encoder.images import Crop, read_pixels, shown, to_uint8
from encoder.model import Model

__all__ = ["read_all", "reconstruct", "sample"]

Pixels = NDArray[np.uint8]


def sample(model: Model, count: int, *, seed: int = 0, temperature: float = 1.0) -> Pixels:
    """Draw pictures of latents from the Gaussian fitted to the training latents.

    Args:
        model: With a decoder.
        count: N, at least 1.
        seed: The same seed draws the same pictures on the same machine.
        temperature: Scale of the deviations from the mean; under 1 tamer, over 1 wilder.

    Returns:
        uint8 (N, H, W, C).

    Raises:
        OptionError: a count under 1, a negative temperature, or a model without decoder.
    """
    if count < 1 or temperature < 0:
        raise OptionError(f"pictures are at least 1 at temperature 0 or more, got {count} at {temperature}")
    statistics = model.bundle.statistics
    variance, axes = np.linalg.eigh(statistics.covariance.astype(np.float64))
    scale = temperature * np.sqrt(variance.clip(0))
    drawn = np.random.default_rng(seed).standard_normal((count, len(scale))) * scale  # (N, D) on the axes
    return to_uint8(model.decode((drawn @ axes.T + statistics.mean).astype(np.float32)))


def read_all(
    model: Model, files: Sequence[Path], *, crop: Crop | None = None
) -> tuple[list[Path], Pixels, list[str]]:
    """Read pictures as the model sees them.

    Returns:
        The files that could be read, their pixels uint8 (N, H, W, C), and a one-line reason for each other.
    """
    image = model.bundle.spec.image
    good: list[Path] = []
    pixels: list[Pixels] = []
    failed: list[str] = []
    for file in files:
        try:
            pixels.append(read_pixels(file.read_bytes(), image, crop=crop, name=str(file)))
            good.append(file)
        except ImageError as error:
            failed.append(str(error))
        except OSError as error:
            failed.append(f"{shown(str(file))}: cannot be read ({error.strerror})")
    return good, np.array(pixels, np.uint8).reshape(-1, *image.shape), failed


def reconstruct(model: Model, pixels: Pixels) -> Pixels:
    """Return uint8 (N, H, W, C): what the model keeps of uint8 (N, H, W, C)."""
    return to_uint8(model.reconstruct(pixels))
