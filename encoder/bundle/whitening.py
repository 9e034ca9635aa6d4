"""Latents to embeddings: statistics of the training latents, and the affine map computed from them.

Legend: N images, D latent size, E embedding size; all float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError

Floats = NDArray[np.float32]

_DEGENERATE: Final = 1e-6  # of the largest variance: what lies below is rounding


@dataclass(frozen=True, slots=True)
class LatentStatistics:
    """Mean float32 (D,) and covariance float32 (D, D) of the training latents, for sampling."""

    mean: Floats
    covariance: Floats

    @classmethod
    def from_latents(cls, latents: Floats) -> Self:
        """Measure float32 (N, D) latents.

        Raises:
            InvalidArgumentError: Fewer than two latents, or values that are not finite.
        """
        if latents.ndim != 2 or len(latents) < 2 or not np.isfinite(latents).all():
            raise InvalidArgumentError(
                f"statistics need two or more finite latents (N, D), got {latents.shape}; "
                "give more images, or look for NaN in training"
            )
        covariance = np.cov(latents.astype(np.float64), rowvar=False).reshape(2 * (latents.shape[1],))
        return cls(latents.mean(axis=0, dtype=np.float64).astype(np.float32), covariance.astype(np.float32))


@dataclass(frozen=True, slots=True)
class AffineMap:
    """Map from latents to embeddings: ``e = M (z - offset)`` scaled to unit length.

    Attributes:
        matrix: M, float32 (E, D).
        offset: float32 (D,).
    """

    matrix: Floats
    offset: Floats

    @classmethod
    def whitening(cls, statistics: LatentStatistics, *, keep: int | None = None) -> Self:
        """Rotate to the principal axes, keep the first ``keep`` of them, scale each to unit variance.

        Axes whose variance is under a millionth of the largest carry only rounding errors and are dropped.
        (PCA whitening; Kessy, Lewin & Strimmer, The American Statistician 72, 2018.)

        Raises:
            InvalidArgumentError: ``keep`` is under 1, or the latents do not vary.
        """
        if keep is not None and keep < 1:
            raise InvalidArgumentError(
                f"whitening must keep 1 axis or more, not {keep}; leave keep out for all"
            )
        variance, axes = np.linalg.eigh(statistics.covariance.astype(np.float64))
        order = np.argsort(variance)[::-1][:keep]
        order = order[variance[order] > max(_DEGENERATE * variance.max(), 0.0)]
        if not len(order):
            raise InvalidArgumentError(
                "whitening needs latents that vary, these are all equal; give other images"
            )
        matrix = (axes[:, order] / np.sqrt(variance[order])).T
        return cls(np.ascontiguousarray(matrix, dtype=np.float32), statistics.mean)

    def __call__(self, latents: Floats) -> Floats:
        """Map float32 (N, D) to float32 (N, E) of unit length; a latent at the offset stays zero."""
        mapped = (latents - self.offset) @ self.matrix.T
        length = np.linalg.norm(mapped, axis=1, keepdims=True)
        unit: Floats = np.divide(mapped, length, out=np.zeros_like(mapped), where=length > 0)
        return unit
