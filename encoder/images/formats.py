"""The image formats that can be read, and the file names that each may have. The one list of both.

The first bytes of a file decide on its format, not its name; the name decides whether a file in a folder is
read. No module but this one and ``tiff.py`` names a decoder of Pillow, and none but this one names pi-heif,
which is optional (extra ``heic``).
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from lookalike.encoder.images.tiff import TiffFile

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
