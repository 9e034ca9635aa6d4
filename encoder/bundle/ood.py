"""How far off a model draws a picture, and how far is usual: what is far off is no picture of its kind.

Legend: N images, H = W = S pixels, C channels.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError

Reals = NDArray[np.float64]

QUANTILES: Final = (0.5, 0.99, 0.999)
"""Of the errors of in-domain pictures."""
FAR: Final = 1.25
"""An error is far above the usual when it is so many times the 0.999 quantile.

Measured with the shipped model on LFW: 0.1 % of held-out faces are; of MNIST digits 70 %, of noise all. Of
what is nearly such a face it finds few: of faces upside down 1 %. An autoencoder of 45 pixels had 0.4, 92,
100 and 9 %, found of whole uncropped photographs 94 %, of faces with half as much again around them 33 %, and
all faces under noise of 25 of 255, though a model trained with noise may compare them well.
"""
_DARKEST: Final = 1 / 255**2  # variance of a picture that is all but blank


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionErrorStats:
    """How far off a model is on clean pictures of the kind it was made for, see :func:`reconstruction_errors`.

    Attributes:
        images: How many were measured.
        squared: Median, 0.99 and 0.999 quantile of the mean squared error.
        share: The same of the share of a picture's variance that is lost.
    """

    images: int
    squared: tuple[float, float, float]
    share: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check that quantiles rise.

        Raises:
            InvalidArgumentError: they do not, or there is no image.
        """
        for values in (self.squared, self.share):
            rising = 0 <= values[0] <= values[1] <= values[2] < math.inf
            if self.images < 1 or not rising:
                raise InvalidArgumentError(
                    f"quantiles of errors must rise from 0, got {values} of {self.images} images"
                )

    @classmethod
    def of(cls, errors: Reals) -> Self:
        """Measure errors float64 (N, 2) from :func:`reconstruction_errors`.

        Raises:
            InvalidArgumentError: there is none, or not every one is finite.
        """
        if errors.ndim != 2 or errors.shape[1] != 2 or not len(errors) or not np.isfinite(errors).all():
            raise InvalidArgumentError(
                f"usual errors are measured on finite errors (N, 2), N over 0, got {errors.shape}"
            )
        (m1, h1, t1), (m2, h2, t2) = np.quantile(errors, QUANTILES, axis=0).T.tolist()
        return cls(images=len(errors), squared=(m1, h1, t1), share=(m2, h2, t2))

    def times_usual(self, errors: Reals) -> list[float | None]:
        """Return, for errors float64 (N, 2), how many times the median they are; None where that is usual.

        Both errors count. The squared error alone misses what has little contrast (a blank wall is drawn well
        by any model), the lost share alone misses high contrast.
        """
        usual = np.array([self.squared, self.share])  # (2, quantiles)
        far = (errors[:, 0] > FAR * usual[0, 2]) | (errors[:, 1] > FAR * usual[1, 2])
        times: list[float] = (errors / np.maximum(usual[:, 0], 1e-12)).max(axis=1).tolist()
        return [each if unlike else None for each, unlike in zip(times, far.tolist(), strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {"images": self.images, "squared": list(self.squared), "share": list(self.share)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
            InvalidArgumentError: its values do not fit each other.
        """
        squared, share = ([real_of(each) for each in value[name]] for name in ("squared", "share"))
        (m1, h1, t1), (m2, h2, t2) = squared, share
        return cls(images=count_of(value["images"]), squared=(m1, h1, t1), share=(m2, h2, t2))


def reconstruction_errors(originals: NDArray[np.uint8], decoded: NDArray[np.float32]) -> Reals:
    """Return how far off each decoded picture is, float64 (N, 2).

    The first column is the mean squared error in [0, 1]^2, the second the share of the picture's variance
    (of each channel about its mean) that this error is; a blank picture counts as having a variance of one
    step of 255.

    Args:
        originals: uint8 (N, H, W, C).
        decoded: float32 (N, H, W, C) in [0, 1].
    """
    if not len(originals):
        return np.empty((0, 2))
    wanted = originals.astype(np.float32) / np.float32(255)
    squared = np.square(decoded - wanted).mean(axis=(1, 2, 3), dtype=np.float64)
    variance = wanted.var(axis=(1, 2), dtype=np.float64).mean(axis=1)
    return np.stack([squared, squared / np.maximum(variance, _DARKEST)], axis=1)


def real_of(value: Any) -> float:
    """Return a JSON number.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{reprlib.repr(value)} is no number")
    return float(value)


def count_of(value: Any) -> int:
    """Return a whole JSON number.

    Raises:
        TypeError: it is none.
    """
    if type(value) is not int:
        raise TypeError(f"{reprlib.repr(value)} is no count")
    return value
