"""The space of latents: the affine map to embeddings, and the mixtures that latents are sampled from.

The map is computed from statistics of the training latents. The mixtures, besides N(0, I), are fitted to them
and lie in ``sampling.npz``; one covers the first Z dimensions of a latent, the rest is zero, or the class
weights of a conditional model.

Legend: N images, D latent size, E embedding size, Z dimensions of a latent that are sampled, M components of
a mixture, K classes; all float32.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.spec import LATENT_PRIOR
from lookalike.encoder.bundle.storage import npz_bytes, read_npz
from lookalike.encoder.errors import InvalidArgumentError, one_line

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

    def minor_axes(self) -> NDArray[np.float64]:
        """Return the principal axes with the least variance, half of all, float64 (D, D // 2).

        Each is divided by its standard deviation: multiplied with latents about the mean they give values
        whose mean square is 1 for the images of the training; for others, which vary where those do not, it
        is more.
        """
        variance, axes = np.linalg.eigh(self.covariance.astype(np.float64))  # ascending
        half = len(variance) // 2
        least = max(_DEGENERATE**2 * float(variance[-1]), np.finfo(np.float64).tiny)
        scaled: NDArray[np.float64] = axes[:, :half] / np.sqrt(np.maximum(variance[:half], least))
        return scaled


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


MAX_COVARIANCE_VALUES: Final = 1 << 22
"""Values of all covariances of a mixture: 16 MiB, far more than any useful one."""
_SUM_TOLERANCE: Final = 1e-4
_SYMMETRY_TOLERANCE: Final = 1e-5


@dataclass(frozen=True, slots=True)
class GaussianMixture:
    """A Gaussian mixture.

    Attributes:
        weights: float32 (M,), at least 0, sum 1.
        means: float32 (M, Z).
        covariances: float32 (M, Z, Z), symmetric, no variance below 0.
    """

    weights: Floats
    means: Floats
    covariances: Floats

    def __post_init__(self) -> None:
        """Check the arrays.

        Raises:
            InvalidArgumentError: They are not a mixture.
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
                    f"{name} of a mixture must be float32 {shape}, no side 0, got {array.dtype} {array.shape}"
                )
            if not np.isfinite(array).all():
                raise InvalidArgumentError(f"{name} of a mixture must be finite, these hold NaN or infinity")
        if self.covariances.size > MAX_COVARIANCE_VALUES:
            raise InvalidArgumentError(
                f"covariances of a mixture are at most {MAX_COVARIANCE_VALUES:,} values, {count} of "
                f"{size}x{size} are more; "
                "use fewer components"
            )
        total = float(self.weights.sum(dtype=np.float64))
        if self.weights.min() < 0 or abs(total - 1) > _SUM_TOLERANCE:
            raise InvalidArgumentError(
                f"weights of a mixture must be at least 0 and sum to 1, "
                f"the smallest is {self.weights.min():g}, the sum {total:g}"
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
    def from_arrays(cls, weights: NDArray[Any], means: NDArray[Any], covariances: NDArray[Any]) -> Self:
        """Make one from floats of any precision, as another library fits them; rounding errors are corrected.

        Raises:
            InvalidArgumentError: They are not a mixture.
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
        statistics = LatentStatistics.from_latents(latents)
        return cls(np.ones(1, np.float32), statistics.mean[None], statistics.covariance[None])

    @classmethod
    def by_class(cls, latents: Floats, labels: NDArray[Any], count: int) -> Self:
        """Fit a Gaussian to each class; its weight is the share of the class.

        The covariance of a class is shrunk towards the one pooled over all classes, as if by Z more examples
        (Friedman, Regularized Discriminant Analysis, JASA 84, 1989): ``(n S_k + Z S) / (n + Z)`` with n
        examples and the covariances S_k of the class and S within classes.

        Args:
            latents: float32 (N, Z).
            labels: Whole numbers (N,), the class of each; those below 0 have none and are left out.
            count: K.

        Raises:
            InvalidArgumentError: labels that do not fit, a class without example, or latents that are not
                finite.
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
                "leave it out or add images of it"
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
        return cls.from_arrays(shares / shares.sum(), means, (scatters + size * within) / (n + size))

    def sample(self, rng: np.random.Generator, count: int, temperature: float = 1.0) -> Floats:
        """Sample float32 (count, Z). The first rows of a larger count are those of a smaller one.

        Args:
            rng: From ``np.random.default_rng``; a second call gives other samples.
            count: At least 0.
            temperature: Scale of the deviations from the mean of the component, at least 0.

        Raises:
            InvalidArgumentError: An invalid count or temperature.
        """
        if count < 0:
            raise InvalidArgumentError(f"a count of samples must be 0 or more, not {count}")
        choices, deviates = rng.spawn(2)
        chosen = choices.choice(self.components, count, p=_exact(self.weights))
        return self.transform(deviates.standard_normal((count, self.size)), chosen, temperature)

    def transform(
        self, deviates: NDArray[Any], chosen: NDArray[np.integer], temperature: float = 1.0
    ) -> Floats:
        """Map standard normal deviates (N, Z) to the given components (N,); returns float32 (N, Z).

        ``mean + temperature * root @ deviate`` with the symmetric root of the covariance: of all maps from
        N(0, I) to that Gaussian the one that moves least (Olkin & Pukelsheim, Linear Algebra and its
        Applications 48, 1982), so that one deviate means similar things in each component.

        Raises:
            InvalidArgumentError: An invalid temperature.
        """
        if not 0 <= temperature < np.inf:
            raise InvalidArgumentError(f"a temperature must be 0 or more, not {temperature}")
        out = np.empty(deviates.shape, np.float32)
        for k in np.unique(chosen):
            rows = chosen == k
            spread = deviates[rows] @ _root(self.covariances[k])
            out[rows] = self.means[k] + temperature * spread
        return out


def _check_covariances(covariances: NDArray[Any]) -> None:
    """Check signs and symmetry of (M, Z, Z); what is not finite is found elsewhere."""
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    if (variances < 0).any():
        raise InvalidArgumentError(
            f"variances of a mixture must be 0 or more, the smallest is {variances.min():g}"
        )
    skew = np.abs(covariances - covariances.swapaxes(1, 2))
    if (skew > _SYMMETRY_TOLERANCE * np.abs(covariances).max()).any():
        raise InvalidArgumentError(
            f"covariances of a mixture must be symmetric, these differ by {skew.max():g}"
        )


def _exact(weights: Floats) -> NDArray[np.float64]:
    """Return float32 weights so that they sum to 1 in float64 too."""
    wide = weights.astype(np.float64)
    exact: NDArray[np.float64] = wide / wide.sum()
    return exact


def _root(covariance: Floats) -> NDArray[np.float64]:
    """Return the symmetric square root (Z, Z); tiny negative variances from rounding count as 0."""
    variance, axes = np.linalg.eigh(covariance.astype(np.float64))
    root: NDArray[np.float64] = (axes * np.sqrt(variance.clip(0))) @ axes.T
    return root


_PARTS: Final = ("weights", "means", "triangles")
_LARGEST: Final = 24 * MAX_COVARIANCE_VALUES
"""Bytes that two mixtures can take at most."""


@dataclass(frozen=True, slots=True)
class LatentPrior:
    """What a model's latents are sampled from besides N(0, I).

    Attributes:
        mixture: Fitted to all training latents.
        by_class: One component for each class, in the order of the model's classes, weighted by its share.
    """

    mixture: GaussianMixture | None = None
    by_class: GaussianMixture | None = None

    def check(self, *, prior_dim: int, classes: int) -> None:
        """Check that it fits a model.

        Args:
            prior_dim: Dimensions of the latent that are sampled.
            classes: K.

        Raises:
            InvalidArgumentError: it does not.
        """
        for field in fields(self):
            mixture: GaussianMixture | None = getattr(self, field.name)
            if mixture is not None and mixture.size > prior_dim:
                raise InvalidArgumentError(
                    f"{field.name} of a model that samples {prior_dim} dimensions has {mixture.size}"
                )
        if self.by_class is not None and self.by_class.components != classes:
            raise InvalidArgumentError(
                f"by_class of a model of {classes} classes has {self.by_class.components} components"
            )

    def to_npz(self) -> bytes:
        """Return ``sampling.npz``: covariances packed as lower triangles (M, Z (Z + 1) / 2)."""
        arrays: dict[str, NDArray[Any]] = {}
        for field in fields(self):
            mixture: GaussianMixture | None = getattr(self, field.name)
            if mixture is not None:
                row, column = np.tril_indices(mixture.size)
                triangles = mixture.covariances[:, row, column]
                for part, array in zip(_PARTS, (mixture.weights, mixture.means, triangles), strict=True):
                    arrays[f"{field.name}_{part}"] = array
        return npz_bytes(**arrays)

    @classmethod
    def from_npz(cls, files: Mapping[str, bytes]) -> Self | None:
        """Read ``sampling.npz`` of the files of a bundle; None where there is none.

        Raises:
            ValueError: it does not hold the arrays.
            InvalidArgumentError: they are no mixtures.
        """
        if LATENT_PRIOR not in files:
            return None
        present = _names_in(files[LATENT_PRIOR])
        known = {f"{field.name}_{part}" for field in fields(cls) for part in _PARTS}
        if present - known:
            raise ValueError(f"{LATENT_PRIOR} holds {min(present - known)!r}, which does not belong there")
        mixtures = {}
        for field in fields(cls):
            names = [f"{field.name}_{part}" for part in _PARTS]
            if present & set(names):
                mixtures[field.name] = _unpack(*read_npz(LATENT_PRIOR, files, *names))
        return cls(**mixtures)


def _names_in(data: bytes) -> set[str]:
    """Return the names of the arrays in an ``.npz`` that is not larger than it can be."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except MemoryError:
        raise  # says nothing of the file
    except Exception as error:  # zipfile and struct each raise their own
        raise ValueError(
            f"{LATENT_PRIOR} does not hold the arrays of mixtures ({one_line(error)})"
        ) from error
    if (size := sum(member.file_size for member in members)) > _LARGEST:
        raise ValueError(f"{LATENT_PRIOR} unpacks to {size:,} bytes, the limit is {_LARGEST:,}")
    return {member.filename.removesuffix(".npy") for member in members}


def _unpack(weights: NDArray[Any], means: NDArray[Any], triangles: NDArray[Any]) -> GaussianMixture:
    count, size = means.shape if means.ndim == 2 else (0, 0)
    expected = (count, size * (size + 1) // 2)
    if (
        triangles.dtype != np.float32
        or triangles.shape != expected
        or count * size * size > MAX_COVARIANCE_VALUES
    ):
        raise InvalidArgumentError(
            f"triangles of a mixture must be float32 {expected}, got {triangles.dtype} {triangles.shape}"
        )
    covariances = np.empty((count, size, size), np.float32)
    row, column = np.tril_indices(size)
    covariances[:, row, column] = triangles
    covariances[:, column, row] = triangles
    return GaussianMixture(weights, means, covariances)
