"""Find the image files under a folder, and tell what was passed over: formats, and the names each may have.

The first bytes of a file decide on its format, not its name; the name decides whether a file in a folder is
read. No module but this one and ``samples.py`` names a decoder of Pillow, and none but this one names
pi-heif, which is optional (extra ``heic``).
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.images.samples import TiffFile

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    _AVIF = None
else:
    _AVIF = AvifImagePlugin.AvifImageFile

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]

HEIC: Final = "HEIC"
HEIC_HINT: Final = "pip install 'lookalike[heic]'"
SIGNATURE_BYTES: Final = 64
"""So many bytes of a file decide on its format."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be read.

    Attributes:
        kind: Its name.
        suffixes: Suffixes of its files in lower case, the usual one first.
        signature: What its files begin with.
        opener: Reads the header of a file.
    """

    kind: str
    suffixes: tuple[str, ...]
    signature: re.Pattern[bytes]
    opener: Opener


def _open_heic(file: io.BytesIO) -> ImageFile.ImageFile:
    from pi_heif import HeifImageFile

    image: ImageFile.ImageFile = HeifImageFile(file)
    # It has turned the image upright, and says None where others say nothing.
    image.info = {key: value for key, value in image.info.items() if value is not None}
    return image


def _starts(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


# An explicit list: Pillow's other formats are rare, recognized without a signature or start other programs.
_ALL: Final = (
    Format(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        _starts(rb"\xff\xd8\xff"),
        JpegImagePlugin.JpegImageFile,
    ),
    Format("PNG", (".png", ".apng"), _starts(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    Format("WebP", (".webp",), _starts(rb"RIFF....WEBP"), WebPImagePlugin.WebPImageFile),
    Format("GIF", (".gif",), _starts(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    Format("BMP", (".bmp", ".dib"), _starts(rb"BM"), BmpImagePlugin.BmpImageFile),
    Format("TIFF", (".tif", ".tiff"), _starts(rb"II[*+]\0|MM\0[*+]"), TiffFile),
    Format(
        "PNM",
        (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        _starts(rb"P[1-6f]\s"),
        PpmImagePlugin.PpmImageFile,
    ),
    # The brand may stand among those that the file is compatible with.
    *(
        (
            Format(
                "AVIF",
                (".avif", ".avifs"),
                _starts(rb"....ftyp(?:avi[fs]|m[is]f1.{4}(?:.{4}){0,8}?avi[fs])"),
                _AVIF,
            ),
        )
        if _AVIF
        else ()
    ),
    Format(
        HEIC,
        (".heic", ".heif", ".hif"),
        _starts(rb"....ftyp(?:he[iv][cxms]|m[is]f1)"),
        _open_heic,
    ),
)


@cache
def has_heic() -> bool:
    """Whether HEIC can be read here."""
    return importlib.util.find_spec("pi_heif") is not None


@cache
def formats() -> tuple[Format, ...]:
    """Return the formats that can be read here."""
    return tuple(each for each in _ALL if each.kind != HEIC or has_heic())


def format_of(data: bytes) -> Format | None:
    """Return the format of a file by its first bytes; of HEIC also where it cannot be read."""
    return next((each for each in _ALL if each.signature.match(data)), None)


def suffixes_of(kind: str) -> tuple[str, ...]:
    """Return the suffixes of a format's files, the usual one first; none where nothing knows the format."""
    return next((each.suffixes for each in _ALL if each.kind == kind), ())


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case."""
    return frozenset(suffix for each in formats() for suffix in each.suffixes)


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
