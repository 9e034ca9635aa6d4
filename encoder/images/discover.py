"""Find the image files under a folder, the same for training and indexing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from lookalike.encoder.errors import DataError
from lookalike.encoder.text import printable

IMAGE_SUFFIXES: Final = frozenset(
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
"""Compared in lower case. The name decides whether a file is read, its first bytes decide the format."""
_ENDINGS: Final = tuple(IMAGE_SUFFIXES)


def is_image(name: str) -> bool:
    """Whether a file of this name is an image file."""
    if not name.lower().endswith(_ENDINGS):
        return False
    # Only a name that begins with a dot may have no suffix.
    dotted = name[0] == "." or "/." in name
    return not dotted or os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  # no Path is made


def find_images(
    root: Path, *, hidden: bool = False, on_unreadable: Callable[[OSError], object] | None = None
) -> Iterator[Path]:
    """Yield the images under ``root``, relative to it, as :func:`find_names` does."""
    return map(Path, find_names(root, hidden=hidden, on_unreadable=on_unreadable))


def find_names(
    root: Path, *, hidden: bool = False, on_unreadable: Callable[[OSError], object] | None = None
) -> Iterator[str]:
    """Yield the images under ``root``, relative to it, folder by folder in sorted order.

    They are strings, since making a Path of each would take as long as finding it. Links to files are
    followed, links to folders are not.

    Args:
        root: The folder.
        hidden: Include files and folders whose name begins with a dot.
        on_unreadable: Called for a folder that cannot be listed, which is then skipped; None raises.

    Raises:
        DataError: A folder cannot be listed. Skipping it silently would make its images look deleted.
    """
    top = os.path.join(root, "")  # noqa: PTH118  # with the separator that ends it
    left = [""]
    while left:
        here = left.pop()
        folders, names = _listed(top + here if here else os.fspath(root), on_unreadable or _stop)
        above = here + os.sep if here else ""
        left += [above + name for name in sorted(folders, reverse=True) if hidden or name[0] != "."]
        for name in sorted(names):
            if is_image(name) and (hidden or name[0] != "."):
                yield above + name


def _listed(folder: str, on_unreadable: Callable[[OSError], object]) -> tuple[list[str], list[str]]:
    """Return the names of the folders in a folder, without links, and of all other entries.

    Like os.walk, which takes longer: it checks each folder again for links.
    """
    folders: list[str] = []
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    names.append(entry.name)
                elif not entry.is_symlink():
                    folders.append(entry.name)
    except OSError as error:
        on_unreadable(error)
        return [], []
    return folders, names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a circular link
        return False


def _stop(error: OSError) -> NoReturn:
    raise DataError(
        f"folder {printable(str(error.filename))} cannot be read ({error.strerror}); "
        "fix its permissions or name the other folders"
    ) from error
