"""Find the image files under a folder, and tell what was passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn

from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.images.formats import (
    HEIC,
    HEIC_HINT,
    SIGNATURE_BYTES,
    format_of,
    formats,
    image_suffixes,
    suffixes_of,
)

IMAGE_SUFFIXES: Final = image_suffixes()
"""Compared in lower case. The name decides whether a file is read, its first bytes decide the format."""
OnSkipped = Callable[[str, str], object]
"""Called with the path of what is passed over, relative to the folder, and its kind."""

_ENDINGS: Final = tuple(IMAGE_SUFFIXES)
_OTHER_ENDINGS: Final = tuple(set(suffixes_of(HEIC)) - IMAGE_SUFFIXES)
"""Image files that cannot be read here, if they are what their names say: some are JPEG."""
_FOLDER_LINK: Final = "link to a folder"
_NO_SUFFIX: Final = "without a suffix"
_MAX_SUFFIX: Final = 12
_MAX_KINDS: Final = 8


def is_image(name: str) -> bool:
    """Whether a file of this name is an image file."""
    if not name.lower().endswith(_ENDINGS):
        return False
    # Only a name that begins with a dot may have no suffix.
    dotted = name[0] == "." or "/." in name
    return not dotted or os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  # no Path is made


def find_images(
    root: Path,
    *,
    hidden: bool = False,
    on_unreadable: Callable[[OSError], object] | None = None,
    on_skipped: OnSkipped = lambda *_: None,
) -> Iterator[Path]:
    """Yield the images under ``root``, relative to it, as :func:`find_names` does."""
    return map(Path, find_names(root, hidden=hidden, on_unreadable=on_unreadable, on_skipped=on_skipped))


def find_names(
    root: Path,
    *,
    hidden: bool = False,
    on_unreadable: Callable[[OSError], object] | None = None,
    on_skipped: OnSkipped = lambda *_: None,
) -> Iterator[str]:
    """Yield the images under ``root``, relative to it, folder by folder in sorted order.

    They are strings, since making a Path of each would take as long as finding it. Links to files are
    followed, links to folders are not.

    Args:
        root: The folder.
        hidden: Include files and folders whose name begins with a dot.
        on_unreadable: Called for a folder that cannot be listed, which is then skipped; None raises.
        on_skipped: Called for each file that is no image by its name and each link to a folder; the hidden
            ones are left out.

    Raises:
        DataError: A folder cannot be listed. Skipping it silently would make its images look deleted.
    """
    top = os.path.join(root, "")  # noqa: PTH118  # with the separator that ends it
    left = [""]
    while left:
        here = left.pop()
        folders, names, links = _listed(top + here if here else os.fspath(root), on_unreadable or _stop)
        above = here + os.sep if here else ""
        left += [above + name for name in sorted(folders, reverse=True) if hidden or name[0] != "."]
        for name in sorted(names):
            if not hidden and name[0] == ".":
                continue
            if is_image(name) or (name.lower().endswith(_OTHER_ENDINGS) and _is_inside(top + above + name)):
                yield above + name
            else:
                on_skipped(above + name, _kind(name))
        for name in links:
            if hidden or name[0] != ".":
                on_skipped(above + name, _FOLDER_LINK)


def skipped_summary(skipped: Mapping[str, int]) -> str:
    """Return one line for people about what was passed over, by kind; empty if nothing was.

    Args:
        skipped: Kind, as :func:`find_names` tells it, to how many.
    """
    if not skipped:
        return ""
    counts = Counter(dict(skipped))
    links = counts.pop(_FOLDER_LINK, 0)
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    told = [f"{count} {printable(kind)}{_hint(kind)}" for kind, count in ordered[:_MAX_KINDS]]
    if others := sum(count for _, count in ordered[_MAX_KINDS:]):
        told.append(f"{others} others")
    if links:
        told.append(f"{links} {'link to a folder' if links == 1 else 'links to folders'}")
    total = sum(skipped.values())
    return f"{total} {'file' if total == 1 else 'files'} skipped: {', '.join(told)}"


def _hint(kind: str) -> str:
    return f" ({HEIC_HINT})" if kind in _OTHER_ENDINGS else ""


def _kind(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return suffix if 1 < len(suffix) <= _MAX_SUFFIX else _NO_SUFFIX


def _is_inside(file: str) -> bool:
    """Whether a file is an image that can be read, whatever its name says."""
    try:
        if not os.path.isfile(file):  # noqa: PTH113  # a pipe would wait for ever
            return False
        with open(file, "rb") as opened:  # noqa: PTH123
            return format_of(opened.read(SIGNATURE_BYTES)) in formats()
    except OSError:
        return False


def _listed(
    folder: str, on_unreadable: Callable[[OSError], object]
) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the folders in a folder, of the files, and of the links to folders.

    Like os.walk, which takes longer: it checks each folder again for links.
    """
    folders: list[str] = []
    names: list[str] = []
    links: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    names.append(entry.name)
                elif entry.is_symlink():
                    links.append(entry.name)
                else:
                    folders.append(entry.name)
    except OSError as error:
        on_unreadable(error)
        return [], [], []
    return folders, names, links


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
