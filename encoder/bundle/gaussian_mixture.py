"""Mixtures of Gaussians: fitted to latents, drawn from.

Legend: N latents, Z numbers of each, M components of a mixture, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.whitening import LatentStatistics
from lookalike.encoder.errors import InvalidArgumentError

Floats = NDArray[np.float32]

MAX_COMPONENTS: Final = 1 << 22
"""Values of all covariances of a mixture: 16 MiB, far above any that is of use."""
_SUM_TOLERANCE: Final = 1e-4
_SYMMETRY_TOLERANCE: Final = 1e-5


@dataclass(frozen=True, slots=True)
class GaussianMixture:
    """A mixture of Gaussians.

    Attributes:
        weights: float32 (M,), at least 0, sum 1.
        means: float32 (M, Z).
        covariances: float32 (M, Z, Z), symmetric, no variance below 0.
    """

    weights: Floats
    means: Floats
    covariances: Floats

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            InvalidArgumentError: it is no mixture.
        """
        count, size = self.means.shape if self.means.ndim == 2 else (0, 0)
        for name, shape in (
            ("weights", (count,)),
            ("means", (count, size)),
            ("covariances", (count, size, size)),
        ):
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != shape or not array.size:
                raise InvalidArgumentError(
                    f"{name} of a mixture must be float32 {shape}, none of them 0, "
                    f"got {array.dtype} {array.shape}"
                )
            if not np.isfinite(array).all():
                raise InvalidArgumentError(f"{name} of a mixture must be finite, these hold NaN or infinity")
        if self.covariances.size > MAX_COMPONENTS:
            raise InvalidArgumentError(
                f"covariances of a mixture are at most {MAX_COMPONENTS:,} values, {count} of {size}x{size} are more; "
                "take fewer components"
            )
        total = float(self.weights.sum(dtype=np.float64))
        if self.weights.min() < 0 or abs(total - 1) > _SUM_TOLERANCE:
            raise InvalidArgumentError(
                f"weights of a mixture must be at least 0 and sum to 1, "
                f"the least is {self.weights.min():g}, the sum {total:g}"
            )
        _check_covariances(self.covariances)

    @property
    def components(self) -> int:
        """M."""
        return len(self.weights)

    @property
    def size(self) -> int:
        """Z."""
        return int(self.means.shape[1])

    @classmethod
    def of(cls, weights: NDArray[Any], means: NDArray[Any], covariances: NDArray[Any]) -> Self:
        """Make one of floats of any precision, as another library fits them; rounding is put right.

        Raises:
            InvalidArgumentError: it is no mixture.
        """
        wide = np.asarray(weights, np.float64)
        full = np.asarray(covariances, np.float64)
        if full.ndim == 3 and full.shape[1] == full.shape[2]:
            _check_covariances(full)
            full = (full + full.swapaxes(1, 2)) / 2
        total = wide.sum()
        if abs(total - 1) <= _SUM_TOLERANCE:
            wide = wide / total
        with np.errstate(over="ignore"):  # infinite then, and refused
            return cls(wide.astype(np.float32), np.asarray(means).astype(np.float32), full.astype(np.float32))

    @classmethod
    def gaussian(cls, latents: Floats) -> Self:
        """Fit one Gaussian to float32 (N, Z).

        Raises:
            InvalidArgumentError: fewer than two latents, or values that are not finite.
        """
        statistics = LatentStatistics.of(latents)
        return cls(np.ones(1, np.float32), statistics.mean[None], statistics.covariance[None])

    @classmethod
    def by_class(cls, latents: Floats, labels: NDArray[Any], count: int) -> Self:
        """Fit a Gaussian to each class; its weight is the class's share.

        The covariance of a class with few examples is drawn to the one pooled over all classes, by as much as
        Z examples would (Friedman, Regularized Discriminant Analysis, JASA 84, 1989):
        ``(n S_k + Z S) / (n + Z)`` with n examples and the covariances S_k of the class and S within classes.

        Args:
            latents: float32 (N, Z).
            labels: Whole numbers (N,), the class of each; those below 0 have none and are left out.
            count: K.

        Raises:
            InvalidArgumentError: labels that do not fit, a class without example, or latents that are not finite.
        """
        labels = np.asarray(labels)
        if latents.ndim != 2 or labels.shape != latents.shape[:1] or labels.dtype.kind not in "iu":
            raise InvalidArgumentError(
                f"classes need latents (N, Z) and whole labels (N,), "
                f"got {latents.shape} and {labels.dtype} {labels.shape}"
            )
        if not np.isfinite(latents).all():
            raise InvalidArgumentError(
                "latents must be finite, these hold NaN or infinity; look for NaN in training"
            )
        labels = labels.astype(np.int64)
        if count < 1 or (labels >= count).any():
            raise InvalidArgumentError(
                f"labels of {count} classes are below {count}, the largest is {labels.max(initial=-1)}"
            )
        shares = np.bincount(labels[labels >= 0], minlength=count)
        if not shares.all():
            raise InvalidArgumentError(
                f"every class needs an example, class {int(shares.argmin())} has none; "
                "leave it out or give its pictures"
            )
        size = latents.shape[1]
        means = np.empty((count, size))
        scatters = np.empty((count, size, size))  # n S_k
        for k in range(count):
            rows = latents[labels == k].astype(np.float64)  # (n, Z)
            means[k] = rows.mean(axis=0)
            scatters[k] = (rows - means[k]).T @ (rows - means[k])
        within = scatters.sum(axis=0) / shares.sum()
        n = shares[:, None, None]
        return cls.of(shares / shares.sum(), means, (scatters + size * within) / (n + size))

    def sample(self, rng: np.random.Generator, count: int, temperature: float = 1.0) -> Floats:
        """Draw float32 (count, Z).

        The first of a larger count are those of a smaller one.

        Args:
            rng: As ``np.random.default_rng`` makes it; a second call draws others.
            count: At least 0.
            temperature: Scale of the deviations from the mean of the component, at least 0.

        Raises:
            InvalidArgumentError: a count or temperature that cannot be.
        """
        if count < 0:
            raise InvalidArgumentError(f"a sample is of 0 latents or more, not {count}")
        choices, deviates = rng.spawn(2)
        chosen = choices.choice(self.components, count, p=_exact(self.weights))
        return self.place(deviates.standard_normal((count, self.size)), chosen, temperature)

    def place(self, deviates: NDArray[Any], chosen: NDArray[np.integer], temperature: float = 1.0) -> Floats:
        """Return float32 (N, Z): standard normal deviates (N, Z) carried to components (N,).

        ``mean + temperature * root @ deviate`` with the symmetric root of the covariance: of all maps from
        N(0, I) to that Gaussian the one that moves least (Olkin & Pukelsheim, Linear Algebra and its
        Applications 48, 1982), so that one deviate means alike things in each component.

        Raises:
            InvalidArgumentError: a temperature that cannot be.
        """
        if not 0 <= temperature < np.inf:
            raise InvalidArgumentError(f"a temperature is 0 or more, not {temperature}")
        out = np.empty(deviates.shape, np.float32)
        for k in np.unique(chosen):
            rows = chosen == k
            spread = deviates[rows] @ _root(self.covariances[k])
            out[rows] = self.means[k] + temperature * spread
        return out


def _check_covariances(covariances: NDArray[Any]) -> None:
    """(M, Z, Z), finite or not: what is not finite is found elsewhere."""
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    if (variances < 0).any():
        raise InvalidArgumentError(f"no variance of a mixture is below 0, the least is {variances.min():g}")
    skew = np.abs(covariances - covariances.swapaxes(1, 2))
    if (skew > _SYMMETRY_TOLERANCE * np.abs(covariances).max()).any():
        raise InvalidArgumentError(
            f"covariances of a mixture must be symmetric, these are {skew.max():g} apart"
        )


def _exact(weights: Floats) -> NDArray[np.float64]:
    """Return float32 weights so that they sum to 1 in float64 too."""
    wide = weights.astype(np.float64)
    exact: NDArray[np.float64] = wide / wide.sum()
    return exact


def _root(covariance: Floats) -> NDArray[np.float64]:
    """Return the symmetric root (Z, Z); the tiny negative variances of rounding count as none."""
    variance, axes = np.linalg.eigh(covariance.astype(np.float64))
    root: NDArray[np.float64] = (axes * np.sqrt(variance.clip(0))) @ axes.T
    return root
