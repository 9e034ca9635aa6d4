"""Which files under a folder are pictures: the same answer for training and for indexing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from encoder.errors import DataError
from encoder.images import shown

__all__ = ["PICTURE_SUFFIXES", "find_pictures"]

PICTURE_SUFFIXES: Final = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".pgm",
        ".ppm",
        ".pnm",
    }
)
"""Compared in lower case. The name only decides whether a file is looked at; its bytes decide how."""


def find_pictures(root: Path) -> Iterator[Path]:
    """Yield the pictures under ``root``, relative to it, folder by folder in sorted order.

    Hidden files and folders are left out; links to files are followed, links to folders are not (no loops).

    Raises:
        DataError: a folder cannot be listed. To pass over it would make its pictures look deleted.
    """
    for folder, folders, names in os.walk(root, onerror=_stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder).relative_to(root)
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES:
                yield here / name


def _stop(error: OSError) -> NoReturn:
    raise DataError(
        f"every folder must be readable, {shown(str(error.filename))} is not ({error.strerror}); "
        "mend its permissions or name the folders beside it"
    ) from error
