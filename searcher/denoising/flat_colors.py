"""Images that are no photographs: dithered, halftone, drawn, or enlarged pixel by pixel.

Their dots and steps look like noise, and are none.

Legend: H, W = height and width, C channels, h, w rows and columns of cells.
"""

from __future__ import annotations

from typing import Final

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
_ROWS: Final = 64
_REPEATED: Final = 0.45
"""Share of neighbors that are equal, each way, in an image that was enlarged by repeating its pixels; twice
as large, half of them are."""


def has_few_values(pixels: Values) -> bool:
    """Whether (H, W, C) has so few colors, and so far apart, that its dots are no noise."""
    height, width, channels = pixels.shape
    most = min(_MAX_COLORS if channels == 3 else _MAX_GRAYS, height * width // _PIXELS_A_COLOR)
    values: NDArray[np.uint64] = np.empty(0, np.uint64)
    for top in range(0, height, _ROWS):
        part = pixels[top : top + _ROWS].astype(np.uint64)
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
    most = np.iinfo(pixels.dtype).max
    inner = np.asarray((pixels > 0) & (pixels < most)).any(axis=2)
    across, down = (pixels[:, 1:] == pixels[:, :-1]).all(axis=2), (pixels[1:] == pixels[:-1]).all(axis=2)
    repeated = [
        _sums(equal & inner[part], shift, cell) >= _REPEATED * _sums(inner[part], shift, cell)
        for equal, part, shift in ((across, np.s_[:, 1:], (0, 1)), (down, np.s_[1:], (1, 0)))
    ]
    return repeated[0] & repeated[1]


def _sums(flags: NDArray[np.bool_], shift: tuple[int, int], cell: int) -> NDArray[np.int32]:
    """(H - 1, W) or (H, W - 1) -> (h, w): how many are true in each cell; the first pixels have no flag."""
    flags = np.pad(flags, [(before, 0) for before in shift])
    rows, columns = (np.arange(0, side, cell) for side in flags.shape)
    sums: NDArray[np.int32] = np.add.reduceat(
        np.add.reduceat(flags.astype(np.int32), rows, axis=0), columns, axis=1
    )
    return sums
