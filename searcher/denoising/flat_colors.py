"""Images that are no photographs: dithered, halftone, drawn, or enlarged pixel by pixel.

Their dots and steps look like noise, and are none.

Legend: H, W = height and width, C channels, h, w rows and columns of cells.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.images import Values

_MAX_COLORS: Final = 256
"""Of a palette. A photograph with noise has thousands of colors."""
_PIXELS_A_COLOR: Final = 8
"""A small image has few colors because it has few pixels."""
_MAX_GRAYS: Final = 16
_MIN_DISTANCE: Final = 1.6 / 255
"""Mean distance from a color to the nearest other one. Weak noise on a flat image makes few colors too, but
they follow one another at 1 of 255 (at most 1.3 was seen); those of palettes are 2 and more apart."""
_FIRST_ROWS: Final = 8
"""Rows whose colors are counted first: those of a photograph are too many already."""
_MAX_ROWS: Final = 256
_REPEATED: Final = 0.45
"""Share of neighbors that are equal, each way, in an image that was enlarged by repeating its pixels; twice
as large, half of them are."""

_EQUAL: Final = 0.25
"""Share of the pixels like a neighbor: noisy photographs have 0.17 at most, screenshots 0.3 and more."""
_EQUAL_GRAY: Final = 1.7
"""In one channel, of weak noise: three times 2 * 0.28 / sigma."""


def has_few_values(pixels: Values) -> bool:
    """Whether (H, W, C) has so few colors, and so far apart, that its dots are no noise."""
    height, width, channels = pixels.shape
    most = min(_MAX_COLORS if channels == 3 else _MAX_GRAYS, height * width // _PIXELS_A_COLOR)
    values: NDArray[np.uint64] = np.empty(0, np.uint64)
    top, rows = 0, _FIRST_ROWS
    while top < height:
        part = pixels[top : top + rows].astype(np.uint64)
        top, rows = top + rows, min(2 * rows, _MAX_ROWS)
        codes = part[..., 0]
        for channel in range(1, channels):
            codes = codes << np.uint64(16) | part[..., channel]
        values = np.union1d(values, codes)
        if len(values) > most:
            return False
    if len(values) < 2:
        return True
    shifts = np.arange(channels, dtype=np.uint64) * np.uint64(16)
    colors = (values[:, None] >> shifts & np.uint64(0xFFFF)).astype(np.int64)  # (colors, C)
    distances = np.abs(colors[:, None] - colors).sum(2)
    np.fill_diagonal(distances, np.iinfo(np.int64).max)
    return float(distances.min(1).mean()) >= _MIN_DISTANCE * np.iinfo(pixels.dtype).max


def repeated_cells(pixels: Values, cell: int) -> NDArray[np.bool_]:
    """Return which cells, (h, w), repeat their pixels exactly, across and down.

    Black and white do not count: noise ends there, and repeats them. A cell with nothing else has no noise.
    """
    across, down, counted = _equal_neighbors(pixels)
    repeated = np.ones(tuple(-(-side // cell) for side in pixels.shape[:2]), bool)
    for equal, first in ((across, np.s_[:, :1]), (down, np.s_[:1])):
        having = counted.copy()
        having[first] = False  # the first pixels have no neighbor before them
        repeated &= cell_means(equal & having, cell) >= _REPEATED * cell_means(having, cell)
    return repeated


def equal_cells(pixels: Values, cell: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of the pixels of each cell, (h, w), that are like a neighbor, and that count.

    Screenshots and drawings with smooth edges have thousands of colors, but also flat places between their
    edges. Noise leaves none, but where it ends: black and white do not count.
    """
    across, down, counted = _equal_neighbors(pixels)
    counted[:1] = counted[:, :1] = False
    return cell_means((across | down) & counted, cell), cell_means(counted, cell)


def most_equal_neighbors(sigma: float, channels: int) -> float:
    """Return the share of pixels like a neighbor that an image with noise has at most.

    White noise in one channel gives two neighbors the same value with a chance of 0.28 of a step over sigma;
    where it was enlarged or smoothed, the chance is up to three times as large.

    Args:
        sigma: Of the noise, in [0, 1].
        channels: C.
    """
    return max(_EQUAL, _EQUAL_GRAY / max(255 * sigma, 1)) if channels == 1 else _EQUAL


def _equal_neighbors(pixels: Values) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which pixels, (H, W), are like the one to the left, like the one above, and not black or white.

    The first of a row or column count as like the one before them.
    """
    most = np.iinfo(pixels.dtype).max
    across, down = np.ones(pixels.shape[:2], bool), np.ones(pixels.shape[:2], bool)
    ends = across.copy()  # black or white in all channels
    for channel in range(pixels.shape[2]):
        plane: NDArray[Any] = pixels[..., channel]
        across[:, 1:] &= plane[:, 1:] == plane[:, :-1]
        down[1:] &= plane[1:] == plane[:-1]
        ends &= (plane == 0) | (plane == most)
    return across, down, ~ends


def cell_means(values: NDArray[Any], cell: int) -> NDArray[np.float64]:
    """Return the mean of (H, W) in each cell, (h, w); the last cells are cut by the border."""
    rows, columns = (np.arange(0, side, cell) for side in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0, dtype=np.float32), columns, axis=1)
    sides = [
        np.diff(np.append(starts, side)) for starts, side in zip((rows, columns), values.shape, strict=True)
    ]
    means: NDArray[np.float64] = sums / np.outer(*sides)
    return means
