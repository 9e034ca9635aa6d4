"""Decode the bytes of an image file to pixels. No other module opens an image decoder.

Legend: H, W = the image as it is shown, after EXIF orientation; h, w = the image as it is stored;
C channels (1 gray, 3 RGB). Pixels are ``uint8``, 0 black to 255 white.

Ordinary JPEG files (gray or YCbCr) go to libjpeg-turbo, which can shrink by 2, 4 or 8 while decoding, at a
fraction of the cost. Every other file, and every JPEG that libjpeg-turbo complains about, goes to Pillow.
The first bytes of a file decide on its format, not its name. Files are read as sRGB; color profiles are not
applied. Rules for less common pixel formats:

- alpha, in any form, is composited over white;
- 16-bit gray is scaled by 1/257; 16-bit color keeps its upper eight bits;
- 32-bit integer gray is read as 0..65535 and clipped;
- floating-point gray is read as 0..1, or as 0..255 if a value is above 1; NaN and infinity become black;
- of an animation or a file with several pages, the first image is used;
- orientation is read from EXIF (as browsers do), not from XMP.

Nothing is printed, with one exception out of Python's reach: libtiff reports errors in a damaged compressed
TIFF file on stderr.
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
from typing import Literal, TypeVar, cast

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

from lookalike.encoder.errors import ImageError, ImageTooLargeError, printable

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; right and bottom are exclusive."""

_TAG = 0x0112
_SHORT = 3

# value: (swap rows and columns, then turn upside down, then mirror left to right)
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


_Value = TypeVar("_Value", bound=np.generic)


def orient(pixels: NDArray[_Value], orientation: int) -> NDArray[_Value]:
    """Return a view of stored pixels ``(h, w, C)`` as shown, ``(H, W, C)``."""
    swap, flip, mirror = _STEPS[orientation]
    if swap:
        pixels = pixels.swapaxes(0, 1)
    if flip:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if mirror else pixels


def shown_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return the size as shown (W, H) of a stored size (w, h)."""
    return (height, width) if _STEPS[orientation][0] else (width, height)


def stored_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """Return the box in the stored image of ``width`` x ``height`` for a box in the image as shown."""
    swap, flip, mirror = _STEPS[orientation]
    left, top, right, bottom = box
    across, down = shown_size(width, height, orientation)
    if mirror:
        left, right = across - right, across - left
    if flip:
        top, bottom = down - bottom, down - top
    return (top, left, bottom, right) if swap else (left, top, right, bottom)


def jpeg_orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG file, 1..8; 1 where it is missing or invalid."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        # Application segments, comments and tables may come before it; the first scan ends the header.
        if marker == 0xDA:
            break
        length = data[at + 2] << 8 | data[at + 3]
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            return exif_orientation(data[at + 4 : at + 2 + length])
        at += 2 + length
    return 1


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in a block of EXIF data, 1..8; 1 where it is missing or invalid."""
    place = _orientation_at(exif)
    if place is None:
        return 1
    at, order = place
    value = int.from_bytes(exif[at : at + 2], order)
    return value if value in _STEPS else 1


def upright_exif(exif: bytes) -> bytes:
    """Return a block of EXIF data with its orientation, if any, set to 1; no other byte changes."""
    place = _orientation_at(exif)
    if place is None:
        return exif
    at, order = place
    return exif[:at] + (1).to_bytes(2, order) + exif[at + 2 :]


def _orientation_at(exif: bytes) -> tuple[int, Literal["little", "big"]] | None:
    """Return the offset of the two bytes of the orientation in a block of EXIF data, and the byte order."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"]
    if tiff[:4] == b"II*\0":
        order = "little"
    elif tiff[:4] == b"MM\0*":
        order = "big"
    else:
        return None
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 9), 12):
        tag, kind = (int.from_bytes(tiff[at + i : at + i + 2], order) for i in (0, 2))
        if tag == _TAG and kind == _SHORT:
            return len(exif) - len(tiff) + at + 8, order
    return None


try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    _AVIF = None
else:
    _AVIF = AvifImagePlugin.AvifImageFile


DEFAULT_MAX_PIXELS = 50_000_000
"""Default limit of the size of an image, in pixels (width times height)."""

Shrink = Callable[[int, int, int], int]
"""(w, h, orientation) of the stored image to how many times smaller it may be decoded: 1, 2, 4 or 8."""

_Opener = Callable[[io.BytesIO], ImageFile.ImageFile]

# An explicit list: Pillow's other formats are rare, recognized without a signature or start other programs.
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
# Pillow logs some errors; without a logging configuration, Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_KNOWN = ", ".join(kind for kind, _, _ in _FORMATS)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedImage:
    """A decoded image as stored in the file, and the orientation to show it in.

    Attributes:
        pixels: ``uint8 (ceil(h/shrink), ceil(w/shrink), C)``, not yet oriented.
        width: w, of the stored image before shrinking, in pixels.
        height: h, likewise.
        shrink: how many times smaller it was decoded: 1, 2, 4 or 8.
        orientation: EXIF orientation, 1..8, still to be applied.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    shrink: int
    orientation: int


def decode(
    data: bytes, *, channels: Literal[1, 3], shrink: Shrink, max_pixels: int = DEFAULT_MAX_PIXELS, name: str
) -> DecodedImage:
    """Decode an image file.

    Args:
        data: Content of the file.
        channels: 1 for gray (ITU-R 601 luma), 3 for RGB.
        shrink: Called once the header is read; only used for JPEG.
        max_pixels: Larger images are refused, before they are decoded.
        name: Name of the file in messages.

    Raises:
        ImageTooLargeError: The image has more than ``max_pixels`` pixels.
        ImageError: The bytes are empty, truncated, damaged or of an unsupported format.
    """
    if data.startswith(b"\xff\xd8"):
        decoded = _decode_jpeg(data, channels, shrink, max_pixels, name)
        if decoded is not None:
            return decoded
    return _decode_with_pillow(data, channels, max_pixels, name)


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{printable(name)}: an image must have at least one pixel, not {width}x{height}")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{printable(name)}: {width}x{height} is {width * height} pixels, above the limit of "
            f"{max_pixels}; "
            "shrink the image or raise max_pixels"
        )


def _decode_jpeg(
    data: bytes, channels: Literal[1, 3], shrink: Shrink, max_pixels: int, name: str
) -> DecodedImage | None:
    """Decode with libjpeg-turbo; None where Pillow has to decide."""
    try:
        header = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    height, width, colors = int(header[0]), int(header[1]), header[2]
    _check_size(width, height, max_pixels, name)
    if colors not in {"YCbCr", "Gray"}:
        return None
    orientation = jpeg_orientation(data)
    times = shrink(width, height, orientation)
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            colorspace="GRAY" if channels == 1 else "RGB",
            # libjpeg-turbo scales by eighths: ask for exactly 1/times, rounded up as it does.
            min_width=-(-width // times),
            min_height=-(-height // times),
        )
    except ValueError:  # raised also for errors that viewers ignore
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
    """Yield the format of an image file and Pillow's image, of which only the header is read.

    Any error raised inside the block becomes an :class:`ImageError`; warnings of Pillow are ignored.

    Args:
        data: Content of the file.
        max_pixels: Larger images are refused.
        name: Name of the file in messages.

    Raises:
        ImageTooLargeError: The image has more than ``max_pixels`` pixels.
        ImageError: The bytes are empty, truncated, damaged or of an unsupported format.
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
        size = re.search(r"\d+", str(error))
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageTooLargeError(
            f"{printable(name)}: {size[0] if size else 'too many'} pixels, above the limit of {limit}; "
            "shrink the image"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{printable(name)}: not enough memory to decode this {kind} file") from error
    except Exception as error:  # Pillow's readers raise many types for damaged files
        reason = printable(str(error)).strip().rstrip(".") or type(error).__name__
        raise ImageError(
            f"{printable(name)}: this {kind} file is damaged, cut short or of an unsupported variant "
            f"({reason}); "
            "replace it or leave it out"
        ) from error


def _format_of(data: bytes, name: str) -> tuple[str, _Opener]:
    if not data:
        raise ImageError(f"{printable(name)}: the file is empty (0 bytes); replace it or leave it out")
    for kind, signature, opener in _FORMATS:
        if signature.match(data):
            return kind, opener
    raise ImageError(
        f"{printable(name)}: not an image in a supported format ({_KNOWN}); convert it or leave it out"
    )


def _pixels(image: Image.Image, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    """Convert a loaded image of any mode to ``uint8 (h, w, C)``."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_deep_gray(np.asarray(image)))
    elif image.has_transparency_data:
        top = image.convert("RGBA")
        image = Image.new("RGBA", top.size, "white")
        image.alpha_composite(top)
    mode = "L" if channels == 1 else "RGB"
    if image.mode not in {"L", "RGB", "1"}:
        image = image.convert("RGB")
    if image.mode != mode:
        image = image.convert(mode)
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], channels)


def _deep_gray(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Convert 16-bit, 32-bit or floating-point gray ``(h, w)`` to ``uint8``, by the rules of this module."""
    if values.dtype.kind == "f":
        real: NDArray[np.float32] = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        top = 1.0 if real.max() <= 1.0 else 255.0
        real = np.clip(real / top, 0.0, 1.0) * 255.0
        return np.rint(real).astype(np.uint8)
    whole: NDArray[np.int64] = np.clip(values.astype(np.int64), 0, 65535)
    return ((whole + 128) // 257).astype(np.uint8)


class _DecodingThread(threading.local):
    """The message pattern of a warning filter: matches any message, but only in threads that decode."""

    on = False
    pattern = (
        "(?!)"  # for those who copy the filters by their patterns, as joblib does: one that matches nothing
    )

    def match(self, _message: str) -> bool:
        return self.on


_DECODING = _DecodingThread()
_FILTER = ("ignore", _DECODING, Warning, None, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore Pillow's warnings (odd metadata, large images) while this thread decodes.

    ``warnings.catch_warnings`` changes the filters of the whole process, so threads would undo each other's.
    """
    filters = cast("list[object]", warnings.filters)
    if _FILTER not in filters:  # at the first use, and after somebody else replaced the filters
        filters.insert(0, _FILTER)
    _DECODING.on = True
    try:
        yield
    finally:
        _DECODING.on = False
