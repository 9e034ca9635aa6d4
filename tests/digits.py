"""A small MNIST of made-up digits, in the files that the real one has. Not a test."""

import gzip
import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.datasets.mnist import Split

STEMS: Final[dict[Split, str]] = {"train": "train", "test": "t10k"}
COUNTS: Final[dict[Split, int]] = {"train": 30, "test": 20}


def made_up_images(split: Split) -> NDArray[np.uint8]:
    """Noise with one bright bar for each class, uint8 (N, 28, 28), no two alike."""
    images = np.random.default_rng(len(split)).integers(0, 60, (COUNTS[split], 28, 28), np.uint8)
    for image, label in zip(images, made_up_labels(split), strict=True):
        image[2 * label + 4 : 2 * label + 7, 4:24] = 255
    return images


def made_up_labels(split: Split) -> NDArray[np.uint8]:
    """The classes in turn, uint8 (N,)."""
    return np.arange(COUNTS[split], dtype=np.uint8) % 10


def idx(values: NDArray[np.uint8]) -> bytes:
    """An array as an IDX file."""
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def idx_files() -> dict[str, bytes]:
    """The four files by name, not packed."""
    files = {}
    for split, stem in STEMS.items():
        files[f"{stem}-images-idx3-ubyte"] = idx(made_up_images(split))
        files[f"{stem}-labels-idx1-ubyte"] = idx(made_up_labels(split))
    return files


def write_digits(folder: Path, *, packed: bool = False) -> Path:
    """Write them into a folder, made when missing, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in idx_files().items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)
    return folder
