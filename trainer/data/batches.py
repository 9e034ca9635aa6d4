"""What the network is shown in an epoch: shuffled, mirrored, moved, made noisy.

Legend: N images, B of them in a batch, C channels, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.encoder.images.noise import NoiseSpec
from lookalike.trainer.data.noise import make_noisy

Images = NDArray[np.uint8]
EVAL_BATCH: Final = 256
"""Images that a network sees at once where none is learned from: bounds the memory."""


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

    All randomness comes from (seed, epoch): an epoch is the same whenever it is drawn.

    Args:
        images: uint8 (N, S, S, C).
        indices: Of the images that are shown, each once.
        size: B at most; the batches of an epoch differ by at most one image.
        shift: Each image is moved by up to this many pixels each way.
        noise: What is put on the input; each image draws its own level.
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

    The target is clean. An epoch is the same whenever it is drawn.

    Args:
        images: uint8 (N, S, S, C).
        labels: int64 (N,).
        indices: Of the images that are shown, each once.
        size: B at most; the batches of an epoch differ by at most one image.
        shift: Each image is moved by up to this many pixels each way.
        mirror: Whether half of them are mirrored.
        binarise: Whether pixels are drawn, 1 with their brightness as the probability, else 0; where there is
            noise, those of the target alone: noise is put on the picture as it is.
        noise: What is put on the input; each image draws its own level.
        seed: Of the run.
        epoch: From 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(indices)
    source = torch.Generator().manual_seed(int(rng.integers(2**62)))
    for chosen in np.array_split(order, -(-len(order) // size)):
        rows = np.sort(chosen)
        plain = to_floats(_varied(images, rows, rng, mirror=mirror, shift=shift))  # (B, C, S, S)
        target = torch.bernoulli(plain, generator=source) if binarise else plain
        yield (
            (target if noise is None else make_noisy(plain, noise, rng)),
            target,
            torch.from_numpy(labels[rows]),
        )


def _varied(
    images: Images, rows: NDArray[np.int64], rng: np.random.Generator, *, mirror: bool, shift: int
) -> Images:
    """Take rows, ascending (the file is read forwards), half of them mirrored, each moved."""
    shown = images[rows]  # (B, S, S, C)
    if mirror:
        mirrored = rng.random(len(shown)) < 0.5
        shown[mirrored] = shown[mirrored, :, ::-1]
    if shift:
        shown = shift_images(shown, rng.integers(-shift, shift + 1, (len(shown), 2)))
    return shown


def to_floats(rows: Images) -> Tensor:
    """Return float32 (B, C, S, S) in [0, 1] of uint8 (B, S, S, C): what the networks take."""
    return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255


def shift_images(images: Images, by: NDArray[np.int64]) -> Images:
    """Move uint8 (B, S, S, C) down and right by int (B, 2) pixels; what comes in repeats the edge."""
    side = np.arange(images.shape[1])
    down, right = (np.clip(side - step[:, None], 0, side[-1]) for step in by.T)  # (B, S) each
    out: Images = images[np.arange(len(images))[:, None, None], down[:, :, None], right[:, None, :]]
    return out


def chunked(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut indices into runs of at most :data:`EVAL_BATCH`, in order."""
    return np.array_split(indices, -(-len(indices) // EVAL_BATCH))


def subsample(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of the indices, and at least one, in order and evenly chosen."""
    count = min(len(indices), max(1, most))
    chosen: NDArray[np.int64] = indices[np.arange(count) * len(indices) // count]
    return chosen
