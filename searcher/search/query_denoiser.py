"""Queries that are denoised before they are compared.

Legend: H height, W width of an image, S side of a model's input, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.detect import Face
from lookalike.encoder.images import Crop, ImageSpec, decode_rgb, encode_png, read_pixels
from lookalike.encoder.runtime import Denoiser
from lookalike.searcher.denoising import denoise_in_place, estimate_noise

_MARGIN: Final = 16
"""Pixels around the crop that are denoised too, so that the denoiser sees the neighbors of its edges."""
_MAX_RATIO: Final = 4
"""An image whose crop is more than this many times the model's side is first reduced to it: averaging removes
more noise than any denoiser, and a photograph of any size takes no longer than a small one."""
_STRENGTH: Final = 0.85
"""A face without any grain is smoother than the faces a model knows, so some noise is left; see
docs/experiments.md."""


@dataclass(frozen=True, slots=True)
class DenoiseInfo:
    """How a query was denoised.

    Attributes:
        denoiser: Name of the denoiser.
        sigma: Median of the estimated standard deviation of the noise, in [0, 1].
        denoised: Whether noise was removed; a clean image is left as it is.
    """

    denoiser: str
    sigma: float
    denoised: bool

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: denoiser, sigma (0..255), cleaned."""
        return {"denoiser": self.denoiser, "sigma": round(255 * self.sigma, 2), "cleaned": self.denoised}

    def summary(self) -> str:
        """Return one line for people."""
        noise = f"noise sigma about {255 * self.sigma:.0f} of 255"
        return f"denoised first ({noise})" if self.denoised else f"not denoised, clean enough ({noise})"


class QueryDenoiser:
    """Reads queries as a model sees them, without their noise.

    Attributes:
        denoiser: The network that removes it.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser

    def read(
        self, data: bytes, spec: ImageSpec, *, crop: Crop, max_pixels: int | None = None, name: str
    ) -> tuple[NDArray[np.uint8], DenoiseInfo]:
        """Read one query: uint8 (S, S, C), and what was done to it.

        Only the crop is denoised, by the noise estimated there. A clean image gives exactly the pixels
        of :func:`read_pixels`.

        Args:
            data: The whole file.
            spec: The model's input.
            crop: How the image is framed.
            max_pixels: Larger images are refused; None: the default limit.
            name: What to call the file in messages.

        Raises:
            ImageError: the bytes are not an image that can be read.
        """
        image = _reduce(decode_rgb(data, max_pixels=max_pixels, name=name), crop, spec.size)
        part = _crop_slices(crop, image)
        noise = estimate_noise(self.denoiser, image[part])
        info = DenoiseInfo(self.denoiser.bundle.name, noise.percentile(50), not noise.is_clean)
        if noise.is_clean:
            return read_pixels(data, spec, crop=crop, max_pixels=max_pixels, name=name), info
        denoise_in_place(self.denoiser, image[part], noise, strength=_STRENGTH)
        return read_pixels(encode_png(image), spec, crop=crop, name=name), info

    def face(self, image: NDArray[np.uint8], face: Face, size: int) -> tuple[NDArray[np.uint8], DenoiseInfo]:
        """Return a picture with one of its faces denoised, and what was done.

        Args:
            image: uint8 (H, W, 3).
            face: A face of it.
            size: S; a picture whose face is much larger is returned reduced.
        """
        factor = max(1, int(face.width / (_MAX_RATIO * size)))
        # A copy: the other faces of the picture are denoised by themselves.
        image = np.array(Image.fromarray(image).reduce(factor) if factor > 1 else image)
        height, width = image.shape[:2]
        x, y, across, down = face.box
        columns = slice(max(0, int((x - across / 2) * width)), int((x + 1.5 * across) * width) + 1)
        rows = slice(max(0, int((y - down / 2) * height)), int((y + 1.5 * down) * height) + 1)
        noise = estimate_noise(self.denoiser, image[rows, columns])
        if not noise.is_clean:
            denoise_in_place(self.denoiser, image[rows, columns], noise, strength=_STRENGTH)
        return image, DenoiseInfo(self.denoiser.bundle.name, noise.percentile(50), not noise.is_clean)


def _reduce(image: NDArray[np.uint8], crop: Crop, size: int) -> NDArray[np.uint8]:
    """Return the image reduced until its crop is at most twice :data:`_MAX_RATIO` the model's side, each way.

    A window, which the model sees as a square, is reduced more along its longer side.
    """
    left, top, right, bottom = crop.box(image.shape[1], image.shape[0])
    factors = [max(1, int(side / (_MAX_RATIO * size))) for side in (right - left, bottom - top)]
    if crop.window is None:  # a square stays one also where rounding gives two factors
        factors = [min(factors)] * 2
    return np.array(Image.fromarray(image).reduce((factors[0], factors[1]))) if max(factors) > 1 else image


def _crop_slices(crop: Crop, image: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the rows and columns of a crop, with a margin."""
    height, width = image.shape[:2]
    left, top, right, bottom = crop.box(width, height)
    rows = slice(max(0, int(top) - _MARGIN), min(height, int(bottom) + 1 + _MARGIN))
    return rows, slice(max(0, int(left) - _MARGIN), min(width, int(right) + 1 + _MARGIN))
