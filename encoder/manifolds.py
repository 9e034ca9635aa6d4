"""How near drawn pictures come to real ones, as clouds of points in a space of features.

Fréchet distance: M. Heusel et al.: GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium. NeurIPS 2017. Precision and recall: T. Kynkäänniemi, T. Karras, S. Laine, J. Lehtinen, T. Aila:
Improved Precision and Recall Metric for Assessing Generative Models. NeurIPS 2019.

Legend: N real points, M drawn ones, F features.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError

__all__ = ["frechet_distance", "mean_distance", "precision_recall"]

Points = NDArray[np.floating]
Doubles = NDArray[np.float64]
_AT_ONCE: Final = 1000  # points compared with all others in one product


def frechet_distance(real: Points, drawn: Points) -> float:
    """Return the squared Fréchet distance of the Gaussians fitted to (N, F) and (M, F).

    |m - m'|² + tr(C + C' - 2 (C C')^½), 0 for the same cloud. It falls with N and M, also between clouds of
    one source: compare it only at equal numbers.

    Raises:
        InvalidArgumentError: either has fewer than two points.
    """
    if min(len(real), len(drawn)) < 2:
        raise InvalidArgumentError(
            f"a Gaussian is fitted to two points or more, got {len(real)} and {len(drawn)}"
        )
    apart = real.mean(axis=0, dtype=np.float64) - drawn.mean(axis=0, dtype=np.float64)
    one, other = (np.atleast_2d(np.cov(points.astype(np.float64), rowvar=False)) for points in (real, drawn))
    root = _root(one)
    # (C C')^½ and (C^½ C' C^½)^½ have one trace; the latter is symmetric
    shared = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()
    return max(0.0, float(apart @ apart + np.trace(one) + np.trace(other) - 2 * shared))


def precision_recall(real: Points, drawn: Points, *, k: int = 3) -> tuple[float, float]:
    """Return the share of drawn points among the real ones, and of real points among the drawn ones.

    A point is among others when it lies no further from one of them than that one's k-th nearest neighbour
    of its own kind.

    Args:
        real: (N, F).
        drawn: (M, F).
        k: At least 1 and fewer than N and M.

    Raises:
        InvalidArgumentError: k cannot be.
    """
    if not 1 <= k < min(len(real), len(drawn)):
        raise InvalidArgumentError(
            f"k is 1 or more and below the points, got {k} of {len(real)} and {len(drawn)}"
        )
    middle = real.mean(axis=0, dtype=np.float64)  # near it squares lose less to rounding
    one, other = real - middle, drawn - middle
    return _among(other, one, _reach(one, k)), _among(one, other, _reach(other, k))


def mean_distance(points: Points) -> float:
    """Return the mean Euclidean distance of all pairs of two different points of (N, F), N > 1.

    Raises:
        InvalidArgumentError: there is no pair.
    """
    if len(points) < 2:
        raise InvalidArgumentError(f"a distance is of two points or more, got {len(points)}")
    centred = points - points.mean(axis=0, dtype=np.float64)
    total = 0.0
    for start in range(0, len(points), _AT_ONCE):
        squares = _squares(centred[start : start + _AT_ONCE], centred)
        squares[np.arange(len(squares)), start + np.arange(len(squares))] = 0  # exactly, of itself
        total += float(np.sqrt(squares).sum())
    return total / (len(points) * (len(points) - 1))


def _root(matrix: Doubles) -> Doubles:
    """Return the symmetric root of a symmetric matrix without negative eigenvalues, but for rounding."""
    values, vectors = np.linalg.eigh(matrix)
    root: Doubles = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return root


def _reach(points: Doubles, k: int) -> Doubles:
    """Return each point's squared distance to its k-th nearest other point, (N,)."""
    found = []
    for start in range(0, len(points), _AT_ONCE):
        squares = _squares(points[start : start + _AT_ONCE], points)
        squares[np.arange(len(squares)), start + np.arange(len(squares))] = -1  # itself comes first
        found.append(np.partition(squares, k, axis=1)[:, k])
    return np.concatenate(found)


def _among(points: Doubles, others: Doubles, reach: Doubles) -> float:
    """Return the share of points (M, F) that lie within reach (N,) of one of the others (N, F)."""
    inside = sum(
        int((_squares(points[start : start + _AT_ONCE], others) <= reach).any(axis=1).sum())
        for start in range(0, len(points), _AT_ONCE)
    )
    return inside / len(points)


def _squares(some: Doubles, others: Doubles) -> Doubles:
    """Return squared distances (B, N), 0 or more."""
    squares: Doubles = some @ others.T
    squares *= -2
    squares += (some**2).sum(axis=1)[:, None]
    squares += (others**2).sum(axis=1)
    return squares.clip(0, out=squares)
