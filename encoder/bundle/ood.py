"""Out-of-distribution test: is the error of reconstructing an image far above that of in-domain images?

Legend: N images, H = W = S pixels, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle.storage import json_float, json_int
from lookalike.encoder.errors import InvalidArgumentError

Reals = NDArray[np.float64]

QUANTILES: Final = (0.5, 0.99, 0.999)
"""Of the errors of in-domain images."""
OOD_FACTOR: Final = 1.25
"""An image is out of distribution when an error is more than this times the 0.999 quantile.

Measured with the shipped model on LFW, that flags 0.1 % of held-out faces, 70 % of MNIST digits and all
noise, but only 1 % of faces upside down.
"""
_DARKEST: Final = 1 / 255**2  # variance of an image that is all but blank


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionErrorStats:
    """Quantiles of reconstruction errors on clean in-domain images; see :func:`reconstruction_errors`.

    Attributes:
        images: Number of measured images.
        squared: Median, 0.99 and 0.999 quantile of the mean squared error.
        share: The same of the share of an image's variance that is lost.
    """

    images: int
    squared: tuple[float, float, float]
    share: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check that the quantiles rise.

        Raises:
            InvalidArgumentError: They do not, or there is no image.
        """
        for values in (self.squared, self.share):
            rising = 0 <= values[0] <= values[1] <= values[2] < math.inf
            if self.images < 1 or not rising:
                raise InvalidArgumentError(
                    f"quantiles of errors must rise from 0, got {values} of {self.images} images"
                )

    @classmethod
    def from_errors(cls, errors: Reals) -> Self:
        """Measure errors float64 (N, 2) from :func:`reconstruction_errors`.

        Raises:
            InvalidArgumentError: There are none, or one is not finite.
        """
        if errors.ndim != 2 or errors.shape[1] != 2 or not len(errors) or not np.isfinite(errors).all():
            raise InvalidArgumentError(
                f"error statistics need finite errors (N, 2), N over 0, got {errors.shape}"
            )
        (m1, h1, t1), (m2, h2, t2) = np.quantile(errors, QUANTILES, axis=0).T.tolist()
        return cls(images=len(errors), squared=(m1, h1, t1), share=(m2, h2, t2))

    def ood_scores(self, errors: Reals) -> list[float | None]:
        """Return how many times the median errors float64 (N, 2) are; None for in-distribution images.

        Both errors count. The squared error alone misses images of little contrast (any model reconstructs a
        blank wall), the lost share alone misses those of high contrast.
        """
        quantiles = np.array([self.squared, self.share])  # (2, quantiles)
        outside = np.logical_or(*(errors > OOD_FACTOR * quantiles[:, 2]).T)
        ratios: Reals = (errors / np.maximum(quantiles[:, 0], 1e-12)).max(axis=1)
        return [float(ratio) if out else None for ratio, out in zip(ratios, outside, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {"images": self.images, "squared": list(self.squared), "share": list(self.share)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
            InvalidArgumentError: Its values do not fit each other.
        """
        squared, share = ([json_float(each) for each in value[name]] for name in ("squared", "share"))
        (m1, h1, t1), (m2, h2, t2) = squared, share
        return cls(images=json_int(value["images"]), squared=(m1, h1, t1), share=(m2, h2, t2))


def reconstruction_errors(originals: NDArray[np.uint8], decoded: NDArray[np.float32]) -> Reals:
    """Return the errors of each decoded image, float64 (N, 2).

    The first column is the mean squared error in [0, 1]^2, the second the share of the image's variance
    (of each channel about its mean) that this error is; a blank image counts as having a variance of one
    step of 255.

    Args:
        originals: uint8 (N, H, W, C).
        decoded: float32 (N, H, W, C) in [0, 1].
    """
    if not len(originals):
        return np.empty((0, 2))
    expected = originals.astype(np.float32) / np.float32(255)
    squared = np.square(decoded - expected).mean(axis=(1, 2, 3), dtype=np.float64)
    variance = expected.var(axis=(1, 2), dtype=np.float64).mean(axis=1)
    return np.stack([squared, squared / np.maximum(variance, _DARKEST)], axis=1)
