"""Training data of the denoiser: patches of images in several sizes, with Gaussian noise on them.

Legend: B patches in a batch, C = 3 channels, S side of a patch in pixels; sigma the standard deviation of the
noise, of 1, where white is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.encoder.datasets import SIDE
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import LFW_CROP, Crop, ImageSpec
from lookalike.trainer.config import PatchSpec
from lookalike.trainer.data.dataset import Dataset, read_pixel_cache, to_floats

Images = NDArray[np.uint8]
_QUANTIZED: Final = 0.6
"""Share of the patches that are rounded to 256 levels after the noise, as an image file is."""
_LUMA: Final = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's


@dataclass(frozen=True, slots=True)
class Source:
    """Images to cut patches from.

    Attributes:
        images: uint8 (H, W, C) each, 1 or 3 channels, at least S high and wide.
        rows: Indices of the images to use.
        share: Weight of this source among all sources.
    """

    images: Sequence[Images] | Images
    rows: NDArray[np.int64]
    share: float


def views_of(dataset: Dataset) -> dict[ImageSpec, float]:
    """Return the image sizes to train on, each with its share; the first one is used for evaluation.

    Downscaled images are as sharp as photographs; LFW at its own size was enlarged and smoothed by JPEG.
    """
    if dataset.name == "mnist":
        return {ImageSpec(size=SIDE, channels=1, crop=Crop()): 1.0}
    if dataset.name == "lfw":
        shares = {250: 0.24, 125: 0.22, 84: 0.14}
        whole = {ImageSpec(size=size, channels=3, crop=Crop()): share for size, share in shares.items()}
        return {ImageSpec(size=64, channels=3, crop=LFW_CROP): 0.4} | whole
    shares = {128: 0.4, 256: 0.4, 64: 0.2}
    return {ImageSpec(size=size, channels=3, crop=dataset.crop): share for size, share in shares.items()}


def sources_of(
    dataset: Dataset, views: dict[ImageSpec, float], rows: NDArray[np.int64], *, side: int
) -> tuple[list[Source], list[str]]:
    """Read the training images in all sizes.

    Args:
        dataset: The data set.
        views: From :func:`views_of`.
        rows: Indices of the training images.
        side: S; smaller sizes are left out.

    Returns:
        Sources, and the fingerprint of each size.

    Raises:
        InvalidArgumentError: S is larger than all sizes.
    """
    largest = max(spec.size for spec in views)
    if side > largest:
        raise InvalidArgumentError(
            f"patches are cut from images of {largest}x{largest} pixels at most, --patch {side} is larger; "
            "take a smaller one"
        )
    sources, fingerprints = [], []
    for spec, share in views.items():
        pixels = read_pixel_cache(dataset, spec, progress=True)
        fingerprints.append(pixels.fingerprint)
        if spec.size >= side:
            usable = rows[~np.isin(rows, list(pixels.failures))]
            sources.append(Source(pixels.images, usable, share))
    return sources, fingerprints


def photographs(*, side: int) -> list[Images]:
    """Return scikit-learn's two sample photographs, and both at half the size: uint8 (H, W, 3).

    Args:
        side: S; smaller images are left out.

    Raises:
        DataError: this scikit-learn has no sample images.
    """
    from sklearn.datasets import load_sample_images

    full = [np.asarray(image, np.uint8) for image in load_sample_images().images]
    if not full:
        raise DataError("scikit-learn has no sample images; install it again")
    every = full + [_half(image) for image in full]
    return [image for image in every if min(image.shape[:2]) >= side]


def _half(image: Images) -> Images:
    height, width = (side // 2 for side in image.shape[:2])
    blocks = image[: height * 2, : width * 2].reshape(height, 2, width, 2, -1)
    half: Images = blocks.mean((1, 3)).round().astype(np.uint8)
    return half


def noisy_batches(
    sources: Sequence[Source],
    spec: PatchSpec,
    *,
    low: float,
    high: float,
    size: int,
    steps: int,
    seed: int,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield noisy patches in [0, 1], the sigma of each, and clean ones; the same epoch is always the same.

    Sigma is uniform for seven patches in ten; for two it comes from the middle of the range, for one from the
    low end, where nothing must change.

    Args:
        sources: Images to cut patches from.
        spec: How to cut them.
        low: Lowest sigma.
        high: Highest sigma.
        size: B.
        steps: Batches in the epoch.
        seed: Of the run.
        epoch: From 0.

    Yields:
        Noisy (B, C, S, S), sigma (B,), clean (B, C, S, S); float32.
    """
    rng = np.random.default_rng((seed, epoch))
    shares = np.array([source.share for source in sources])
    for _ in range(steps):
        chosen = rng.choice(len(sources), size, p=shares / shares.sum())
        clean = to_floats(np.stack([_patch(sources[index], spec, rng) for index in chosen]))
        sigma = low + (high - low) * _levels(size, rng)
        yield _add_noise(clean, sigma, rng), torch.from_numpy(sigma.astype(np.float32)), clean


def _levels(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    part, level = rng.random(count), rng.random(count)
    return np.where(part < 0.7, level, np.where(part < 0.92, 0.13 + 0.67 * level, 0.13 * level))


def _patch(source: Source, spec: PatchSpec, rng: np.random.Generator) -> Images:
    """Cut a patch, uint8 (S, S, 3)."""
    image = source.images[int(rng.choice(source.rows))]
    top, left = (int(rng.integers(side - spec.side + 1)) for side in image.shape[:2])
    patch = image[top : top + spec.side, left : left + spec.side]
    if spec.mirror and rng.random() < 0.5:
        patch = patch[:, ::-1]
    if rng.random() < spec.rotated:
        patch = np.rot90(patch, int(rng.integers(1, 4)))
    if patch.shape[2] == 1:
        return patch.repeat(3, 2)
    if rng.random() < spec.gray:
        patch = (patch @ _LUMA).round().astype(np.uint8)[..., None].repeat(3, 2)
    return patch


def _add_noise(clean: Tensor, sigma: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise, clip, and round some patches to 256 levels; gray patches have one noise channel."""
    noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
    gray = ((clean[:, :1] == clean).flatten(1)).all(1)  # (B,)
    noise[gray] = noise[gray][:, :1]
    noisy = (clean + torch.from_numpy(sigma.astype(np.float32))[:, None, None, None] * noise).clamp(0, 1)
    rounded = torch.from_numpy(rng.random(len(clean)) < _QUANTIZED)
    noisy[rounded] = (noisy[rounded] * 255).round() / 255
    return noisy
