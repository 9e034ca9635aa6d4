"""Which files under a folder are pictures: the same answer for training and for indexing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from encoder.errors import DataError
from encoder.images import shown

__all__ = ["PICTURE_SUFFIXES", "find_names", "find_pictures", "is_picture"]

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


def is_picture(name: str) -> bool:
    """Whether a file of this name is looked at."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122  # ten times a Path's speed


def find_pictures(
    root: Path, *, hidden: bool = False, on_unreadable: Callable[[OSError], object] | None = None
) -> Iterator[Path]:
    """Yield the pictures under ``root``, relative to it, as :func:`find_names` does."""
    return map(Path, find_names(root, hidden=hidden, on_unreadable=on_unreadable))


def find_names(
    root: Path, *, hidden: bool = False, on_unreadable: Callable[[OSError], object] | None = None
) -> Iterator[str]:
    """Yield the pictures under ``root``, relative to it, folder by folder in sorted order.

    They come as the system spells them: a Path of each takes as long as finding it.

    Links to files are followed, links to folders are not (no loops).

    Args:
        root: The folder.
        hidden: Whether files and folders are seen whose name begins with a dot.
        on_unreadable: Told of a folder that cannot be listed, which is then passed over; None: it stops all.

    Raises:
        DataError: a folder cannot be listed. To pass over it in silence would make its pictures look deleted.
    """

    def seen(name: str) -> bool:
        return hidden or not name.startswith(".")

    top = os.fspath(root)
    for folder, folders, names in os.walk(top, onerror=on_unreadable or _stop):
        folders[:] = sorted(filter(seen, folders))
        here = folder[len(top) :].lstrip(os.sep)
        for name in sorted(names):
            if is_picture(name) and seen(name):
                yield f"{here}{os.sep}{name}" if here else name


def _stop(error: OSError) -> NoReturn:
    raise DataError(
        f"every folder must be readable, {shown(str(error.filename))} is not ({error.strerror}); "
        "mend its permissions or name the folders beside it"
    ) from error
