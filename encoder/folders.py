"""Which files under a folder are pictures: the same answer for training and for indexing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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
"""Compared in lower case. What a file is called only decides whether it is looked at; its bytes decide how."""


def find_pictures(root: Path) -> Iterator[Path]:
    """Yield the pictures under ``root``, relative to it, folder by folder in sorted order.

    Hidden files and folders are left out; links to files are followed, links to folders are not (no loops).
    """
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder).relative_to(root)
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES:
                yield here / name
