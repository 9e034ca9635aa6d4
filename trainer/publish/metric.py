"""Select the map from a VAE's latents to embeddings, on the validation images.

Legend: N images, D latent size, Z dimensions of the prior, K classes, E embedding size.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import AffineMap, LatentStatistics
from lookalike.trainer.data import subsample

Floats = NDArray[np.float32]

NEIGHBOURS: Final = 5
_ACTIVE: Final = 0.01
"""Variance of the mean of q(z|x) above which a latent dimension is active (Burda et al., ICLR 2016)."""
_CLASS_WEIGHTS: Final = (0.0, 0.25, 0.5, 1.0, 2.0)
_TOLERANCE: Final = 0.001
_MAX_QUERIES: Final = 2000
"""Validation images that the choice is made on."""
_ROWS: Final = 512


def select_metric(
    statistics: LatentStatistics,
    train: Floats,
    train_labels: NDArray[np.int64],
    validation: Floats,
    validation_labels: NDArray[np.int64],
    *,
    prior: int,
) -> tuple[AffineMap, str, float | None]:
    """Choose the embedding map: plain or whitened latents, and a weight for the class probabilities.

    The criterion is how well the five nearest training images classify the validation images. Of maps within
    0.001 of the best, the one with the lowest class weight is taken: similarity within a class matters too.

    Args:
        statistics: Of the training latents.
        train: float32 (N, D), latents of the training images; averages with the mirror images if
            embeddings are.
        train_labels: int64 (N,), -1 if the class is unknown.
        validation: float32 (N', D), the same for the validation images.
        validation_labels: int64 (N',).
        prior: Z; class probabilities follow.

    Returns:
        The map, its name, and its accuracy; without classes the whitened map, and None.
    """
    maps = _maps(statistics, prior)
    known, queries = train_labels >= 0, validation_labels >= 0
    if len(set(train_labels[known].tolist())) < 2 or not queries.any():
        name, affine = maps[-1]
        return affine, name, None
    train, train_labels = train[known], train_labels[known]
    rows = subsample(np.flatnonzero(queries), _MAX_QUERIES)
    scored = [
        (
            neighbour_accuracy(
                affine(train), train_labels, affine(validation[rows]), validation_labels[rows]
            ),
            name,
            affine,
        )
        for name, affine in maps
    ]
    best = max(score for score, _, _ in scored)
    score, name, affine = next(each for each in scored if each[0] >= best - _TOLERANCE)
    return affine, name, score


def _maps(statistics: LatentStatistics, prior: int) -> list[tuple[str, AffineMap]]:
    """Return the candidates by name, ascending by class weight."""
    size = len(statistics.mean)
    style = LatentStatistics(statistics.mean[:prior], statistics.covariance[:prior, :prior])
    variance = np.linalg.eigvalsh(style.covariance.astype(np.float64))
    active = max(1, int((variance > _ACTIVE * min(1.0, variance.max())).sum()))
    plain = np.eye(prior, dtype=np.float32)
    maps = []
    for weight in _CLASS_WEIGHTS if size > prior else (0.0,):
        for name, matrix, length in (
            ("plain", plain, float(np.sqrt(variance.sum()))),
            ("whitened", AffineMap.whitening(style, keep=active).matrix, float(np.sqrt(active))),
        ):
            label = f"{name}, classes {weight:g}" if size > prior else name
            maps.append((label, _combined(matrix / np.float32(length), style.mean, size, weight)))
    return maps


def _combined(matrix: Floats, mean: Floats, size: int, weight: float) -> AffineMap:
    """Combine the map of the prior's dimensions (E', Z), of mean length 1, with that of the classes."""
    rows, prior = matrix.shape
    whole = np.zeros((rows + (size - prior if weight else 0), size), np.float32)
    whole[:rows, :prior] = matrix
    whole[rows:, prior:] = weight * np.eye(len(whole) - rows, size - prior, dtype=np.float32)
    return AffineMap(whole, np.concatenate([mean, np.zeros(size - prior, np.float32)]))


def neighbour_accuracy(
    stored: Floats,
    stored_labels: NDArray[np.int64],
    queries: Floats,
    labels: NDArray[np.int64],
    *,
    neighbours: int = NEIGHBOURS,
) -> float:
    """Return the accuracy of a k-nearest-neighbor classifier, by cosine.

    Ties go to the class with the nearer neighbors, by the sum of cosines.

    Args:
        stored: float32 (N, E) of unit length.
        stored_labels: int64 (N,), 0 or more.
        queries: float32 (N', E) of unit length.
        labels: int64 (N',).
        neighbours: How many vote, at most N.
    """
    count = int(max(stored_labels.max(), labels.max())) + 1
    neighbours = min(neighbours, len(stored))
    correct = 0
    for start in range(0, len(queries), _ROWS):
        similarity = queries[start : start + _ROWS] @ stored.T
        nearest = np.argpartition(-similarity, neighbours - 1, axis=1)[:, :neighbours]  # (B, k)
        cosines = np.take_along_axis(similarity, nearest, 1)
        votes = np.zeros((len(nearest), count))
        row = np.arange(len(nearest))[:, None]
        np.add.at(
            votes, (row, stored_labels[nearest]), 1 + (cosines.astype(np.float64) + 1) / (8 * neighbours)
        )
        correct += int((votes.argmax(1) == labels[start : start + _ROWS]).sum())
    return correct / len(queries)
