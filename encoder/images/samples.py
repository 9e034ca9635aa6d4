"""The values of an image that Pillow has opened, as arrays: all formats in 8 bits, some in their full depth.

Large images are converted in strips, so that what is needed beside the image and the result stays small.

TIFF files whose samples Pillow refuses, or reads with the wrong sign, order or scale, are opened as the
nearest kind whose bytes are read right: deep gray in which 0 is white, signed bytes, 12 bits, unsigned 32
bits, big-endian numbers that libtiff unpacks, and planes of 16 bits. :class:`TiffFile` says what the values
mean.

Legend: h, w = height and width as Pillow holds the image; C channels (1 gray, 2 gray and alpha, 3 RGB,
4 RGBA). 0 is black.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 284, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_UNSIGNED, _SIGNED = 1, 2
_SEPARATE: Final = 2
_NATIVE: Final = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}
"""Raw modes of numbers in the file's byte order, and in the machine's, in which libtiff returns them."""


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF file, opened by Pillow.

    Attributes:
        negative: Whether 0 is white, and the loaded values are as stored. (Of 8 bits and fewer, Pillow has
            turned them round.)
        signed: Whether the values have a sign.
        bits: Bits of each value.
        separate: Whether each channel lies in a plane of its own.
        extra_channels: Channels that are neither color nor alpha, which Pillow leaves out.
    """

    negative: bool
    signed: bool
    bits: int
    separate: bool
    extra_channels: int

    def _setup(self) -> None:
        tags = self.tag_v2
        depths = tags.get(_BITS, (1,))
        formats = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
        self.bits = max(depths)
        self.signed = _SIGNED in formats
        self.separate = tags.get(_PLANAR, 1) == _SEPARATE and len(depths) > 1
        self.extra_channels = sum(kind == 0 for kind in tags.get(_EXTRA_SAMPLES, ()))
        gray = len(depths) == 1 and tags.get(_PHOTOMETRIC, 0) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
        plain = self.bits <= 8 and not self.signed
        self.negative = gray and not plain and tags.get(_PHOTOMETRIC, 0) == _WHITE_IS_ZERO
        if self.negative:
            tags[_PHOTOMETRIC] = _BLACK_IS_ZERO
        if gray and self.bits == 32 and _UNSIGNED in formats:
            tags[_SAMPLE_FORMAT] = _SIGNED  # the same bytes; who reads them looks at `signed`
        super()._setup()  # type: ignore[no-untyped-call, unused-ignore]
        self.tile = [self._corrected(tile) for tile in self.tile]

    def _corrected(self, tile: ImageFile._Tile) -> ImageFile._Tile:
        if not isinstance(tile.args, tuple):
            return tile
        args: tuple[Any, ...] = tile.args
        if tile.codec_name == "libtiff":
            return tile._replace(args=(_NATIVE.get(args[0], args[0]), *args[1:]))
        if self.separate and self.bits == 16 and len(args[0]) == 1:  # a channel, as of 8 bits
            order = "L" if self.tag_v2.prefix.startswith(b"II") else "B"
            return tile._replace(args=(f"{args[0]};16{order}", *args[1:]))
        return tile


Again = Callable[[], AbstractContextManager[tuple[str, ImageFile.ImageFile]]]
"""Opens the same file once more."""

_STRIP: Final = 1 << 20
"""Pixels that are converted at a time."""
_LARGEST: Final = {8: 127, 12: 4095, 16: 65535, 32: 65535}
"""The value that is white, by the bits of a deep integer; 32-bit values rarely fill their range."""


def bytes_of(image: ImageFile.ImageFile, channels: Literal[1, 3], again: Again) -> NDArray[np.uint8]:
    """Return the pixels of an image of any mode over white, ``uint8 (h, w, C)``; loads the image.

    Gray that is asked for as RGB is a read-only view of one channel, which takes a third of the memory.

    Args:
        image: From ``open_image``.
        channels: C, 1 or 3.
        again: Opens the same file once more; called for 16-bit color with a transparent color.
    """
    if is_deep_color(image) and "transparency" in image.info:
        return _deep_over_white(image, channels, again)
    image.load()
    if image.mode in ("L", "1") and "transparency" not in image.info and not _is_signed_byte(image):
        return _as_rgb(_filled(image, 1, lambda strip: _over_white(strip, 1)), channels)
    if not (image.mode.startswith("I") or image.mode == "F" or _is_signed_byte(image)):
        return _filled(image, channels, lambda strip: _over_white(strip, channels))
    clear, scale = image.info.get("transparency"), _scale_of(image)

    def to_gray(strip: Image.Image) -> NDArray[np.uint8]:
        values = _values(strip, image)
        pixels = scale(values)
        if clear is not None:
            pixels[values == clear] = 255
        return pixels[..., None]

    return _as_rgb(_filled(image, 1, to_gray), channels)


def _as_rgb(gray: NDArray[np.uint8], channels: Literal[1, 3]) -> NDArray[np.uint8]:
    return np.broadcast_to(gray, (*gray.shape[:2], channels))


def deep_values(image: ImageFile.ImageFile, again: Again) -> NDArray[np.uint16]:
    """Return the values of a 16-bit image, ``uint16 (h, w, C)``; a transparent color becomes alpha.

    Pillow keeps eight bits of color, so such a file is read twice: first the upper bytes, then the lower.
    What Pillow learns while it loads is added to ``image.info``.
    """
    raw = raw_mode(image)
    if raw.startswith("I;16"):
        image.load()
        deep = np.empty((*image.size[::-1], 1), np.uint16)
        for top, strip in _strips(image):
            deep[top : top + strip.height, :, 0] = np.asarray(strip)
        if getattr(image, "negative", False):
            np.invert(deep, out=deep)
    elif raw == "LA;16B":  # four bytes a pixel, as RGBA has them
        with again() as (_, other):
            other._mode = "RGBA"
            other.tile = [tile._replace(args="RGBA") for tile in other.tile]
            other.load()
            image.info.update(other.info)
            deep = np.empty((*other.size[::-1], 2), np.uint16)
            for top, strip in _strips(other):
                both = np.asarray(strip).astype(np.uint16)
                deep[top : top + strip.height] = both[..., 0::2] << 8 | both[..., 1::2]
    else:
        deep = _deep_color(image, raw, again)
    return _with_alpha(deep, image.info.get("transparency"))


def is_deep_color(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has 16 bits for each of several channels."""
    return ";16" in raw_mode(image) and not raw_mode(image).startswith("I")


def raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of how the values lie in the file; empty once the image is loaded."""
    tiles = getattr(image, "tile", None) or [None]
    args = getattr(tiles[0], "args", "")
    return str(args[0] if isinstance(args, tuple) else args)


def _deep_color(image: ImageFile.ImageFile, raw: str, again: Again) -> NDArray[np.uint16]:
    native = "L" if sys.byteorder == "little" else "B"
    order = native if raw[-1] == "N" else raw[-1]
    deep = np.empty(0, np.uint16)
    for shift, which in ((8, order), (0, "L" if order == "B" else "B")):
        with again() as (_, other):
            other.tile = [_with_raw_mode(tile, f"{raw[:-1]}{which}") for tile in other.tile]
            other.load()
            image.info.update(other.info)
            if shift:
                deep = np.zeros((*other.size[::-1], len(other.getbands())), np.uint16)
            for top, strip in _strips(other):
                deep[top : top + strip.height] |= np.asarray(strip).astype(np.uint16) << shift
    return deep


def _with_raw_mode(tile: Any, raw: str) -> Any:
    return tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)


def _with_alpha(deep: NDArray[np.uint16], clear: Any) -> NDArray[np.uint16]:
    if clear is None:
        return deep
    alpha = np.where((deep == np.array(clear)).all(axis=2, keepdims=True), 0, 65535)
    return np.concatenate([deep, alpha.astype(np.uint16)], axis=2)


def _deep_over_white(image: ImageFile.ImageFile, channels: Literal[1, 3], again: Again) -> NDArray[np.uint8]:
    deep = deep_values(image, again)
    pixels = (deep[..., :-1] >> 8).astype(np.uint8)
    pixels[deep[..., -1] == 0] = 255
    return pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the rows of a loaded image in parts, each with the number of its first row."""
    rows = max(1, _STRIP // max(1, image.width))
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _filled(
    image: Image.Image, channels: int, convert: Callable[[Image.Image], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    pixels = np.empty((image.height, image.width, channels), np.uint8)
    for top, strip in _strips(image):
        pixels[top : top + strip.height] = convert(strip)
    return pixels


def _over_white(image: Image.Image, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    if image.has_transparency_data:
        top = image.convert("RGBA")
        image = Image.new("RGBA", top.size, "white")
        image.alpha_composite(top)
    mode = "L" if channels == 1 else "RGB"
    if image.mode not in {"L", "RGB", "1"}:
        image = image.convert("RGB")
    if image.mode != mode:
        image = image.convert(mode)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _is_signed_byte(image: Image.Image) -> bool:
    return isinstance(image, TiffFile) and image.signed and image.bits == 8


def _values(strip: Image.Image, image: Image.Image) -> NDArray[Any]:
    """Return the values of a strip as the file means them, ``(h, w)``."""
    values = np.asarray(strip)
    if isinstance(image, TiffFile):
        if image.signed and image.bits == 8:
            return values.view(np.int8)
        if not image.signed and image.mode == "I":
            return values.view(np.uint32)
    return values


def _scale_of(image: Image.Image) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """Return what turns deep gray values of an image into ``uint8``, by the rules of ``decode.py``."""
    tiff = image if isinstance(image, TiffFile) else None
    negative = tiff is not None and tiff.negative
    if image.mode == "F":
        largest = max(float(_finite(strip).max(initial=0.0)) for _, strip in _strips(image))
        top = 1.0 if largest <= 1.0 else 255.0

        def scale_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
            known = np.isfinite(values)
            real = np.clip(np.where(known, values, np.float32(0)) / np.float32(top), 0.0, 1.0)
            pixels = np.rint(real * np.float32(255)).astype(np.uint8)
            return np.where(known, 255 - pixels, 0).astype(np.uint8) if negative else pixels

        return scale_floats
    white = _LARGEST[16 if tiff is None else tiff.bits]
    if tiff is not None and tiff.signed and tiff.bits == 16:
        white = 32767

    def scale(values: NDArray[Any]) -> NDArray[np.uint8]:
        whole = np.clip(values, 0, white).astype(np.int32)
        pixels: NDArray[np.uint8] = ((whole * 255 + white // 2) // white).astype(np.uint8)
        return np.subtract(255, pixels, dtype=np.uint8) if negative else pixels

    return scale


def _finite(strip: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(strip, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
