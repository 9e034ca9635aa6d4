"""Noise of many kinds on training patches, with a map of how strong it is where.

White noise is what denoisers are compared on. Cameras, film and resizing leave other noise: correlated
between neighbors and colors, stronger in some places, and altered by JPEG. A network that has seen white
noise alone takes that for texture and leaves it (docs/experiments.md).

Legend: P, S sides of a patch before and after the border is cut off, C channels (1 gray, 3 RGB); sigma the
standard deviation of the noise, where white is 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import (
    Camera,
    NoiseSpec,
    add_camera_noise,
    box_means,
    correlated_noise,
    resize_floats,
    sample_camera,
    saved_as_jpeg,
)

Floats = NDArray[np.float32]

BORDER: Final = 16
"""Pixels more than S that a patch has where the image is large enough: JPEG's blocks then begin anywhere."""
_WINDOW: Final = 17
"""Side in pixels of the squares that the noise is measured in."""
_QUANTIZED: Final = 0.6
"""Share of the patches that are rounded to 256 levels after the noise, as an image file is."""
_PHOTONS: Final = (0.008, 0.2)
"""Photon noise of a white pixel, of 1: from 16,000 photons to 25."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseMix:
    """How many of the patches get which noise. Saved in the bundle.

    Attributes:
        low: Lowest sigma of white noise, of 1.
        high: Highest sigma.
        camera: Share with the noise of cameras.
        grain: Share with correlated noise, as of film, and as resizing leaves it.
        clean: Share without noise; some are blurred or sharpened, half were saved as JPEG. All others get
            white noise.
        partial: Share of the patches with white noise or grain that have it in a part only.
        jpeg: Share of those that are saved as JPEG afterwards; it is twice that for cameras.
    """

    low: float = 0.0
    high: float = 75 / 255
    camera: float = 0.35
    grain: float = 0.1
    clean: float = 0.04
    partial: float = 0.15
    jpeg: float = 0.25

    @property
    def white_only(self) -> bool:
        """Whether there is no other noise than white noise on whole patches."""
        return not (self.camera or self.grain or self.partial or self.jpeg)


def noise_mix(noise: NoiseSpec, *, white_only: bool) -> NoiseMix:
    """Return the noise of a training whose white noise has these levels.

    Raises:
        InvalidArgumentError: it is not Gaussian, or zero.
    """
    if noise.kind != "gaussian" or noise.is_zero:
        raise InvalidArgumentError(
            f"a denoiser is trained on Gaussian noise, got {noise}; take a SIGMA or LO:HI of 255, "
            "or train an autoencoder for other kinds"
        )
    if white_only:
        return NoiseMix(low=noise.low, high=noise.high, camera=0, grain=0, clean=0, partial=0, jpeg=0)
    return NoiseMix(low=noise.low, high=noise.high)


def degrade(
    patch: NDArray[np.uint8], mix: NoiseMix, side: int, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Return a noisy patch, sigma at each pixel, and the clean patch.

    Args:
        patch: uint8 (P, P, C), P = S or more.
        mix: Which noise.
        side: S.
        rng: Source of randomness.

    Returns:
        float32 (S, S, C) in [0, 1], float32 (S, S) and float32 (S, S, C) in [0, 1].
    """
    clean = patch.astype(np.float32) / np.float32(255)
    kind = rng.choice(4, p=[mix.camera, mix.grain, mix.clean, 1 - mix.camera - mix.grain - mix.clean])
    sigma: Floats | None = None
    if kind == 0:
        noisy, clean = _by_camera(clean, rng)
        jpeg = 2 * mix.jpeg
    elif kind == 2:
        if rng.random() < 0.4:
            clean = _blur(clean, rng)
        if rng.random() < 0.2:
            clean = _sharpen(clean, rng.uniform(0.2, 1.2))
        clean = np.rint(clean * np.float32(255)) / np.float32(255)
        noisy, jpeg = clean, 0.5
    else:
        grain = kind == 1
        level = _grain_level(mix, rng) if grain else mix.low + (mix.high - mix.low) * _white_level(rng)
        field = correlated_noise(clean.shape, rng) if grain else rng.standard_normal(clean.shape, np.float32)
        sigma = np.full(clean.shape[:2], level, np.float32)
        if rng.random() < mix.partial:
            sigma *= _region(clean, rng)
        noisy, jpeg = (clean + sigma[..., None] * field).clip(0, 1), mix.jpeg
    noisy, reference, saved = _save(noisy, clean, jpeg, rng, whole=kind == 0)
    # Half of the white noise counts as it was added, half as it is after clipping; of digits, which are black
    # and white, clipping takes half of it, and all counts as it was added.
    if sigma is None or saved or (not mix.white_only and rng.random() < 0.5):
        sigma = _measure(noisy, reference)
    target = reference if kind == 2 else clean
    top, left = rng.integers(0, len(patch) - side + 1, 2)
    at = np.s_[top : top + side, left : left + side]
    return noisy[at], sigma[at], target[at]


def _white_level(rng: np.random.Generator) -> float:
    """Return 0 to 1: for half of the patches uniform, for a fifth from the middle, else from the low end."""
    part, level = rng.random(), rng.random()
    return float(level if part < 0.55 else 0.13 + 0.67 * level if part < 0.75 else 0.2 * level)


def _grain_level(mix: NoiseMix, rng: np.random.Generator) -> float:
    return float(mix.low + (min(mix.high, 0.16) - mix.low) * rng.random() ** 1.5)


def _by_camera(clean: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    photon = float(np.exp(rng.uniform(*np.log(_PHOTONS))))
    camera = sample_camera(photon, rng)
    if rng.random() < 0.25:  # the values of the image taken for those of the light
        camera = replace(camera, tone=False, photon=max(photon, 0.03))
        if rng.random() < 0.5:
            camera = Camera(photon=camera.photon, read=0.0, tone=False, demosaic=camera.demosaic)
    if rng.random() < 0.55:
        clean = _blur(clean, rng)  # lenses and interpolation leave images less sharp than reduced ones
    noisy, clean = add_camera_noise(clean, camera, rng)
    if rng.random() < 0.2:
        factor = rng.uniform(1.1, 2.2)
        return _enlarge(noisy, factor), _enlarge(clean, factor)
    return noisy, clean


def _blur(values: Floats, rng: np.random.Generator) -> Floats:
    """Blur (P, P, C) as a reduction to a third or more and an enlargement do."""
    side = len(values)
    small = round(side / rng.uniform(1.1, 3.5))
    return resize_floats(resize_floats(values, small, small), side, side).clip(0, 1)


def _sharpen(values: Floats, amount: float) -> Floats:
    """Add a share of the difference of (P, P, C) to its mean around each pixel, as unsharp masks do."""
    around = box_means(values, 3, border="reflect").astype(np.float32)
    return (values + np.float32(amount) * (values - around)).clip(0, 1)


def _enlarge(values: Floats, factor: float) -> Floats:
    """Enlarge the corner of (P, P, C) to (P, P, C)."""
    side = len(values)
    part = round(side / factor)
    return resize_floats(values[:part, :part], side, side).clip(0, 1)


def _region(clean: Floats, rng: np.random.Generator) -> Floats:
    """Return the share of the noise at each pixel, (P, P): that of one side of an edge, or of the shadows."""
    side, least = len(clean), rng.choice([0.0, rng.random()])
    if rng.random() < 0.4:
        brightness = clean.mean(2)
        share = (np.float32(rng.uniform(0.2, 0.6)) - brightness) * np.float32(8) + np.float32(0.5)
    else:
        angle, middle = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.8, 2) * side
        rows, columns = np.mgrid[:side, :side].astype(np.float32)
        distance = (rows - middle[0]) * np.cos(angle) + (columns - middle[1]) * np.sin(angle)
        share = distance.astype(np.float32) / np.float32(rng.choice([1, rng.uniform(1, side)])) + np.float32(
            0.5
        )
    region: Floats = np.float32(least) + np.float32(1 - least) * share.clip(0, 1)
    return region


def _save(
    noisy: Floats, clean: Floats, jpeg: float, rng: np.random.Generator, *, whole: bool
) -> tuple[Floats, Floats, bool]:
    """Save both as JPEG, or round the first; returns both, and whether they were saved."""
    if rng.random() < jpeg:
        quality = np.full(2, rng.integers(75, 99), np.float32)
        both = saved_as_jpeg(np.stack([noisy, clean]), quality, subsampling=int(rng.choice([0, 2])))
        return both[0], both[1], True
    if whole or rng.random() < _QUANTIZED:
        noisy = np.rint(noisy * np.float32(255)) / np.float32(255)
    return noisy, clean, False


def _measure(noisy: Floats, clean: Floats) -> Floats:
    """Return the root mean square of the difference around each pixel, (P, P)."""
    square = np.square(noisy - clean).mean(2)
    sigma: Floats = np.sqrt(box_means(square, _WINDOW, border="symmetric").clip(0)).astype(np.float32)
    return sigma
