"""What a VAE's latents are compared by: the map is chosen on the validation images.

Legend: N images, D latent size, Z numbers of it that are drawn, K classes, E embedding size.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.whitening import AffineMap, LatentStatistics
from lookalike.trainer.data.batches import subsample

Floats = NDArray[np.float32]

NEIGHBOURS: Final = 5
_ACTIVE: Final = 0.01
"""Variance of the mean of q(z|x) above which a number of the latent is in use (Burda et al., ICLR 2016)."""
_CLASS_WEIGHTS: Final = (0.0, 0.25, 0.5, 1.0, 2.0)
_NEARLY: Final = 0.001
_ASKED: Final = 2000
"""Validation images that the choice is made on."""
_ROWS: Final = 512


def select_metric(
    statistics: LatentStatistics,
    train: Floats,
    train_labels: NDArray[np.int64],
    validation: Floats,
    validation_labels: NDArray[np.int64],
    *,
    drawn: int,
) -> tuple[AffineMap, str, float | None]:
    """Choose how latents are compared: as they are or whitened, and how much class probabilities weigh.

    By the share of validation images whose class most of their five nearest training images have. Of maps
    within 0.001 of the best, the one in which classes weigh least: what is alike within a class counts too.

    Args:
        statistics: Of the training latents.
        train: float32 (N, D), latents of the training images; averages with the mirror images where these are
            compared.
        train_labels: int64 (N,), -1 where the class is not known.
        validation: float32 (N', D), the same of the validation images.
        validation_labels: int64 (N',).
        drawn: Z; class probabilities lie behind.

    Returns:
        The map, its name, and that share; without classes the whitened map, and None.
    """
    maps = _maps(statistics, drawn)
    known, asked = train_labels >= 0, validation_labels >= 0
    if len(set(train_labels[known].tolist())) < 2 or not asked.any():
        name, affine = maps[-1]
        return affine, name, None
    train, train_labels = train[known], train_labels[known]
    some = subsample(np.flatnonzero(asked), _ASKED)
    scored = [
        (
            neighbour_accuracy(
                affine(train), train_labels, affine(validation[some]), validation_labels[some]
            ),
            name,
            affine,
        )
        for name, affine in maps
    ]
    best = max(score for score, _, _ in scored)
    score, name, affine = next(each for each in scored if each[0] >= best - _NEARLY)
    return affine, name, score


def _maps(statistics: LatentStatistics, drawn: int) -> list[tuple[str, AffineMap]]:
    """Name the candidates, those in which classes weigh least first."""
    size = len(statistics.mean)
    style = LatentStatistics(statistics.mean[:drawn], statistics.covariance[:drawn, :drawn])
    variance = np.linalg.eigvalsh(style.covariance.astype(np.float64))
    active = max(1, int((variance > _ACTIVE * min(1.0, variance.max())).sum()))
    plain = np.eye(drawn, dtype=np.float32)
    maps = []
    for weight in _CLASS_WEIGHTS if size > drawn else (0.0,):
        for name, matrix, length in (
            ("plain", plain, float(np.sqrt(variance.sum()))),
            ("whitened", AffineMap.whitening(style, keep=active).matrix, float(np.sqrt(active))),
        ):
            told = f"{name}, classes {weight:g}" if size > drawn else name
            maps.append((told, _joined(matrix / np.float32(length), style.mean, size, weight)))
    return maps


def _joined(matrix: Floats, mean: Floats, size: int, weight: float) -> AffineMap:
    """Lay the map of what is drawn (E', Z) beside that of the classes; style has length 1 on average."""
    rows, drawn = matrix.shape
    whole = np.zeros((rows + (size - drawn if weight else 0), size), np.float32)
    whole[:rows, :drawn] = matrix
    whole[rows:, drawn:] = weight * np.eye(len(whole) - rows, size - drawn, dtype=np.float32)
    return AffineMap(whole, np.concatenate([mean, np.zeros(size - drawn, np.float32)]))


def neighbour_accuracy(
    stored: Floats,
    stored_labels: NDArray[np.int64],
    asking: Floats,
    labels: NDArray[np.int64],
    *,
    neighbours: int = NEIGHBOURS,
) -> float:
    """Return the share of queries whose class most of their nearest neighbours have, by cosine.

    Of classes with as many neighbours the one with the nearer neighbours, by the sum of cosines, wins.

    Args:
        stored: float32 (N, E) of unit length.
        stored_labels: int64 (N,), 0 or more.
        asking: float32 (N', E) of unit length.
        labels: int64 (N',).
        neighbours: How many vote, at most N.
    """
    count = int(max(stored_labels.max(), labels.max())) + 1
    neighbours = min(neighbours, len(stored))
    right = 0
    for start in range(0, len(asking), _ROWS):
        likeness = asking[start : start + _ROWS] @ stored.T
        nearest = np.argpartition(-likeness, neighbours - 1, axis=1)[:, :neighbours]  # (B, k)
        cosines = np.take_along_axis(likeness, nearest, 1)
        votes = np.zeros((len(nearest), count))
        row = np.arange(len(nearest))[:, None]
        np.add.at(
            votes, (row, stored_labels[nearest]), 1 + (cosines.astype(np.float64) + 1) / (8 * neighbours)
        )
        right += int((votes.argmax(1) == labels[start : start + _ROWS]).sum())
    return right / len(asking)
