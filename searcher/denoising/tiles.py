"""One picture cleaned where it lies, in tiles that overlap by as far as the cleaner looks: without seams.

A tile is cut with the reach of the cleaner around it, and only its inside is kept: every pixel is computed
from the same neighbours as in one piece. Of the whole picture there is no copy in floats.

Legend: H, W = height and width; C channels (1 grey, 3 RGB); sigma in [0, 1] of white.
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
"""``map``, or what does the same on several threads."""

_WHOLE: Final = 640
"""Sides of what is cleaned at once, with what lies around it: it bounds the activations."""
_LEAST_INSIDE: Final = 256
_PROBE: Final = 256
_PROBES: Final = 25


def estimate_sigma(cleaner: Denoiser, colours: Values, *, at_once: Mapper = map) -> float:
    """Return the sigma of the noise in (H, W, C): of a large picture, the median of probes all over it."""
    height, width = colours.shape[:2]
    if height * width <= _WHOLE**2:
        return float(cleaner.estimate(_floats(colours)[None])[0])
    corners = [(top, left) for top in _spread(height) for left in _spread(width)]

    def probe(corner: tuple[int, int]) -> float:
        top, left = corner
        return float(cleaner.estimate(_floats(colours[top : top + _PROBE, left : left + _PROBE])[None])[0])

    return float(np.median(list(at_once(probe, corners))))


def denoise_in_place(
    cleaner: Denoiser,
    colours: Values,
    sigma: float,
    *,
    strength: float = 1.0,
    whole: int = _WHOLE,
    at_once: Mapper = map,
) -> None:
    """Clean ``uint8`` or ``uint16`` (H, W, C) where it lies.

    Args:
        cleaner: What cleans.
        colours: May be a view; rounded to its own depth.
        sigma: Of the noise.
        strength: 1: all that the cleaner takes away goes; 0.5: half of it; 0: nothing.
        whole: Height and width of what is cleaned at once, in pixels; a larger picture is cut into tiles.
        at_once: Runs the tiles of a row of tiles, at once where it can.
    """
    height, width = colours.shape[:2]
    multiple = cleaner.spec.size_multiple
    around = max(multiple, -(-cleaner.spec.receptive_field // multiple) * multiple)
    inside = max(-(-_LEAST_INSIDE // multiple), (whole - 2 * around) // multiple) * multiple
    tall, wide = (side if side <= whole else inside for side in (height, width))
    told, top_value = np.array([sigma], np.float32), np.iinfo(colours.dtype).max

    def tile(left: int) -> Values:
        start = max(0, left - around)
        part = block[:, start : left + wide + around]
        made = cleaner.denoise(_floats(part)[None], told)[0]
        kept = np.s_[above : above + bottom - top, left - start : left - start + min(wide, width - left)]
        before = part[kept]
        changed = made[kept] if strength == 1 else _blended(_floats(before), made[kept], strength)
        values = np.rint(changed.clip(0, 1) * np.float32(top_value))
        if colours.dtype == np.uint8:
            return values.astype(np.uint8)
        return values.astype(np.uint16)

    held = colours[:0].copy()  # rows above, as they were before they were cleaned
    for top in range(0, height, tall):
        bottom, above = min(top + tall, height), len(held)
        both: list[Any] = [held, colours[top : bottom + around]]
        block: Values = np.concatenate(both)
        lefts = range(0, width, wide)
        for left, made in zip(lefts, at_once(tile, lefts), strict=True):
            colours[top:bottom, left : left + wide] = made
        done = above + bottom - top
        held = block[max(0, done - around) : done].copy()


def _blended(before: Floats, after: Floats, strength: float) -> Floats:
    return before + np.float32(strength) * (after - before)


def _floats(values: Values) -> Floats:
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def _spread(side: int) -> list[int]:
    """Where up to five probes begin along a side."""
    count = min(round(_PROBES**0.5), max(1, side // _PROBE))
    last = max(0, side - _PROBE)
    return [round(last * i / max(1, count - 1)) if count > 1 else last // 2 for i in range(count)]
