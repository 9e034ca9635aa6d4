"""Denoise an image in place, in tiles that overlap by the receptive field of the denoiser: without seams.

A tile is cut with a margin of the receptive field, and only its inside is inside_slices: every pixel is
computed from the same neighbors as in one piece. The whole image is never copied to floats.

Legend: H, W = height and width; C channels (1 gray, 3 RGB); sigma is the noise level in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.images import Values
from lookalike.encoder.runtime import Denoiser

Floats = NDArray[np.float32]
Mapper = Callable[[Callable[..., Any], Iterable[Any]], Iterator[Any]]
"""``map``, or the same on several threads."""

_TILE: Final = 640
"""Side of a tile with its margin: it bounds the activations."""
_MIN_INSIDE: Final = 256
_PATCH: Final = 256
_PATCHES: Final = 25


def estimate_sigma(denoiser: Denoiser, pixels: Values, *, map_tiles: Mapper = map) -> float:
    """Return the noise level of (H, W, C): of a large image, the median of patches spread over it."""
    height, width = pixels.shape[:2]
    if height * width <= _TILE**2:
        return float(denoiser.estimate(_floats(pixels)[None])[0])
    corners = [(top, left) for top in _patch_starts(height) for left in _patch_starts(width)]

    def estimate(corner: tuple[int, int]) -> float:
        top, left = corner
        return float(denoiser.estimate(_floats(pixels[top : top + _PATCH, left : left + _PATCH])[None])[0])

    return float(np.median(list(map_tiles(estimate, corners))))


def denoise_in_place(
    denoiser: Denoiser,
    pixels: Values,
    sigma: float,
    *,
    strength: float = 1.0,
    tile_size: int = _TILE,
    map_tiles: Mapper = map,
) -> None:
    """Denoise ``uint8`` or ``uint16`` (H, W, C) in place.

    Args:
        denoiser: The network.
        pixels: May be a view; rounded to its own depth.
        sigma: Noise level.
        strength: 1 removes all that the denoiser removes, 0.5 half of it, 0 nothing.
        tile_size: Side of a tile with its margin, in pixels; a smaller image is one tile.
        map_tiles: Runs the tiles of a row, in parallel where it can.
    """
    height, width = pixels.shape[:2]
    multiple = denoiser.spec.size_multiple
    margin = max(multiple, -(-denoiser.spec.receptive_field // multiple) * multiple)
    inside = max(-(-_MIN_INSIDE // multiple), (tile_size - 2 * margin) // multiple) * multiple
    tile_height, tile_width = (side if side <= tile_size else inside for side in (height, width))
    known_sigma, max_value = np.array([sigma], np.float32), np.iinfo(pixels.dtype).max

    def tile(left: int) -> Values:
        start = max(0, left - margin)
        part = block[:, start : left + tile_width + margin]
        output = denoiser.denoise(_floats(part)[None], known_sigma)[0]
        across = slice(left - start, left - start + min(tile_width, width - left))
        denoised: Floats = output[above : above + bottom - top, across]
        if strength != 1:
            before = _floats(part[above : above + bottom - top, across])
            denoised = before + np.float32(strength) * (denoised - before)
        values = np.rint(denoised.clip(0, 1) * np.float32(max_value))
        if pixels.dtype == np.uint8:
            return values.astype(np.uint8)
        return values.astype(np.uint16)

    above_rows = pixels[:0].copy()  # rows above the tiles, as they were before
    for top in range(0, height, tile_height):
        bottom, above = min(top + tile_height, height), len(above_rows)
        parts: list[Any] = [above_rows, pixels[top : bottom + margin]]
        block: Values = np.concatenate(parts)
        lefts = range(0, width, tile_width)
        for left, output in zip(lefts, map_tiles(tile, lefts), strict=True):
            pixels[top:bottom, left : left + tile_width] = output
        done = above + bottom - top
        above_rows = block[max(0, done - margin) : done].copy()


def _floats(values: Values) -> Floats:
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def _patch_starts(side: int) -> list[int]:
    """Return where up to five patches begin along a side."""
    count = min(round(_PATCHES**0.5), max(1, side // _PATCH))
    last = max(0, side - _PATCH)
    return [round(last * i / max(1, count - 1)) if count > 1 else last // 2 for i in range(count)]
