"""Bytes of a picture file -> pixels. The only place that opens a picture decoder.

Legend: H, W = the picture as it is shown, after EXIF orientation; h, w = the picture as it is stored;
C channels (1 grey, 3 RGB). Pixels are ``uint8``, 0 black to 255 white.

Ordinary JPEG files (grey or YCbCr) go to libjpeg-turbo, which can shrink by 2, 4 or 8 while decoding, at a
fraction of the cost. Every other file, and every JPEG that libjpeg-turbo complains about, goes to Pillow.
What a file is called plays no part: its first bytes decide. Files are read as sRGB; colour profiles are not
applied. Rules for the less common kinds of pixel:

- alpha, in any form, is laid over white;
- 16-bit grey is scaled by 1/257; 16-bit colour keeps its upper eight bits;
- 32-bit integer grey is taken as 0..65535 and clipped;
- floating-point grey is taken as 0..1, or as 0..255 where a value is above 1; what is not finite is black;
- of an animation or a file with pages, the first picture is taken;
- orientation is read from EXIF (as browsers do), not from XMP.

Nothing is printed, with one exception that Python cannot reach: libtiff writes what it finds wrong in a
damaged compressed TIFF file to the standard error stream.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # its stub file lies beside another module
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    _AVIF = None
else:
    _AVIF = AvifImagePlugin.AvifImageFile

from lookalike.encoder.errors import ImageError, ImageTooLargeError
from lookalike.encoder.images.exif import exif_orientation, jpeg_orientation
from lookalike.encoder.text import printable

DEFAULT_MAX_PIXELS = 50_000_000
"""Largest picture that is decoded unless told otherwise, in pixels (width times height)."""

Shrink = Callable[[int, int, int], int]
"""(w, h, orientation) of the stored picture -> how many times smaller it may be decoded: 1, 2, 4 or 8."""

_Opener = Callable[[io.BytesIO], ImageFile.ImageFile]

# An explicit list: Pillow's other formats are rare, guessed without a signature or start other programs.
_FORMATS: tuple[tuple[str, re.Pattern[bytes], _Opener], ...] = (
    ("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    ("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    ("BMP", re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    ("PNM", re.compile(rb"P[1-6f]\s"), PpmImagePlugin.PpmImageFile),
    *((("AVIF", re.compile(rb"....ftypavi[fs]", re.DOTALL), _AVIF),) if _AVIF else ()),
)
# Pillow logs some faults as errors; where logging is not set up, Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_KNOWN = ", ".join(kind for kind, _, _ in _FORMATS)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedImage:
    """A decoded picture as it is stored, and how to show it.

    Attributes:
        pixels: ``uint8 (ceil(h/shrink), ceil(w/shrink), C)``, not yet oriented.
        width: w, of the stored picture before shrinking, in pixels.
        height: h, likewise.
        shrink: how many times smaller it was decoded: 1, 2, 4 or 8.
        orientation: the EXIF value, 1..8, that is still to be applied.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    shrink: int
    orientation: int


def decode(
    data: bytes, *, channels: Literal[1, 3], shrink: Shrink, max_pixels: int = DEFAULT_MAX_PIXELS, name: str
) -> DecodedImage:
    """Decode the bytes of one picture file.

    Args:
        data: the whole file.
        channels: 1 for grey (ITU-R 601 luma), 3 for RGB.
        shrink: asked once the header is known; only the JPEG path makes use of the answer.
        max_pixels: larger pictures are refused from their header, before anything is decoded.
        name: what to call the file in messages.

    Raises:
        ImageTooLargeError: the picture has more than ``max_pixels`` pixels.
        ImageError: the bytes are empty, cut short, damaged or of no format read here.
    """
    if data.startswith(b"\xff\xd8"):
        picture = _decode_jpeg(data, channels, shrink, max_pixels, name)
        if picture is not None:
            return picture
    return _decode_with_pillow(data, channels, max_pixels, name)


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{printable(name)}: a picture has at least one pixel, not {width}x{height}")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{printable(name)}: {width}x{height} is {width * height} pixels, above the limit of "
            f"{max_pixels}; "
            "shrink the picture or raise max_pixels"
        )


def _decode_jpeg(
    data: bytes, channels: Literal[1, 3], shrink: Shrink, max_pixels: int, name: str
) -> DecodedImage | None:
    """The fast path; None where Pillow has to decide."""
    try:
        header = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    height, width, colours = int(header[0]), int(header[1]), header[2]
    _check_size(width, height, max_pixels, name)
    if colours not in {"YCbCr", "Gray"}:
        return None
    orientation = jpeg_orientation(data)
    times = shrink(width, height, orientation)
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            colorspace="GRAY" if channels == 1 else "RGB",
            # libjpeg-turbo offers eighths: ask for exactly 1/times, rounded up as it does.
            min_width=-(-width // times),
            min_height=-(-height // times),
        )
    except ValueError:  # also for faults that viewers forgive
        return None
    return DecodedImage(pixels=pixels, width=width, height=height, shrink=times, orientation=orientation)


def _decode_with_pillow(data: bytes, channels: Literal[1, 3], max_pixels: int, name: str) -> DecodedImage:
    with open_image(data, max_pixels=max_pixels, name=name) as (kind, image):
        image.load()
        # PNG may hold its EXIF after the pixels. TIFF is oriented by Pillow while loading.
        orientation = 1 if kind == "TIFF" else exif_orientation(image.info.get("exif", b""))
        pixels = _pixels(image, channels)
    height, width = pixels.shape[:2]
    return DecodedImage(pixels=pixels, width=width, height=height, shrink=1, orientation=orientation)


@contextmanager
def open_image(data: bytes, *, max_pixels: int, name: str) -> Iterator[tuple[str, ImageFile.ImageFile]]:
    """Give the kind of a picture file, and Pillow's reader of it that has read the header and no pixel yet.

    What goes wrong while it is held, of whatever kind, is an :class:`ImageError`; nothing is warned of.

    Args:
        data: the whole file.
        max_pixels: larger pictures are refused.
        name: what to call the file in messages.

    Raises:
        ImageTooLargeError: the picture has more than ``max_pixels`` pixels.
        ImageError: the bytes are empty, cut short, damaged or of no format read here.
    """
    kind, opener = _format_of(data, name)
    try:
        with _quiet(), opener(io.BytesIO(data)) as image:
            _check_size(*image.size, max_pixels, name)
            yield kind, image
    except ImageError:
        raise
    except (
        Image.DecompressionBombError
    ) as error:  # some formats are checked by Pillow while it reads the header
        found = re.search(r"\d+", str(error))
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageTooLargeError(
            f"{printable(name)}: {found[0] if found else 'too many'} pixels, above the limit of {limit}; "
            "shrink the picture"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{printable(name)}: not enough memory to decode this {kind} file") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        reason = printable(str(error)).strip().rstrip(".") or type(error).__name__
        raise ImageError(
            f"{printable(name)}: this {kind} file is damaged, cut short or of an unknown variety ({reason}); "
            "replace it by a good copy or leave it out"
        ) from error


def _format_of(data: bytes, name: str) -> tuple[str, _Opener]:
    if not data:
        raise ImageError(
            f"{printable(name)}: the file is empty (0 bytes); replace it by a good copy or leave it out"
        )
    for kind, signature, opener in _FORMATS:
        if signature.match(data):
            return kind, opener
    raise ImageError(
        f"{printable(name)}: this is not a picture of a kind read here ({_KNOWN}); convert it or leave it out"
    )


def _pixels(image: Image.Image, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    """A loaded image of any mode -> ``uint8 (h, w, C)``."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_deep_grey(np.asarray(image)))
    elif image.has_transparency_data:
        top = image.convert("RGBA")
        image = Image.new("RGBA", top.size, "white")
        image.alpha_composite(top)
    wanted = "L" if channels == 1 else "RGB"
    if image.mode not in {"L", "RGB", "1"}:
        image = image.convert("RGB")
    if image.mode != wanted:
        image = image.convert(wanted)
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], channels)


def _deep_grey(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey of 16, 32 or floating-point bits ``(h, w)`` -> ``uint8 (h, w)``, by the rules of this module."""
    if values.dtype.kind == "f":
        real: NDArray[np.float32] = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        top = 1.0 if real.max() <= 1.0 else 255.0
        real = np.clip(real / top, 0.0, 1.0) * 255.0
        return np.rint(real).astype(np.uint8)
    whole: NDArray[np.int64] = np.clip(values.astype(np.int64), 0, 65535)
    return ((whole + 128) // 257).astype(np.uint8)


class _DecodingHere(threading.local):
    """The "message pattern" of one warning filter: matches anything, but only in threads that decode."""

    on = False

    def match(self, _message: str) -> bool:
        return self.on


_HERE = _DecodingHere()
_FILTER = ("ignore", _HERE, Warning, None, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore what Pillow warns of (odd metadata, large pictures) while this thread decodes.

    ``warnings.catch_warnings`` swaps the filters of the whole process, so threads would undo one another's.
    """
    filters = cast("list[object]", warnings.filters)
    if _FILTER not in filters:  # at the first use, and after somebody else replaced the filters
        filters.insert(0, _FILTER)
    _HERE.on = True
    try:
        yield
    finally:
        _HERE.on = False
