"""What latents are sampled from besides N(0, I): mixtures fitted to the training latents, ``sampling.npz``.

A mixture covers the first Z dimensions of a latent. The rest is zero, or the class weights of a conditional
model.

Legend: Z dimensions of a latent that are sampled, M components of a mixture, K classes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.gaussian_mixture import MAX_COVARIANCE_VALUES, GaussianMixture
from lookalike.encoder.bundle.spec import LATENT_PRIOR
from lookalike.encoder.bundle.storage import npz_bytes, read_npz
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.text import one_line

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
