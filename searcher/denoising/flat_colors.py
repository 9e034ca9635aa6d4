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
_MIN_STEP: Final = 1 / 64
"""Mean distance of the values of a gray image that was dithered; those of a photograph follow one another."""
_MAX_ROWS: Final = 256
_FIRST_ROWS: Final = 8
"""Rows whose colors are counted first: those of a photograph are too many already."""
_REPEATED: Final = 0.45
"""Share of neighbors that are equal, each way, in an image that was enlarged by repeating its pixels."""


def has_few_values(pixels: Values) -> bool:
    """Whether (H, W, C) has so few colors, or gray values so far apart, that its dots are no noise."""
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
    if channels == 3 or len(values) < 2:
        return True
    span = float(values[-1] - values[0]) / float(np.iinfo(pixels.dtype).max)
    return span / (len(values) - 1) >= _MIN_STEP


def repeated_cells(pixels: Values, cell: int) -> NDArray[np.bool_]:
    """Return which cells, (h, w), repeat their pixels exactly, across and down.

    Black and white do not count: noise ends there, and repeats them.
    """
    most = np.iinfo(pixels.dtype).max
    across, down = np.ones(pixels.shape[:2], bool), np.ones(pixels.shape[:2], bool)
    ends = across.copy()  # black or white in all channels
    for channel in range(pixels.shape[2]):
        plane: NDArray[Any] = pixels[..., channel]
        across[:, 1:] &= plane[:, 1:] == plane[:, :-1]
        down[1:] &= plane[1:] == plane[:-1]
        ends &= (plane == 0) | (plane == most)
    across[:, 0] = down[0] = False
    across, down = across & ~ends, down & ~ends
    return (cell_means(across, cell) >= _REPEATED) & (cell_means(down, cell) >= _REPEATED)


def cell_means(values: NDArray[Any], cell: int) -> NDArray[np.float64]:
    """Return the mean of (H, W) in each cell, (h, w); the last cells are cut by the border."""
    rows, columns = (np.arange(0, side, cell) for side in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0, dtype=np.float32), columns, axis=1)
    sides = [
        np.diff(np.append(starts, side)) for starts, side in zip((rows, columns), values.shape, strict=True)
    ]
    means: NDArray[np.float64] = sums / np.outer(*sides)
    return means
