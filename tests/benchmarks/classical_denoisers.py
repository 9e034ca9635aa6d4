"""Classical denoisers that ours are compared with, given the true sigma or one that is estimated.

BM3D: K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian: Image Denoising by Sparse 3-D Transform-Domain
Collaborative Filtering. IEEE TIP 16, 2007; Y. Makinen, L. Azzari, A. Foi, IEEE TIP 29, 2020, whose package
``bm3d`` it is. Non-local means: A. Buades, B. Coll, J.-M. Morel, CVPR 2005. Total variation: A. Chambolle,
JMIV 20, 2004. Wavelets: S. G. Chang, B. Yu, M. Vetterli (BayesShrink), IEEE TIP 9, 2000. These are
scikit-image's, and so is the estimate of sigma: the median of the finest diagonal wavelets (D. L. Donoho,
I. M. Johnstone, Biometrika 81, 1994), averaged over the channels.

Legend: N images, H height, W width, C channels (1 gray, 3 RGB).

"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation import Method
from lookalike.deploy.evaluation.denoising import Row
from lookalike.encoder.datasets import cache_folder
from lookalike.encoder.errors import MissingExtraError
from lookalike.encoder.images import to_uint8

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
FIXED_SIGMAS: Final = (2.5, 5.0, 7.5, 10.0)
"""Of 255: BM3D of real noise is tried with each."""
_MISSING: Final = (
    "BM3D is left out: pip install bm3d (its licence forbids commercial use, so nothing here depends on it)"
)


@dataclass(frozen=True, slots=True)
class FilterMethod:
    """One of scikit-image's filters.

    Attributes:
        name: What its row is called.
        told: How it is set.
        filtered: Image float32 (H, W, C) and sigma to the denoised image.
        debias: Whether to undo the effect of clipping on the mean, see :func:`undo_clipping`.
    """

    name: str
    told: str
    filtered: Callable[[Floats, float], NDArray[Any]]
    debias: bool = False

    @property
    def needs_sigma(self) -> bool:
        """It estimates one where it is told none."""
        return False

    def denoise(self, noisy: Sequence[Pixels], sigma: float | None) -> list[Pixels]:
        """See :meth:`Method.denoise`."""
        return [self._one(_as_floats(image), sigma) for image in noisy]

    def _one(self, image: Floats, sigma: float | None) -> Pixels:
        level = estimated_sigma(image) if sigma is None else sigma
        return _rounded(self.filtered(image, level), level, self.debias)


class BM3D:
    """BM3D. Its output is cached: it takes seconds an image.

    Attributes:
        sigma: ``true``, ``estimated`` for each image, or the same for all images, of 255.
        debias: Whether to undo the effect of clipping on the mean, see :func:`undo_clipping`.
        name: What its row is called.
        told: What it is given.

    Raises:
        MissingExtraError: the package is not installed.
    """

    def __init__(
        self,
        sigma: Literal["true", "estimated"] | float = "true",
        *,
        debias: bool = False,
        folder: Path | None = None,
    ) -> None:
        if importlib.util.find_spec("bm3d") is None:
            raise MissingExtraError(_MISSING)
        self.sigma, self.debias = sigma, debias
        self.name = "BM3D, debiased" if debias else "BM3D"
        self.told = "true sigma, and how it was clipped" if debias else "true sigma"
        if sigma == "estimated":
            self.name, self.told = "BM3D, estimated sigma", "sigma estimated from each image"
        elif sigma != "true":
            self.name, self.told = f"BM3D, sigma {sigma:g}", f"sigma {sigma:g} for all images"
        self._folder = cache_folder() / "bm3d" if folder is None else folder

    @property
    def needs_sigma(self) -> bool:
        """Whether it is told the true one."""
        return self.sigma == "true"

    def denoise(self, noisy: Sequence[Pixels], sigma: float | None) -> list[Pixels]:
        """See :meth:`Method.denoise`."""
        pairs = ((_as_floats(image), self._level(image, sigma)) for image in noisy)
        return [_rounded(_bm3d(image, level), level, self.debias) for image, level in pairs]

    def denoise_cached(
        self, noisy: Sequence[Pixels], sigma: float | None, *, on_progress: Callable[[int], object]
    ) -> list[Pixels]:
        """Return what :meth:`denoise` does, from the cache where it is there; images in parallel."""

        def one(image: Pixels) -> Pixels:
            return self._one_cached(image, self._level(image, sigma), on_progress)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # it runs without Python's lock
            return list(pool.map(one, noisy))

    def _level(self, image: Pixels, sigma: float | None) -> float:
        """Return the sigma it uses for an image, in [0, 1]."""
        if self.sigma == "estimated":
            return round(estimated_sigma(_as_floats(image)), 6)
        if isinstance(self.sigma, float):
            return self.sigma / 255
        assert sigma is not None  # it is left out where there is none
        return sigma

    def _one_cached(self, image: Pixels, sigma: float, on_progress: Callable[[int], object]) -> Pixels:
        digest = hashlib.sha256(repr((version("bm3d"), image.shape, f"{sigma:.9g}")).encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        file = self._folder / f"{digest.hexdigest()}.npy"
        try:
            output: NDArray[Any] = np.load(file, allow_pickle=False)
        except (OSError, ValueError):  # missing or damaged
            output = _bm3d(_as_floats(image), sigma).astype(np.float32)
            _store(file, output)
        on_progress(1)
        return _rounded(output, sigma, self.debias)


def bm3d_methods(*, real: bool, known: bool) -> list[BM3D]:
    """Return the rows of BM3D.

    Args:
        real: Whether the noise is real: BM3D is tried with each of :data:`FIXED_SIGMAS` too.
        known: Whether the noise has one true sigma.

    Raises:
        MissingExtraError: the package is not installed.
    """
    methods = [BM3D(), BM3D(debias=True)] if known else []
    methods.append(BM3D("estimated"))
    return methods + [BM3D(sigma) for sigma in FIXED_SIGMAS if real]


def keep_best_fixed(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with that of the best fixed sigma alone, by mean PSNR of these images, and say so."""
    fixed = [row for row in rows if row.name.startswith("BM3D, sigma ")]
    best = max(fixed, key=lambda row: row.mean_psnr, default=None)
    tried = ", ".join(f"{sigma:g}" for sigma in FIXED_SIGMAS)
    return tuple(
        replace(row, told=f"the best sigma of {tried} for these images, by mean PSNR") if row is best else row
        for row in rows
        if row is best or row not in fixed
    )


def classical_methods(sigma: float | None, *, digits: bool) -> list[Method]:
    """Return scikit-image's filters with the settings that were best on training faces or training digits.

    Args:
        sigma: Standard deviation of the noise, in [0, 1]: the settings for the nearer of 25 and 50 of 255 are
            used. None: it is estimated for each image, with the settings for 25.
        digits: Whether the images are digits, where clipping halves the noise.
    """
    strong = sigma is not None and 255 * sigma > _BETWEEN
    nlm, tv, wavelet = _DIGITS if digits else _STRONG if strong else _WEAK
    prefix = "estimated sigma" if sigma is None else "true sigma"
    suffix = "; debiased" if digits else ""
    return [
        FilterMethod("non-local means", f"{prefix}; {nlm}{suffix}", nlm.filtered, digits),
        FilterMethod("total variation", f"{prefix}; {tv}{suffix}", tv.filtered, digits),
        FilterMethod("wavelet", f"{prefix}; {wavelet}{suffix}", wavelet.filtered, digits),
    ]


def estimated_sigma(image: Floats) -> float:
    """Return the estimated standard deviation of the noise of float32 (H, W, C), at least 1/16 of 255."""
    from skimage.restoration import estimate_sigma

    estimate: Callable[..., float] = estimate_sigma  # scikit-image leaves it untyped
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # NaN where nothing varies
        sigma = float(estimate(image, channel_axis=-1, average_sigmas=True))
    return max(_LEAST, sigma)


@dataclass(frozen=True, slots=True)
class _Means:
    """Non-local means: h and the noise subtracted from distances, in sigmas; patch side; search distance."""

    h: float
    noise: float
    patch: int
    distance: int

    def __str__(self) -> str:
        return f"h {self.h:g} sigma, patches of {self.patch} up to {self.distance} away"

    def filtered(self, image: Floats, sigma: float) -> NDArray[Any]:
        from skimage.restoration import denoise_nl_means

        output = denoise_nl_means(
            image,
            h=self.h * sigma,
            sigma=self.noise * sigma,
            patch_size=self.patch,
            patch_distance=self.distance,
            fast_mode=True,
            channel_axis=-1,  # 2 fails where there is one channel, which it drops
        )
        return np.asarray(output).reshape(image.shape)


@dataclass(frozen=True, slots=True)
class _Variation:
    """Total variation: its weight, in sigmas."""

    weight: float

    def __str__(self) -> str:
        return f"weight {self.weight:g} sigma"

    def filtered(self, image: Floats, sigma: float) -> NDArray[Any]:
        from skimage.restoration import denoise_tv_chambolle

        filtered: Callable[..., NDArray[Any]] = denoise_tv_chambolle  # scikit-image leaves it untyped
        return filtered(image, weight=self.weight * sigma, channel_axis=2)


@dataclass(frozen=True, slots=True)
class _Wavelet:
    """Wavelets: the threshold's noise, in sigmas, and the wavelet; color as luma and chroma."""

    noise: float
    wavelet: str

    def __str__(self) -> str:
        return f"BayesShrink, {self.wavelet}, {self.noise:g} sigma"

    def filtered(self, image: Floats, sigma: float) -> NDArray[Any]:
        from skimage.restoration import denoise_wavelet

        color = image.shape[2] == 3
        output = denoise_wavelet(
            image if color else image[:, :, 0],
            sigma=self.noise * sigma,
            wavelet=self.wavelet,
            method="BayesShrink",
            convert2ycbcr=color,
            rescale_sigma=True,
            channel_axis=2 if color else None,
        )
        return np.asarray(output).reshape(image.shape)


_BETWEEN: Final = 37.5
_LEAST: Final = 1 / (16 * 255)
_WEAK: Final = (_Means(0.5, 1.0, 5, 6), _Variation(1.15), _Wavelet(1.0, "db1"))
_STRONG: Final = (_Means(0.6, 0.7, 5, 6), _Variation(1.15), _Wavelet(1.0, "db1"))
_DIGITS: Final = (_Means(0.5, 0.5, 5, 6), _Variation(0.4), _Wavelet(1.0, "sym6"))
"""Best by median PSNR of 14 training faces at sigma 25 and 50, and of 40 training digits."""


def undo_clipping(values: NDArray[Any], sigma: float) -> NDArray[np.float64]:
    """Undo the effect of clipping on the mean: from E[clip(x + N(0, sigma^2), 0, 1)] back to x in [0, 1].

    A filter that averages noisy pixels estimates that expectation, in which black is no longer black.
    """
    x = np.linspace(0, 1, 1025)
    below, above = x / sigma, (1 - x) / sigma
    mean = (
        x * (_normal(above) - _normal(-below))
        + sigma * (_density(below) - _density(above))
        + (1 - _normal(above))
    )
    return np.asarray(np.interp(values, mean, x))


def _normal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * (1 + math.erf(each / math.sqrt(2))) for each in z])


def _density(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi))


def _as_floats(image: Pixels) -> Floats:
    return image.astype(np.float32) / np.float32(255)


def _rounded(output: NDArray[Any], sigma: float, debias: bool) -> Pixels:
    back = undo_clipping(output, sigma) if debias else output
    return to_uint8(np.asarray(back, np.float32))


def _bm3d(image: Floats, sigma: float) -> NDArray[Any]:
    from bm3d import BM3DProfile, bm3d, bm3d_rgb

    profile = BM3DProfile()
    profile.num_threads = 1  # as our models; more threads add in any order
    if image.shape[2] == 3:
        return np.asarray(bm3d_rgb(image.astype(np.float64), sigma, profile))
    return np.asarray(bm3d(image[:, :, 0].astype(np.float64), sigma, profile))[:, :, None]


def _store(file: Path, output: NDArray[Any]) -> None:
    out = io.BytesIO()
    np.save(out, output, allow_pickle=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    part.write_bytes(out.getvalue())
    part.replace(file)
