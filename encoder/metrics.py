"""Metrics: PSNR, area under the ROC, and how close generated images are to real ones in a feature space.

Fréchet distance: M. Heusel et al.: GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium. NeurIPS 2017. Precision and recall: T. Kynkäänniemi, T. Karras, S. Laine, J. Lehtinen, T. Aila:
Improved Precision and Recall Metric for Assessing Generative Models. NeurIPS 2019.

Legend: N real points, M generated ones, F features.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError

Points = NDArray[np.floating]
Doubles = NDArray[np.float64]
_BLOCK: Final = 1000  # points compared with all others in one product


def psnr_from_mse(error: float, *, peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error; infinite when it is 0.

    PSNR = 10 log10(peak^2 / MSE). (ITU-T Rec. J.247.)

    Args:
        error: Mean of the squared differences.
        peak: The largest possible value: 1 for floats in [0, 1], 255 for uint8.
    """
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def psnr(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the PSNR in dB of two uint8 arrays of the same shape; infinite when they are equal."""
    return psnr_from_mse(float(np.square(image.astype(np.float64) - other).mean()), peak=255)


def roc_auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC: how often a positive scores above a negative; ties count half.

    H. B. Mann, D. R. Whitney: On a test of whether one of two random variables is stochastically larger than
    the other. Annals of Mathematical Statistics 18, 1947.

    Args:
        scores: float (N,).
        positive: bool (N,), with at least one of each value.
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    count = int(positive.sum())
    above = ranks[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))


def frechet_distance(real: Points, generated: Points) -> float:
    """Return the squared Fréchet distance of the Gaussians fitted to (N, F) and (M, F).

    |m - m'|² + tr(C + C' - 2 (C C')^½), 0 for equal sets. It falls as N and M grow, even for two samples of
    one
    source: compare it only at equal N and M.

    Raises:
        InvalidArgumentError: either set has fewer than two points.
    """
    if min(len(real), len(generated)) < 2:
        raise InvalidArgumentError(
            f"fitting a Gaussian needs at least two points, got {len(real)} and {len(generated)}"
        )
    difference = real.mean(axis=0, dtype=np.float64) - generated.mean(axis=0, dtype=np.float64)
    one, other = (
        np.atleast_2d(np.cov(points.astype(np.float64), rowvar=False)) for points in (real, generated)
    )
    root = _root(one)
    # (C C')^½ and (C^½ C' C^½)^½ have the same trace; the latter is symmetric
    shared = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()
    return max(0.0, float(difference @ difference + np.trace(one) + np.trace(other) - 2 * shared))


def precision_recall(real: Points, generated: Points, *, k: int = 3) -> tuple[float, float]:
    """Return the share of generated points among the real ones, and of real points among the generated ones.

    A point is among others when it is no further from one of them than that one's k-th nearest neighbor in
    its own set.

    Args:
        real: (N, F).
        generated: (M, F).
        k: At least 1 and fewer than N and M.

    Raises:
        InvalidArgumentError: k is out of range.
    """
    if not 1 <= k < min(len(real), len(generated)):
        raise InvalidArgumentError(
            f"k must be at least 1 and less than the numbers of points, got k={k} for {len(real)} and "
            f"{len(generated)}"
        )
    center = real.mean(axis=0, dtype=np.float64)  # squares close to 0 lose less to rounding
    one, other = real - center, generated - center
    return _share_within(other, one, _kth_distance(one, k)), _share_within(
        one, other, _kth_distance(other, k)
    )


def mean_distance(points: Points) -> float:
    """Return the mean Euclidean distance of all pairs of two different points of (N, F), N > 1.

    Raises:
        InvalidArgumentError: there are fewer than two points.
    """
    if len(points) < 2:
        raise InvalidArgumentError(f"a mean distance needs at least two points, got {len(points)}")
    centered = points - points.mean(axis=0, dtype=np.float64)
    total = 0.0
    for start in range(0, len(points), _BLOCK):
        squares = _squares(centered[start : start + _BLOCK], centered)
        squares[np.arange(len(squares)), start + np.arange(len(squares))] = 0  # to itself: exactly 0
        total += float(np.sqrt(squares).sum())
    return total / (len(points) * (len(points) - 1))


def _root(matrix: Doubles) -> Doubles:
    """Return the symmetric square root of a positive semidefinite matrix, up to rounding."""
    values, vectors = np.linalg.eigh(matrix)
    root: Doubles = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return root


def _kth_distance(points: Doubles, k: int) -> Doubles:
    """Return each point's squared distance to its k-th nearest other point, (N,)."""
    distances = []
    for start in range(0, len(points), _BLOCK):
        squares = _squares(points[start : start + _BLOCK], points)
        squares[np.arange(len(squares)), start + np.arange(len(squares))] = -1  # the point itself comes first
        distances.append(np.partition(squares, k, axis=1)[:, k])
    return np.concatenate(distances)


def _share_within(points: Doubles, others: Doubles, radius: Doubles) -> float:
    """Return the share of points (M, F) within the squared radius (N,) of one of the others (N, F)."""
    inside = sum(
        int((_squares(points[start : start + _BLOCK], others) <= radius).any(axis=1).sum())
        for start in range(0, len(points), _BLOCK)
    )
    return inside / len(points)


def _squares(some: Doubles, others: Doubles) -> Doubles:
    """Return squared distances (B, N), 0 or more."""
    squares: Doubles = some @ others.T
    squares *= -2
    squares += (some**2).sum(axis=1)[:, None]
    squares += (others**2).sum(axis=1)
    return squares.clip(0, out=squares)
