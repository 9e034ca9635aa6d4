"""Batches of training images: shuffled, mirrored, shifted, with noise.

Legend: N images, B of them in a batch, C channels, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.encoder.images import NoiseSpec
from lookalike.trainer.data.noise import make_noisy

Images = NDArray[np.uint8]
EVAL_BATCH: Final = 256
"""Images in a batch of evaluation: bounds the memory."""


def batches(
    images: Images,
    indices: NDArray[np.int64],
    *,
    size: int,
    shift: int,
    noise: NoiseSpec | None = None,
    mirror: bool = True,
    seed: int,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield input and target, both float32 (B, C, S, S); the target is clean and in [0, 1].

    All randomness comes from (seed, epoch): the same epoch is always the same.

    Args:
        images: uint8 (N, S, S, C).
        indices: The images to show, each once.
        size: Largest B; the batches of an epoch differ by at most one image.
        shift: Each image is shifted by up to this many pixels each way.
        noise: Noise added to the input, with a level drawn for each image.
        mirror: Whether half of them are mirrored.
        seed: Of the run.
        epoch: From 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(indices)
    for chosen in np.array_split(order, -(-len(order) // size)):
        target = to_floats(_varied(images, np.sort(chosen), rng, mirror=mirror, shift=shift))  # (B, C, S, S)
        yield (target if noise is None else make_noisy(target, noise, rng)), target


def labelled_batches(
    images: Images,
    labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    *,
    size: int,
    shift: int,
    mirror: bool,
    binarise: bool,
    noise: NoiseSpec | None = None,
    seed: int,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield input and target, both float32 (B, C, S, S) in [0, 1], and labels int64 (B,).

    Other arguments are those of :func:`batches`. With ``binarise`` each pixel becomes 1 with its brightness
    as the probability, else 0; with noise only the target's pixels, and the noise is added to the gray image.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(indices)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for chosen in np.array_split(order, -(-len(order) // size)):
        rows = np.sort(chosen)
        plain = to_floats(_varied(images, rows, rng, mirror=mirror, shift=shift))  # (B, C, S, S)
        target = torch.bernoulli(plain, generator=generator) if binarise else plain
        inputs = target if noise is None else make_noisy(plain, noise, rng)
        yield inputs, target, torch.from_numpy(labels[rows])


def _varied(
    images: Images, rows: NDArray[np.int64], rng: np.random.Generator, *, mirror: bool, shift: int
) -> Images:
    """Read rows, ascending (the file is read forwards), mirror half of them and shift each."""
    batch = images[rows]  # (B, S, S, C)
    if mirror:
        mirrored = rng.random(len(batch)) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
    if shift:
        batch = shift_images(batch, rng.integers(-shift, shift + 1, (len(batch), 2)))
    return batch


def to_floats(rows: Images) -> Tensor:
    """Return float32 (B, C, S, S) in [0, 1], the networks' input, of uint8 (B, S, S, C)."""
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255


def shift_images(images: Images, by: NDArray[np.int64]) -> Images:
    """Shift uint8 (B, S, S, C) down and right by int (B, 2) pixels; the edge is repeated."""
    side = np.arange(images.shape[1])
    down, right = (np.clip(side - step[:, None], 0, side[-1]) for step in by.T)  # (B, S) each
    shifted: Images = images[np.arange(len(images))[:, None, None], down[:, :, None], right[:, None, :]]
    return shifted


def chunked(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split indices into chunks of at most :data:`EVAL_BATCH`, in order."""
    return np.array_split(indices, -(-len(indices) // EVAL_BATCH))


def subsample(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of the indices, and at least one, in order and evenly spaced."""
    count = min(len(indices), max(1, most))
    chosen: NDArray[np.int64] = indices[np.arange(count) * len(indices) // count]
    return chosen
