"""Hand-made features of grey pictures, from before networks, by scikit-image.

LBP: T. Ahonen, A. Hadid, M. Pietikainen: Face Description with Local Binary Patterns: Application to Face
Recognition. IEEE TPAMI 28(12), 2006. HOG: N. Dalal, B. Triggs: Histograms of Oriented Gradients for Human
Detection. CVPR 2005.

Legend: n images, S side, F features.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.embed.workers import exit_with_parent
from lookalike.encoder.errors import MissingExtraError

__all__ = ["Extract", "Feature", "extract", "extractor"]

Feature = Literal["pixels", "lbp", "hog"]
Extract = Callable[[Feature, NDArray[np.uint8]], Iterator[NDArray[np.float16]]]
"""Gives the features of uint8 (n, S, S) in parts, float16 (part, F), in order."""

_CELLS: Final = 8
_PATTERNS: Final = 59  # of 8 neighbours: 58 uniform ones, and all others together
_PART: Final = 256
_WORTH: Final = 2000  # images: below it processes take longer to start than to work
_MOST_WORKERS: Final = 8


def extract(feature: Feature, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return features float16 (n, F) of grey pictures, uint8 (n, S, S).

    ``pixels``: the values in [0, 1]. ``lbp``: in 8 x 8 cells the shares of the 59 uniform patterns of eight
    neighbours at radius 1, square roots taken, so that the inner product is the Hellinger affinity. ``hog``:
    nine orientations in 8 x 8 cells, blocks of 2 x 2 normalised by clipped L2. Both have unit length.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    if feature == "pixels":
        flat: NDArray[np.float16] = (pictures.reshape(len(pictures), -1) / np.float32(255)).astype(np.float16)
        return flat
    one = _patterns if feature == "lbp" else _gradients
    return np.stack([one(picture) for picture in pictures]).astype(np.float16)


@contextmanager
def extractor(count: int) -> Iterator[Extract]:
    """Give what extracts features of ``count`` pictures, on a process for each core where it is worth it.

    Processes, not threads: much of this runs under Python's lock. LBP and HOG of 6,000 pictures took 5.8 s on
    two threads and 4.7 s on two processes, their start included, on two idle cores.
    """
    if count < _WORTH:
        yield lambda feature, pictures: map(functools.partial(extract, feature), _parts(pictures))
        return
    # Started afresh: forking a process that runs threads (onnxruntime's) may hang.
    workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    apart = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=apart, initializer=exit_with_parent)
    try:
        yield lambda feature, pictures: pool.map(functools.partial(extract, feature), _parts(pictures))
    finally:
        pool.shutdown(cancel_futures=True)


def _parts(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    return (pictures[start : start + _PART] for start in range(0, len(pictures), _PART))


def _patterns(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Square roots of pattern shares in each cell, float32 (64 * 59,), unit length."""
    try:
        from skimage.feature import local_binary_pattern
    except ImportError as error:
        raise _missing() from error
    coded: Callable[..., NDArray[np.float64]] = local_binary_pattern
    codes = coded(picture, 8, 1, "nri_uniform").astype(np.int64)  # (S, S) in 0..58
    cell = np.arange(len(picture)) * _CELLS // len(picture)
    places = (cell[:, None] * _CELLS + cell) * _PATTERNS + codes
    counts = np.bincount(places.ravel(), minlength=_CELLS * _CELLS * _PATTERNS)
    roots: NDArray[np.float32] = np.sqrt(counts / picture.size).astype(np.float32)
    return roots


def _gradients(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Histograms of oriented gradients, float32 (7 * 7 * 4 * 9,), unit length."""
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise _missing() from error
    cell = len(picture) // _CELLS
    found: NDArray[np.float64] = hog(
        picture, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2), block_norm="L2-Hys"
    )
    length = float(np.linalg.norm(found))
    unit: NDArray[np.float32] = (found / (length or 1.0)).astype(np.float32)
    return unit


def _missing() -> MissingExtraError:
    return MissingExtraError("LBP and HOG need scikit-image; pip install 'lookalike[evaluate]'")
