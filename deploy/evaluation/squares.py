"""Pictures as grey squares, decoded once for all baselines of a run, by the product's own decoder.

Legend: N images, S side.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import ImageError
from lookalike.encoder.images.preprocess import LFW_CROP, Crop, ImageSpec, read_pixels
from lookalike.encoder.text import printable

__all__ = ["GrayImages"]

_CHUNK: Final = 64  # images that one thread decodes at a time


class GrayImages:
    """Grey squares of all pictures, for each framing decoded when it is first asked for.

    Args:
        images: The pictures.
        crop: How they are framed.
        steps: Told of the progress.
    """

    def __init__(
        self, images: LabeledImages, *, crop: Crop = LFW_CROP, steps: Progress = no_progress
    ) -> None:
        self.images = images
        self.crop = crop
        self.steps = steps
        self.failures: dict[int, str] = {}
        """Why a picture could not be read, by index; of those that were asked for."""
        self._seen: dict[str, NDArray[np.uint8]] = {}

    def spec(self, size: int, zoom: float) -> ImageSpec:
        """Return how squares of a side are made, ``zoom`` times as much of the picture as the crop says."""
        return ImageSpec(size=size, channels=1, crop=self.crop.widened(zoom))

    def read(self, size: int, zoom: float) -> NDArray[np.uint8]:
        """Return uint8 (N, S, S); black where a picture cannot be read."""
        spec = self.spec(size, zoom)
        key = repr(spec)
        if key not in self._seen:
            self._seen[key] = self._decode(spec)
        return self._seen[key]

    def _decode(self, spec: ImageSpec) -> NDArray[np.uint8]:
        count = len(self.images)
        squares = np.zeros((count, spec.size, spec.size), np.uint8)

        def read(chunk: range) -> int:
            for index in chunk:
                file = self.images.files[index]
                try:
                    squares[index] = read_pixels(_bytes(file), spec, name=str(file))[:, :, 0]
                except ImageError as error:
                    self.failures[index] = str(error)
                except (OSError, ValueError) as error:  # ValueError: a null byte in the path
                    reason = getattr(error, "strerror", None) or error
                    self.failures[index] = f"{printable(str(file))}: cannot be read ({reason})"
            return len(chunk)

        chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        with (
            ThreadPoolExecutor(os.cpu_count()) as pool,
            self.steps(f"decoding {spec.crop}", count) as advance,
        ):
            for done in pool.map(read, chunks):
                advance(done)
        return squares


def _bytes(file: Path) -> bytes:
    if not file.is_file():  # a pipe would keep us waiting
        raise OSError("it is not a file or leads nowhere")
    return file.read_bytes()
