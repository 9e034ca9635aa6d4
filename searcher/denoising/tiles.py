"""The tiles that a large image is denoised in, and what an image takes by their number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lookalike.encoder.runtime import Denoiser
from lookalike.searcher.denoising.noise_map import count_estimates

TILE: Final = 832
"""Side of a tile with its margin: it bounds the activations."""
_MIN_INSIDE: Final = 256


def tiling(denoiser: Denoiser, sides: tuple[int, int], tile_size: int) -> tuple[int, list[int]]:
    """Return the margin of tiles, and the height and width of what is kept of one."""
    multiple = denoiser.spec.size_multiple
    margin = max(multiple, -(-denoiser.spec.receptive_field // multiple) * multiple)
    inside = max(-(-_MIN_INSIDE // multiple), (tile_size - 2 * margin) // multiple) * multiple
    return margin, [side if side <= tile_size else inside for side in sides]


@dataclass(frozen=True, slots=True)
class Workload:
    """What denoising an image takes at most: places without noise are passed over.

    Attributes:
        tiles: Number of tiles, of the estimate and of the denoising.
        pixels: Pixels of the tiles that are denoised, with their margins.
    """

    tiles: int
    pixels: int


def unet_workload(denoiser: Denoiser, height: int, width: int, *, estimated: bool) -> Workload:
    """Return what :func:`denoise_pixels` does for an image of this size.

    Args:
        denoiser: The network.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        estimated: Whether the noise is estimated first.
    """
    margin, kept = tiling(denoiser, (height, width), TILE)
    tiles = pixels = 1
    for side, inside in zip((height, width), kept, strict=True):
        starts = range(0, side, inside)
        tiles *= len(starts)
        pixels *= sum(min(side, start + inside + margin) - max(0, start - margin) for start in starts)
    return Workload(tiles + (count_estimates(denoiser, height, width) if estimated else 0), pixels)
