"""How much noise an image has at each place: a noisy sky is denoised, and the clean bark beside it is not.

Legend: H, W = height and width, C channels, h, w rows and columns of cells; sigma is the standard deviation
of the noise in [0, 1], where white is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.images import Values
from lookalike.encoder.runtime import Denoiser, sigma_at
from lookalike.searcher.denoising.color_steps import color_steps, has_colors_of_noise
from lookalike.searcher.denoising.flat_colors import (
    cell_means,
    equal_cells,
    has_few_values,
    most_equal_neighbors,
    repeated_cells,
)

Floats = NDArray[np.float32]
Mapper = Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]
"""``map``, or the same on several threads."""

_TILE: Final = 2048
"""Side of a tile with its margin: the estimator sees far, so that smaller tiles would overlap too much."""
_SQUARE: Final = (8, 24)
"""Smallest and largest side in cells of the squares that confirm noise; between, half of the image."""
_STEP: Final = 4
_CONFIRMING: Final = 0.2
"""Share of the cells of a square that may be clean; with more, the others are taken for texture."""
_TYPICAL: Final = 0.55
"""The noise of a square is that of this share of its cells at most: in textures estimates are too high."""
_SMALL: Final = 12
_TYPICAL_OF_SMALL: Final = 0.8
"""The same of squares with fewer cells a side than that, of images below 192 px: these are sharp, with few
smooth places, and in them estimates are too low."""
_LEAST: Final = 0.25
"""A cell with less of it is clean, beside a part with noise; all others have the noise of their square."""
_BLACK: Final = 5 / 255
_WHITE: Final = 250 / 255
"""Cells darker or brighter than these say nothing: noise ends at black and white."""
_MIN_SHARE: Final = 0.01
"""An image with noise in fewer of its cells is left as it is."""
_MIN_WEAK_SHARE: Final = 0.35
_WEAK: Final = 10 / 255
"""Noise weaker than this counts only in a large part of an image; see docs/experiments.md."""


@dataclass(frozen=True, eq=False, slots=True)
class NoiseMap:
    """The noise of an image.

    Attributes:
        cells: float32 (h, w), sigma in each cell.
        cell: Side of a cell in pixels.
        clean_below: Cells below this sigma are left as they are; 0: none is.
        drawn: Whether it is no photograph but has few colors: it is left as it is.
    """

    cells: Floats
    cell: int
    clean_below: float
    drawn: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether the image is left as it is."""
        noisy = self.cells[self.cells >= self.clean_below]
        weak = noisy.size == 0 or float(np.median(noisy)) < _WEAK
        return self.drawn or self.share < (_MIN_WEAK_SHARE if weak else _MIN_SHARE)

    @property
    def share(self) -> float:
        """Share of the cells with noise."""
        return float((self.cells >= self.clean_below).mean())

    def percentile(self, percent: float) -> float:
        """Return the sigma that so many percent of the cells are below: 50 gives the median."""
        return float(np.percentile(self.cells, percent))

    def sigma(self, rows: range, columns: range) -> Floats:
        """Return sigma at pixels, float32 (len(rows), len(columns))."""
        return sigma_at(self.cells, rows, columns, self.cell)

    def weight(self, sigma: Floats) -> Floats:
        """Return how much of the denoised image is taken: 0 in clean cells, 1 from twice their limit on."""
        if self.clean_below == 0:
            return np.ones_like(sigma)
        return (sigma / np.float32(self.clean_below) - 1).clip(0, 1)

    def image(self, rows: range, columns: range) -> NDArray[np.uint8]:
        """Return uint8 (len(rows), len(columns), 1): black is clean, white a sigma of 50 of 255 and more."""
        share = (self.sigma(rows, columns) * np.float32(255 / 50)).clip(0, 1)
        return np.rint(share * np.float32(255)).astype(np.uint8)[..., None]


def uniform_map(sigma: float, shape: tuple[int, ...], cell: int) -> NoiseMap:
    """Return the map of an image (H, W, ...) with the same noise everywhere, all of which is removed."""
    height, width = (-(-side // cell) for side in shape[:2])
    return NoiseMap(np.full((height, width), sigma, np.float32), cell, 0.0)


def estimate_noise(denoiser: Denoiser, pixels: Values, *, map_tiles: Mapper = map) -> NoiseMap:
    """Estimate the noise of ``uint8`` or ``uint16`` (H, W, C), tile by tile.

    Dithered and drawn images have few values, enlarged ones repeat them exactly, screenshots have flat places
    beside every edge, and leather is of one color: none of that is noise.

    Args:
        denoiser: The model.
        pixels: The image.
        map_tiles: Runs the tiles of a row, in parallel where it can.
    """
    spec = denoiser.spec
    height, width = pixels.shape[:2]
    cells = np.zeros((-(-height // spec.cell), -(-width // spec.cell)), np.float32)
    saturated = np.zeros(cells.shape, bool)
    equal, counted, steps = np.zeros_like(cells), np.zeros_like(cells), np.zeros_like(cells)
    colored = pixels.shape[2] == 3
    if has_few_values(pixels):
        return NoiseMap(cells, spec.cell, spec.clean_below, drawn=True)
    margin, inside = _tiling(denoiser)

    def estimate(corner: tuple[int, int]) -> None:
        top, left = corner
        start, begin = max(0, top - margin), max(0, left - margin)
        part = pixels[start : top + inside + margin, begin : left + inside + margin]
        floats = as_floats(part)
        found = denoiser.estimate(floats[None])[0]
        found[repeated_cells(part, spec.cell)] = 0
        brightness = cell_means(floats.mean(2), spec.cell)
        ends = (brightness < _BLACK) | (brightness > _WHITE)
        rows = slice(top // spec.cell, (top + inside) // spec.cell)
        columns = slice(left // spec.cell, (left + inside) // spec.cell)
        high, wide = cells[rows, columns].shape
        above, before = (top - start) // spec.cell, (left - begin) // spec.cell
        inner = np.s_[above : above + high, before : before + wide]
        for whole, values in zip(
            (cells, saturated, equal, counted), (found, ends, *equal_cells(part, spec.cell)), strict=True
        ):
            whole[rows, columns] = values[inner]
        if colored:
            steps[rows, columns] = color_steps(floats, spec.cell)[inner]

    corners = [(top, left) for top in range(0, height, inside) for left in range(0, width, inside)]
    for _ in map_tiles(estimate, corners):
        pass
    limit = np.float32(spec.deviations[1])
    if (cells >= spec.clean_below).any():
        level = confirmed_noise(cells, saturated, clean_below=spec.clean_below)
        cells = np.where(cells >= np.float32(_LEAST) * level, level, np.float32(0))
        noisy = cells >= spec.clean_below
        most = most_equal_neighbors(float(np.median(cells[noisy])), pixels.shape[2]) if noisy.any() else 1
        if equal[noisy].sum() > most * counted[noisy].sum():
            cells = np.zeros_like(cells)  # the edges of flat places: a screenshot
        elif colored and noisy.any() and not has_colors_of_noise(steps[noisy], cells[noisy]):
            cells = np.zeros_like(cells)  # a texture that covers all of the image
    return NoiseMap(np.minimum(cells, limit), spec.cell, spec.clean_below)


def count_estimates(denoiser: Denoiser, height: int, width: int) -> int:
    """Return the number of tiles in which the noise of an image of this size is estimated."""
    _, inside = _tiling(denoiser)
    return -(-height // inside) * -(-width // inside)


def _tiling(denoiser: Denoiser) -> tuple[int, int]:
    """Return the margin of tiles, and the side of what is kept of one."""
    multiple = denoiser.spec.size_multiple
    margin = -(-denoiser.spec.estimator_field // multiple) * multiple
    return margin, (_TILE - 2 * margin) // multiple * multiple


def confirmed_noise(cells: Floats, saturated: NDArray[np.bool_], *, clean_below: float) -> Floats:
    """Return the noise of the noisiest square that each cell lies in, float32 (h, w).

    A square has noise where four in five of its cells have: noise covers smooth places and textures alike,
    while what is taken for noise in textures does not cover the smooth places among them. A part of an image
    with noise keeps it up to its edge, if it is as large as a square.

    Args:
        cells: float32 (h, w), the estimates.
        saturated: (h, w), cells that are black or white and do not count.
        clean_below: Cells below this sigma are clean.
    """
    square = min(_SQUARE[1], max(_SQUARE[0], min(cells.shape) // 2))
    sides = [min(square, side) for side in cells.shape]
    tops, lefts = (
        sorted({*range(0, whole - side + 1, _STEP), whole - side})
        for whole, side in zip(cells.shape, sides, strict=True)
    )
    counted = np.where(saturated, np.float32(np.inf), cells)
    windows = np.lib.stride_tricks.sliding_window_view(counted, sides)
    confirmed = np.zeros_like(cells)
    for top in tops:
        values = np.sort(windows[top, lefts].reshape(len(lefts), -1), axis=1)  # cells of each, ascending
        count = np.isfinite(values).sum(axis=1)
        fewest, typical = (
            values[np.arange(len(lefts)), (share * count).astype(np.int64).clip(0, values.shape[1] - 1)]
            for share in (_CONFIRMING, _TYPICAL if square >= _SMALL else _TYPICAL_OF_SMALL)
        )
        levels = np.where((count > 0) & (fewest >= clean_below), typical, 0)
        for left, level in zip(lefts, levels, strict=True):
            part = confirmed[top : top + sides[0], left : left + sides[1]]
            np.maximum(part, np.float32(level), out=part)
    return confirmed


def as_floats(values: Values) -> Floats:
    """Return uint8 or uint16 values as float32 in [0, 1]."""
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
