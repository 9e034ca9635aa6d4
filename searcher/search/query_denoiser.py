"""Queries that are cleaned before they are compared.

Legend: H height, W width of a picture, S side of a model's input, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.images.preprocess import Crop, ImageSpec, decode_rgb, encode_png, read_pixels
from lookalike.encoder.runtime.denoiser import Denoiser
from lookalike.searcher.denoising.tiles import denoise_in_place, estimate_sigma

__all__ = ["DenoiseInfo", "QueryDenoiser"]

_MARGIN: Final = 16
"""Pixels around the part that is compared which are cleaned too, so that its edges are cleaned as well."""
_TIMES: Final = 4
"""A picture whose part is more than so many times the model's side is reduced to it first: averaging takes
off more noise there than any cleaner, and a photograph of any size takes no longer than a small one."""

_STRENGTH: Final = 0.85
"""Some grain is left, for a face without any is smoother than those that a model knows. Of 286 queries of the
validation people of LFW, Recall@1 with all, 0.85 and 0.7 of the noise taken off: 0.573, 0.584 and 0.573 at
sigma 25; 0.507, 0.549 and 0.545 at 50; 0.416, 0.413 and 0.423 at 75."""


@dataclass(frozen=True, slots=True)
class DenoiseInfo:
    """What was done to a query.

    Attributes:
        cleaner: Name of the cleaner.
        sigma: Deviation of the noise that it found, of 1.
        cleaned: Whether it was cleaned; a picture that is clean already is left as it is.
    """

    cleaner: str
    sigma: float
    cleaned: bool

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: cleaner, sigma (of 255), cleaned."""
        return {"cleaner": self.cleaner, "sigma": round(255 * self.sigma, 2), "cleaned": self.cleaned}

    def line(self) -> str:
        """Return a line for people."""
        found = f"noise of about {255 * self.sigma:.0f} of 255"
        return f"cleaned first ({found})" if self.cleaned else f"left as it is, clean enough ({found})"


class QueryDenoiser:
    """Reads queries as a model sees them, without their noise.

    Attributes:
        cleaner: What takes it off.
    """

    def __init__(self, cleaner: Denoiser) -> None:
        self.cleaner = cleaner

    def read(
        self, data: bytes, spec: ImageSpec, *, crop: Crop, name: str
    ) -> tuple[NDArray[np.uint8], DenoiseInfo]:
        """Read one query: uint8 (S, S, C), and what was done to it.

        Cleaned is the part that is compared, by the noise that is found there. A picture that is clean
        already gives exactly the pixels of :func:`read_pixels`.

        Args:
            data: The whole file.
            spec: What the model wants.
            crop: How the picture is framed.
            name: What to call the file in messages.

        Raises:
            ImageError: the bytes are no picture that can be read.
        """
        whole = _reduced(decode_rgb(data, name=name), crop, spec.size)
        part = _part(crop, whole)
        found = estimate_sigma(self.cleaner, whole[part])
        bundle = self.cleaner.bundle
        noisy = found >= self.cleaner.spec.clean_below
        done = DenoiseInfo(bundle.name, found, noisy)
        if not noisy:
            return read_pixels(data, spec, crop=crop, name=name), done
        denoise_in_place(self.cleaner, whole[part], found, strength=_STRENGTH)
        return read_pixels(encode_png(whole), spec, crop=crop, name=name), done


def _reduced(whole: NDArray[np.uint8], crop: Crop, size: int) -> NDArray[np.uint8]:
    """Return a picture whose part is at most twice :data:`_TIMES` the model's side, in width and in height.

    A window, which the model sees as a square, is reduced as much the more as it is longer along one side.
    """
    left, top, right, bottom = crop.box(whole.shape[1], whole.shape[0])
    across, down = (max(1, int(side / (_TIMES * size))) for side in (right - left, bottom - top))
    if crop.window is None:  # a square also where rounding has the last word
        across = down = min(across, down)
    return np.array(Image.fromarray(whole).reduce((across, down))) if max(across, down) > 1 else whole


def _part(crop: Crop, whole: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the rows and columns that a crop shows, with a margin."""
    height, width = whole.shape[:2]
    left, top, right, bottom = crop.box(width, height)
    rows = slice(max(0, int(top) - _MARGIN), min(height, int(bottom) + 1 + _MARGIN))
    return rows, slice(max(0, int(left) - _MARGIN), min(width, int(right) + 1 + _MARGIN))
