"""The picture of a stored item, for people: from its recorded path under its root, and from nowhere else."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.deploy.http.errors import ApiError
from lookalike.encoder.datasets.mnist import MNIST
from lookalike.encoder.errors import DataError, ImageError
from lookalike.encoder.images.preprocess import Crop, ImageSpec, decode_rgb, read_pixels
from lookalike.indexer.sources.mnist import MnistImage
from lookalike.indexer.sources.source import as_path
from lookalike.indexer.sources.tar import located
from lookalike.indexer.store.spec import CollectionSpec

__all__ = ["LARGEST", "as_jpeg", "original", "picture", "thumbnail"]

LARGEST: Final = 2048
_QUALITY: Final = 90


def original(spec: CollectionSpec, payload: dict[str, Any]) -> bytes:
    """Return the bytes of an item's picture.

    The file that is read really lies under the root: links that lead out of it are refused, also one that is
    put there between the look and the reading.

    Raises:
        ApiError: it is gone, cannot be read, or lies elsewhere.
    """
    root = spec.roots.get(str(payload.get("root")))
    relative = as_path(str(payload.get("path", "")))
    if root is None or relative.is_absolute() or ".." in relative.parts:
        raise _gone()
    folder = as_path(root)
    try:
        place = located(folder / relative)
        if isinstance(place, Path):
            return _read_below(folder, place)
        inside = (
            MNIST(place.folder).images_file(place.split) if isinstance(place, MnistImage) else place.archive
        )
        if not inside.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise _gone()
        return place.read()[0]
    except (OSError, DataError, ValueError, RuntimeError) as error:  # ValueError: a null byte in the path
        raise _gone() from error


def _read_below(folder: Path, path: Path) -> bytes:
    """Read a file that lies below a folder, links followed."""
    real = path.resolve(strict=True)
    if not real.is_relative_to(folder.resolve(strict=True)):
        raise _gone()
    nonblocking = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(real, os.O_RDONLY | nonblocking), "rb") as file:
        opened, there = os.fstat(file.fileno()), os.lstat(path.resolve(strict=True))
        # What was opened is what lies below the folder now, under a name without links.
        if (opened.st_dev, opened.st_ino) != (there.st_dev, there.st_ino) or real != path.resolve(
            strict=True
        ):
            raise _gone()
        if not stat.S_ISREG(opened.st_mode):
            raise _gone()
        return file.read()


def _gone() -> ApiError:
    return ApiError("picture-not-found", "its file is gone, or does not lie under its collection's folder")


def thumbnail(spec: CollectionSpec, payload: dict[str, Any], *, side: int) -> bytes:
    """Return an item's picture as JPEG, ``side`` px square, with a little more around it than the model sees.

    Raises:
        ApiError: as :func:`original`, or it is no picture any more.
    """
    framing = Crop.parse(spec.crop).widened(1.5)
    try:
        pixels = read_pixels(original(spec, payload), ImageSpec(size=side, crop=framing), name="the item")
    except ImageError as error:
        raise _gone() from error
    return as_jpeg(pixels)


def picture(spec: CollectionSpec, payload: dict[str, Any]) -> bytes:
    """Return an item's whole picture as JPEG, at most 2048 px wide and high; nothing says where it was taken.

    Raises:
        ApiError: as :func:`thumbnail`.
    """
    try:
        pixels = decode_rgb(original(spec, payload), name="the item")
    except ImageError as error:
        raise _gone() from error
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    return as_jpeg(np.asarray(image))


def as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return ``uint8 (H, W, 3)`` as the bytes of a JPEG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
