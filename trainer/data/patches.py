"""Training data of the denoiser: patches of images in several sizes, with noise on them.

Legend: B patches in a batch, C channels (1 gray, 3 RGB), S side of a patch in pixels, P with its border;
sigma the standard deviation of the noise, of 1, where white is 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lookalike.encoder.datasets import SIDE
from lookalike.encoder.errors import DataError, ImageError, InvalidArgumentError, printable
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import LFW_CROP, Crop, ImageSpec, decode_rgb, half_size
from lookalike.trainer.config import PatchSpec
from lookalike.trainer.data.dataset import Dataset, read_pixel_cache
from lookalike.trainer.data.degradation import BORDER, NoiseMix, degrade
from lookalike.trainer.data.drawn_textures import draw_texture

Floats = NDArray[np.float32]
Images = NDArray[np.uint8]
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
    return {ImageSpec(size=128, channels=3, crop=dataset.crop): 1.0}  # photographs are trained on whole


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


_SCALES: Final = (1, 2, 4)
"""Photographs are used at their own size, a half and a quarter of it: leaves become grass."""
_SCALE_SHARES: Final = (0.45, 0.35, 0.2)
_MAX_PIXELS: Final = 600_000_000
"""Of all photographs together: 2.4 GB with the smaller sizes. Of larger folders a part of each is used."""
_MAX_PHOTOGRAPH: Final = 200_000_000


@dataclass(frozen=True, slots=True)
class Photographs:
    """Photographs to cut patches from, in memory.

    Attributes:
        images: uint8 (H, W, 3) each: as they are, then at a half and at a quarter of the size.
        scales: For each image, how many times smaller it is than the photograph: 1, 2 or 4.
        fingerprint: SHA-256 of all their pixels.
    """

    images: tuple[Images, ...]
    scales: tuple[int, ...]
    fingerprint: str

    def sources(self, share: float, *, side: int) -> list[Source]:
        """Return a source for each scale that has images of at least S; together they have the share.

        Raises:
            InvalidArgumentError: S is larger than all photographs.
        """
        sources = []
        for scale, part in zip(_SCALES, _SCALE_SHARES, strict=True):
            rows = [
                row
                for row, (image, its) in enumerate(zip(self.images, self.scales, strict=True))
                if its == scale and min(image.shape[:2]) >= side
            ]
            if rows:
                sources.append(Source(self.images, np.array(rows, np.int64), share * part))
        if not sources:
            largest = max(min(image.shape[:2]) for image in self.images)
            raise InvalidArgumentError(
                f"patches are cut from photographs of {largest} pixels at most, --patch {side} is larger; "
                "take a smaller one"
            )
        return sources


def in_memory(photographs: Sequence[Images]) -> Photographs:
    """Reduce photographs, uint8 (H, W, 3) each, to all scales."""
    images, scales, digest = [], [], hashlib.sha256()
    for photograph in photographs:
        digest.update(repr(photograph.shape).encode())
        digest.update(np.ascontiguousarray(photograph).data)
        image = photograph
        for scale in _SCALES:
            if scale > 1:
                image = half_size(image)
            if min(image.shape[:2]) > 0:
                images.append(image)
                scales.append(scale)
    return Photographs(tuple(images), tuple(scales), digest.hexdigest())


def read_photographs(
    files: Sequence[Path], *, seed: int = 0, log: Callable[[str], None] = lambda _: None
) -> Photographs:
    """Read photographs into memory; those that cannot be read are left out, and logged.

    Args:
        files: Image files.
        seed: Of the part of each that is used when all of them are too large for the memory.
        log: Called with each line of text.

    Raises:
        DataError: none can be read.
    """
    rng, photographs = np.random.default_rng(seed), []
    most = _MAX_PIXELS // max(1, len(files))
    for file in tqdm(files, desc="reading photographs", unit="image", disable=None, leave=False):
        try:
            image = decode_rgb(read_bounded(file), max_pixels=_MAX_PHOTOGRAPH, name=str(file))
        except ImageError as error:
            log(f"left out: {error}")
        except OSError as error:
            log(f"left out: {printable(str(file))}: cannot be read ({error.strerror or error})")
        else:
            photographs.append(_window(image, most, rng))
    if not photographs:
        raise DataError(f"none of the {len(files)} photographs can be read; name a folder of photographs")
    found = in_memory(photographs)
    size = sum(image.size for image in found.images)
    log(
        f"{len(photographs)} photographs, {sum(image.size for image in photographs) / 3e6:.0f} megapixels: "
        f"{size / 1e9:.1f} GB of memory"
    )
    return found


def sample_photographs() -> Photographs:
    """Return scikit-learn's two sample photographs.

    Raises:
        DataError: this scikit-learn has no sample images.
    """
    from sklearn.datasets import load_sample_images

    full = [np.asarray(image, np.uint8) for image in load_sample_images().images]
    if not full:
        raise DataError("scikit-learn has no sample images; install it again")
    return in_memory(full)


def _window(image: Images, most: int, rng: np.random.Generator) -> Images:
    """Return a random part of at most ``most`` pixels and of the same proportions."""
    height, width = image.shape[:2]
    factor = min(1.0, (most / (height * width)) ** 0.5)
    rows, columns = max(1, int(height * factor)), max(1, int(width * factor))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    return image[top : top + rows, left : left + columns].copy()


def noisy_batches(
    sources: Sequence[Source],
    spec: PatchSpec,
    mix: NoiseMix,
    *,
    size: int,
    steps: int,
    seed: int,
    epoch: int,
    spread: float = 0.0,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield noisy patches in [0, 1], sigma at each pixel, and clean ones; the same epoch is always the same.

    Args:
        sources: Images to cut patches from.
        spec: How to cut them.
        mix: Which noise.
        size: B.
        steps: Batches in the epoch.
        seed: Of the run.
        epoch: From 0.
        spread: Half of the patches come with a sigma that is wrong by a factor; the standard deviation of
            its logarithm.

    Yields:
        Noisy (B, 3, S, S), sigma (B, S, S), clean (B, 3, S, S); float32.
    """
    rng = np.random.default_rng((seed, epoch))
    shares = np.array([source.share for source in sources])
    for _ in range(steps):
        chosen = rng.choice(len(sources), size, p=shares / shares.sum())
        patches = [degrade(_patch(sources[index], spec, rng), mix, spec.side, rng) for index in chosen]
        noisy, sigma, clean = zip(*patches, strict=True)
        wrong = np.where(rng.random(size) < 0.5, np.exp(spread * rng.standard_normal(size)), 1)
        yield (
            _to_rgb(noisy),
            torch.from_numpy(np.stack(sigma) * wrong[:, None, None].astype(np.float32)),
            _to_rgb(clean),
        )


def _to_rgb(patches: Sequence[Floats]) -> Tensor:
    """B of (S, S, C) -> (B, 3, S, S)."""
    same = [np.broadcast_to(patch, (*patch.shape[:2], 3)) for patch in patches]
    return torch.from_numpy(np.stack(same)).permute(0, 3, 1, 2)


def _patch(source: Source, spec: PatchSpec, rng: np.random.Generator) -> Images:
    """Cut a patch with a border, uint8 (P, P, C); P is smaller where the image is."""
    image = source.images[int(rng.choice(source.rows))]
    side = min(spec.side + BORDER, *image.shape[:2])
    top, left = (int(rng.integers(whole - side + 1)) for whole in image.shape[:2])
    patch = image[top : top + side, left : left + side]
    if spec.mirror and rng.random() < 0.5:
        patch = patch[:, ::-1]
    if rng.random() < spec.rotated:
        patch = np.rot90(patch, int(rng.integers(1, 4)))
    if patch.shape[2] == 3 and rng.random() < spec.gray:
        patch = (patch @ _LUMA).round().astype(np.uint8)[..., None]
    elif patch.shape[2] == 3 and rng.random() < spec.relit:
        patch = _relit(patch, rng)
    if rng.random() < spec.drawn:
        patch = draw_texture(patch, rng)
    return patch


def _relit(patch: Images, rng: np.random.Generator) -> Images:
    """Return (P, P, 3) with another tone curve and color of the light, half of them with less contrast."""
    values = patch.astype(np.float32) / np.float32(255)
    gains = np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    values = (values ** np.float32(np.exp(rng.uniform(-0.5, 0.5))) * gains).clip(0, 1)
    if rng.random() < 0.5:
        low, high = np.float32(rng.uniform(0, 0.15)), np.float32(rng.uniform(0.6, 1))
        values = low + values * (high - low)
    relit: Images = np.rint(values * np.float32(255)).astype(np.uint8)
    return relit
