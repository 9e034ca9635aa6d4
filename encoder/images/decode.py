"""Decode the bytes of an image file to pixels.

Legend: H, W = the image as it is shown, after EXIF orientation; h, w = the image as it is stored;
C channels (1 gray, 3 RGB). Pixels are ``uint8``, 0 black to 255 white.

Ordinary JPEG files (gray or YCbCr) go to libjpeg-turbo, which can shrink by 2, 4 or 8 while decoding, at a
fraction of the cost. Every other file, and every JPEG that libjpeg-turbo complains about, goes to Pillow.
The first bytes of a file decide on its format, not its name. Files are read as sRGB; color profiles are not
applied. Rules for less common pixel formats:

- alpha, in any form, is composited over white;
- 16-bit gray is scaled by 1/257, 12-bit gray likewise; 16-bit color keeps its upper eight bits;
- of signed gray, negative values are black and the largest one (127, 32767) is white;
- 32-bit integer gray, signed or not, is read as 0..65535 and clipped;
- gray in which 0 is white (TIFF) is turned round, of any depth;
- a transparent color (PNG) is compared in the file's own depth;
- floating-point gray is read as 0..1, or as 0..255 if a value is above 1; NaN and infinity become black;
- of an animation or a file with several pages, the first image is used;
- orientation is read from EXIF (as browsers do), not from XMP.

Nothing is printed, with exceptions out of Python's reach: libtiff reports errors in a damaged compressed
TIFF file on stderr, LibRaw those in a damaged raw file.

The pixels that are decoded at the same time can be limited, and with them the memory that images take.
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
from typing import Final, Literal, cast

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # its stub file lies beside another module
from numpy.typing import NDArray
from PIL import Image, ImageFile

from lookalike.encoder.errors import ImageError, ImageTooLargeError, printable
from lookalike.encoder.images.find import Format, RawFile, format_of, formats, raw_file
from lookalike.encoder.images.metadata import exif_orientation, is_progressive, jpeg_orientation
from lookalike.encoder.images.samples import bytes_of, raw_mode

DEFAULT_MAX_PIXELS: Final = 50_000_000
"""Default limit of the size of an image, in pixels (width times height)."""
DEFAULT_MAX_SHRUNK_PIXELS: Final = 120_000_000
"""Default limit of a JPEG file that is shrunk while it is decoded: photographs of any phone pass."""

Shrink = Callable[[int, int, int], int]
"""(w, h, orientation) of the stored image to how many times smaller it may be decoded: 1, 2, 4 or 8."""

OnSize = Callable[[int], object]

_PNG_BITS: Final = {"L;2": 2, "L;4": 4}
# Pillow logs some errors; without a logging configuration, Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


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
    data: bytes,
    *,
    channels: Literal[1, 3],
    shrink: Shrink,
    max_pixels: int | None = None,
    on_size: OnSize = lambda _: None,
    name: str,
) -> DecodedImage:
    """Decode an image file.

    Args:
        data: Content of the file.
        channels: 1 for gray (ITU-R 601 luma), 3 for RGB.
        shrink: Called once the header is read; only used for JPEG.
        max_pixels: Larger images are refused, before they are decoded; None:
            :data:`DEFAULT_MAX_SHRUNK_PIXELS` for JPEG files that are shrunk and not progressive,
            :data:`DEFAULT_MAX_PIXELS` else.
        on_size: Called with the number of pixels in memory before they are decoded; may block.
        name: Name of the file in messages.

    Raises:
        ImageTooLargeError: The image has more pixels.
        ImageError: The bytes are empty, truncated, damaged or of an unsupported format.
    """
    raw = None
    if data.startswith(b"\xff\xd8"):
        jpeg: bytes | None = data
    else:
        raw = raw_file(data)
        jpeg = None if raw is None else _preview_of(raw)
    if jpeg is not None:
        decoded = _decode_jpeg(jpeg, channels, shrink, max_pixels, on_size, name)
        if decoded is not None:
            return decoded
    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    return _decode_with_pillow(data, channels, limit, on_size, name, raw)


def _preview_of(raw: RawFile) -> bytes | None:
    try:
        return raw.preview()
    except Exception:  # LibRaw's and Pillow's for damaged files; opening the image says what is wrong with it
        return None


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{printable(name)}: an image must have at least one pixel, not {width}x{height}")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{printable(name)}: {width}x{height} is {width * height} pixels, above the limit of "
            f"{max_pixels}; "
            "shrink the image or raise --max-pixels (in Python max_pixels), where there is such an option"
        )


def _decode_jpeg(
    data: bytes,
    channels: Literal[1, 3],
    shrink: Shrink,
    max_pixels: int | None,
    on_size: OnSize,
    name: str,
) -> DecodedImage | None:
    """Decode with libjpeg-turbo; None where Pillow has to decide."""
    try:
        header = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    height, width, colors = int(header[0]), int(header[1]), header[2]
    if width < 1 or height < 1 or colors not in {"YCbCr", "Gray"}:
        return None
    orientation = jpeg_orientation(data)
    times = shrink(width, height, orientation)
    # A progressive file is unpacked as a whole, whatever is made of it.
    progressive = is_progressive(data)
    default = DEFAULT_MAX_PIXELS if times == 1 or progressive else DEFAULT_MAX_SHRUNK_PIXELS
    _check_size(width, height, default if max_pixels is None else max_pixels, name)
    on_size(width * height // times**2 + progressive * width * height)
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


def _decode_with_pillow(
    data: bytes,
    channels: Literal[1, 3],
    max_pixels: int,
    on_size: OnSize,
    name: str,
    raw: RawFile | None,
) -> DecodedImage:
    with open_image(data, max_pixels=max_pixels, name=name, raw=raw) as (kind, image):
        on_size(image.width * image.height)
        pixels = bytes_of(image, channels, lambda: open_image(data, max_pixels=max_pixels, name=name))
        # PNG may hold its EXIF after the pixels. TIFF is oriented by Pillow while loading.
        orientation = 1 if kind == "TIFF" else exif_orientation(image.info.get("exif", b""))
    height, width = pixels.shape[:2]
    return DecodedImage(pixels=pixels, width=width, height=height, shrink=1, orientation=orientation)


@contextmanager
def open_image(
    data: bytes, *, max_pixels: int, name: str, raw: RawFile | None = None
) -> Iterator[tuple[str, ImageFile.ImageFile]]:
    """Yield the format of an image file and Pillow's image, of which only the header is read.

    Any error raised inside the block becomes an :class:`ImageError`; warnings of Pillow are ignored.

    Args:
        data: Content of the file.
        max_pixels: Larger images are refused.
        name: Name of the file in messages.
        raw: The file, where it is one of a camera and opened already.

    Raises:
        ImageTooLargeError: The image has more than ``max_pixels`` pixels.
        ImageError: The bytes are empty, truncated, damaged or of an unsupported format.
    """
    found = _checked_format(data, name)
    kind = found.kind
    try:
        with _quiet(), found.opener(io.BytesIO(data)) if raw is None else raw.image() as image:
            _check_size(*image.size, max_pixels, name)
            if kind == "PNG" and "transparency" in image.info:
                _scale_transparent_color(image)
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


def image_size(data: bytes, *, max_pixels: int, name: str) -> tuple[int, int]:
    """Return width and height of an image file in pixels, as it is stored; only its header is read.

    Args:
        data: Content of the file.
        max_pixels: Larger images are refused.
        name: Name of the file in messages.

    Raises:
        ImageTooLargeError: The image has more than ``max_pixels`` pixels.
        ImageError: The bytes are empty, damaged or of an unsupported format.
    """
    with open_image(data, max_pixels=max_pixels, name=name) as (_, image):
        return image.size


def _scale_transparent_color(image: ImageFile.ImageFile) -> None:
    """Scale the transparent gray of a PNG file as its pixels are: Pillow gives it as it lies in the file."""
    clear, bits = image.info["transparency"], _PNG_BITS.get(raw_mode(image), 8)
    if image.mode == "L":
        image.info["transparency"] = (clear & ((1 << bits) - 1)) * 255 // ((1 << bits) - 1)
    elif raw_mode(image) == "RGB":  # only the lower bits count, as the specification says
        image.info["transparency"] = tuple(value & 255 for value in clear)


def _checked_format(data: bytes, name: str) -> Format:
    if not data:
        raise ImageError(f"{printable(name)}: the file is empty (0 bytes); replace it or leave it out")
    found = format_of(data)
    if found is None:
        known = ", ".join(each.kind for each in formats())
        raise ImageError(
            f"{printable(name)}: not an image in a supported format ({known}); convert it or leave it out"
        )
    if found not in formats():
        raise ImageError(f"{printable(name)}: reading {found.kind} needs another package; {found.hint}")
    return found


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


class PixelBudget:
    """A semaphore that counts the pixels of the images in progress. Who comes first is served first.

    Attributes:
        limit: Pixels in progress; an image with more runs alone. None: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._used = 0
        self._turn = threading.Lock()
        self._change = threading.Condition()

    @contextmanager
    def acquire(self) -> Iterator[Callable[[int], None]]:
        """Give a function that waits for room for some pixels; they are released when the block ends.

        Called again, it gives back what it was given before: the image is decoded in another way.
        """
        acquired = 0

        def wait_for(pixels: int) -> None:
            nonlocal acquired
            release()
            with self._turn, self._change:  # a large image is not passed by small ones for ever
                self._change.wait_for(lambda: self._has_room(pixels))
                self._used += pixels
                acquired = pixels

        def release() -> None:
            nonlocal acquired
            with self._change:
                self._used -= acquired
                acquired = 0
                self._change.notify_all()

        try:
            yield wait_for
        finally:
            release()

    def _has_room(self, pixels: int) -> bool:
        return not self._used or self.limit is None or self._used + pixels <= self.limit


DECODING: Final = PixelBudget(None)
"""The images that this process is decoding; the HTTP service sets its limit. A pixel takes some 7 bytes."""
