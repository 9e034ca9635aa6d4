"""Drawn textures without noise: leather, bark, cloth and stone, of one color and lit from one side.

A few dozen photographs have too few of these, and an estimator that has not seen them takes them for noise
that a camera smoothed. Unlike noise they have a direction, cells or edges.

Legend: S side in pixels, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

from lookalike.encoder.images import resize_floats

Floats = NDArray[np.float32]

_CONTRAST: Final = (0.03, 0.35)
"""Standard deviation of the light on the texture, as a share of the light."""


def draw_texture(patch: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a texture in the colors of an image, on all of it or a part: uint8 (S, S, C).

    Args:
        patch: uint8 (S, S, C), blurred strongly for the colors.
        rng: Source of randomness.
    """
    side = len(patch)
    few = int(rng.integers(2, 7))
    colors = resize_floats(resize_floats(patch.astype(np.float32) / np.float32(255), few, few), side, side)
    light = _lit(_height(side, rng), rng)
    contrast = np.float32(np.exp(rng.uniform(*np.log(_CONTRAST))))
    lit = colors * (1 + contrast * light * _part(side, rng))[..., None]
    return np.rint(lit.clip(0, 1) * np.float32(255)).astype(np.uint8)


def _height(side: int, rng: np.random.Generator) -> Floats:
    """Return a surface, float32 (S, S): cells, fibers, or both."""
    kind = rng.random()
    height = np.zeros((side, side), np.float32)
    if kind < 0.6:
        height += _cells(side, rng)
    if kind > 0.4:
        height += _fibers(side, rng)
    return height


def _cells(side: int, rng: np.random.Generator) -> Floats:
    """Return the distance to the border of the cell around each pixel (S. Worley, SIGGRAPH 1996), (S, S)."""
    spacing = float(np.exp(rng.uniform(*np.log((2.5, 14)))))
    stretch = np.exp(rng.uniform(-0.7, 0.7))
    points = rng.uniform(-spacing, side + spacing, (max(4, int((side / spacing) ** 2)), 2))
    rows, columns = np.mgrid[:side, :side].reshape(2, -1)
    scale = np.array([stretch, 1 / stretch])
    distances, _ = cKDTree(points * scale).query(np.stack([rows, columns], 1) * scale, k=2)
    surface = distances[:, 1] - distances[:, 0] if rng.random() < 0.6 else distances[:, 0]
    return _normalized(surface.reshape(side, side).astype(np.float32))


def _fibers(side: int, rng: np.random.Generator) -> Floats:
    """Return noise that is much longer in one direction than across it, (S, S), some with ridges."""
    angle, wide = rng.uniform(0, np.pi), float(np.exp(rng.uniform(*np.log((0.8, 4)))))
    long = wide * float(np.exp(rng.uniform(*np.log((2, 12)))))
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    along, beside = (
        across * np.cos(angle) + down * np.sin(angle),
        down * np.cos(angle) - across * np.sin(angle),
    )
    kernel = np.exp(-2 * np.pi**2 * ((along * long) ** 2 + (beside * wide) ** 2))
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * kernel, (side, side))
    surface = _normalized(field.astype(np.float32))
    return -np.abs(surface) if rng.random() < 0.4 else surface


def _lit(height: Floats, rng: np.random.Generator) -> Floats:
    """Return the light on a surface from one side, or its height alone; (S, S), mean 0, deviation 1."""
    if rng.random() < 0.25:
        return _normalized(height)
    angle = rng.uniform(0, 2 * np.pi)
    down, across = np.gradient(height)
    light = across * np.cos(angle) + down * np.sin(angle)
    return _normalized(
        np.tanh(_normalized(light) * np.float32(rng.uniform(0.3, 2)) + np.float32(rng.normal()))
    )


def _part(side: int, rng: np.random.Generator) -> Floats:
    """Return 1 where the texture is, 0 beside it; (S, S)."""
    if rng.random() < 0.6:
        return np.ones((side, side), np.float32)
    few = int(rng.integers(2, 5))
    coarse = rng.random((few, few, 1), np.float32)
    part: Floats = ((resize_floats(coarse, side, side)[..., 0] - np.float32(0.4)) * 8).clip(0, 1)
    return part


def _normalized(values: Floats) -> Floats:
    normalized: Floats = (values - values.mean()) / (values.std() + np.float32(1e-6))
    return normalized
