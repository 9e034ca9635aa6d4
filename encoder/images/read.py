"""Read image files in full depth with their metadata, to be changed and written again.

Nothing is lost silently: what could not be written again unchanged (several images, more than 16 bits, CMYK)
is refused with the reason. ``encoder/images/write.py`` writes.

- gray, gray and alpha, RGB and RGBA of 8 bits; the same of 16 bits in PNG and TIFF;
- one bit a pixel, black and white, becomes gray of 8 bits;
- a palette becomes RGB, or RGBA if one of its colors is transparent;
- EXIF orientation is applied to the pixels, and EXIF and XMP are corrected: see ``upright.py``;
- further images in a JPEG file (gain maps, second views, videos) stay as they are; so does its orientation.

Legend: H, W = the image as it is shown, after EXIF orientation; C channels (1 gray, 2 gray and alpha,
3 RGB, 4 RGBA).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from PIL.ImageFile import ImageFile as PillowFile

from lookalike.encoder.errors import ImageError, printable
from lookalike.encoder.images.decode import open_image
from lookalike.encoder.images.find import HEIC, RAW
from lookalike.encoder.images.metadata import (
    ORIENTATION,
    distance_to_tail,
    end_of_image,
    exif_orientation,
    holds_images,
    is_index,
    orient,
    segments,
    upright_chunk,
    upright_exif,
    upright_segment,
    upright_xmp,
    valid_orientation,
)
from lookalike.encoder.images.samples import TiffFile, deep_values, raw_mode

Values = NDArray[np.uint8] | NDArray[np.uint16]

_TIFF_TAGS: Final = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, 33723)
"""Description, make, model, resolution, software, time, artist, computer, copyright, IPTC."""
_XMP: Final = 700
_TIFF_DIRECTORIES: Final = (34665, 34853)  # EXIF and GPS
_PNG_METADATA: Final = frozenset(
    {b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"}
)
_JPEG_METADATA: Final = frozenset({0xFE, *range(0xE0, 0xF0)} - {0xEE})
_DEEP_PNM: Final = re.compile(rb"P[2356]\s(?:#[^\n]*\n|\s)*\d+\s+\d+\s+(?!25[0-5]\s|2[0-4]\d\s|1?\d?\d\s)")
BMP_V4: Final = 108
"""Bytes of the header of BMP, version 4; from that on it says what its colors mean."""
_BMP_PROFILES: Final = (b"KNIL", b"DEBM")  # LINK and MBED, as little-endian numbers
_PLAIN_MODES: Final = frozenset({"L", "LA", "RGB", "RGBA"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMetadata:
    """Metadata of an image file.

    Attributes:
        exif: EXIF data from its byte order on, with an orientation of 1 if any; empty if none.
        profile: The ICC color profile; empty if none.
        xmp: The XMP packet; empty if none.
        dpi: Pixels per inch across and down.
        parts: Ancillary chunks of a PNG file, or metadata segments of a JPEG file, each whole and in order;
            written again unchanged if the format stays the same.
        tables: Quantization tables of a JPEG file.
        sampling: Chroma subsampling of a JPEG file, by Pillow's number; -1 if unknown.
        lossless: Whether a WebP file was lossless.
        tail: What follows the image in a JPEG file: further images, such as a gain map.
        tail_distance: From ``distance_to_tail``.
    """

    exif: bytes = b""
    profile: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    parts: tuple[bytes, ...] = ()
    tables: dict[int, list[int]] | None = None
    sampling: int = -1
    lossless: bool = False
    tail: bytes = b""
    tail_distance: int = 0


@dataclass(eq=False, kw_only=True, slots=True)
class ImageFile:
    """An image as shown, in its full depth, with its metadata.

    Attributes:
        kind: JPEG, PNG, WebP, GIF, BMP, TIFF, PNM or AVIF.
        pixels: ``uint8`` or ``uint16`` (H, W, C), contiguous; may be written to.
        metadata: Its metadata.
        upright: Whether no EXIF orientation had to be applied. It is not applied to a JPEG file that holds
            further images, of which some go with the first as it is stored.
    """

    kind: str
    pixels: Values
    metadata: ImageMetadata
    upright: bool

    @property
    def colors(self) -> Values:
        """A view of the pixels without alpha, (H, W, 1 or 3)."""
        return self.pixels[..., : 1 if self.pixels.shape[2] <= 2 else 3]


def read_image_file(
    data: bytes, *, max_pixels: int, name: str, on_size: Callable[[int], object] | None = None
) -> ImageFile:
    """Read an image file.

    Args:
        data: Content of the file.
        max_pixels: Larger images are refused, before they are decoded.
        name: Name of the file in messages.
        on_size: Called with the number of pixels before they are decoded; may block until memory is free.

    Raises:
        ImageTooLargeError: The image has more than ``max_pixels`` pixels.
        ImageError: The bytes are empty, truncated, damaged, of an unsupported format, or could not be written
            again unchanged.
    """
    with open_image(data, max_pixels=max_pixels, name=name) as (kind, image):
        if on_size is not None:
            on_size(image.width * image.height)
        reason = _refused(kind, image, data)
        if reason:
            raise ImageError(f"{printable(name)}: {reason}")
        # Of a TIFF file, before Pillow turns it upright, changes its metadata and closes it.
        tiff = image if isinstance(image, TiffFile) else None
        stored = None if tiff is None else valid_orientation(tiff.tag_v2.get(ORIENTATION))
        tiff_exif = b"" if tiff is None else _tiff_exif(tiff)
        xmp = None if tiff is None else tiff.tag_v2.get(_XMP, b"")
        pixels: NDArray[Any]
        if _bits(kind, image) == 16:
            pixels = deep_values(image, lambda: open_image(data, max_pixels=max_pixels, name=name))
        else:
            image.load()
            pixels = np.asarray(_plain(image))
        tail = data[end_of_image(data) :] if kind == "JPEG" else b""
        orientation = exif_orientation(image.info.get("exif", b"")) if stored is None else stored
        if holds_images(tail):  # what goes with them, such as a gain map, is not turned: then nothing is
            orientation = 1
        if xmp is not None:
            image.info["xmp"] = xmp
        exif = tiff_exif or image.info.get("exif", b"")
        metadata = _metadata(kind, image, data, exif=exif, tail=tail, orientation=orientation)
    height, width = pixels.shape[:2]
    shown = orient(pixels.reshape(height, width, -1), orientation if tiff is None else 1)
    whole = np.require(shown, requirements=["C", "W"])
    return ImageFile(kind=kind, pixels=whole, metadata=metadata, upright=orientation == 1)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the bytes of each chunk of a PNG file, up to the first incomplete one."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length:
            return
        yield chunk[4:8], chunk
        at += 12 + length


def _refused(kind: str, image: PillowFile, data: bytes) -> str:
    """Return why an image could not be written again unchanged; empty if it can."""
    frames, bits = getattr(image, "n_frames", 1), _bits(kind, image)
    if kind == RAW:
        return "it is a camera raw file; develop it in a program for that, as TIFF or JPEG"
    if frames > 1:
        return f"this {kind} file holds {frames} images, only single images are supported; split it"
    if image.mode == "CMYK":
        return "its pixels are CMYK; convert it to RGB first"
    if isinstance(image, TiffFile) and (reason := _refused_tiff(image)):
        return reason
    if kind == HEIC and (reason := _refused_heic(image)):
        return reason
    if reason := _refused_bytes(kind, data):
        return reason
    if bits not in (1, 2, 4, 8, 16) or image.mode in ("I", "F"):
        return f"its values have {bits} bits, only 8 and 16 are supported; convert it first"
    if bits == 16 and (kind not in ("PNG", "TIFF") or not _is_plainly_deep(kind, image)):
        return "its 16-bit pixel format is not supported; convert it to plain 16-bit PNG"
    if bits != 16 and image.mode not in _PLAIN_MODES | {"1", "P", "PA"}:
        return (
            f"its pixels are {printable(image.mode)}, only gray, RGB and palettes are supported; convert it"
        )
    return ""


def _refused_tiff(image: TiffFile) -> str:
    if image.signed:
        return f"its values have {image.bits} bits and a sign, only unsigned ones are supported; convert it"
    if image.separate and image.bits == 16:
        return "its 16-bit colors lie in separate planes; convert it to plain 16-bit PNG"
    if image.extra_channels:
        return f"it has {image.extra_channels} channels beside its colors and alpha; convert it first"
    return ""


def _refused_heic(image: PillowFile) -> str:
    if image.info.get("bit_depth", 8) > 8:
        return "HEIC with more than 8 bits is not supported; convert it to 16-bit PNG first"
    if image.info.get("aux") or image.info.get("depth_images"):
        return "this HEIC file holds further images (a gain map or a depth map); save the first one alone"
    return ""


def _refused_bytes(kind: str, data: bytes) -> str:
    """Return what Pillow does not tell of a file."""
    if kind == "PNM" and _DEEP_PNM.match(data):
        return "PNM with more than 8 bits is not supported; convert it to PNG first"
    if (
        kind == "AVIF"
        and (at := data.find(b"av1C")) >= 0
        and any(flags & 0x40 for flags in data[at + 6 : at + 7])
    ):
        return "AVIF with more than 8 bits is not supported; convert it to 16-bit PNG first"
    if kind == "BMP" and data[14] >= BMP_V4 and data[14 + 56 : 14 + 60] in _BMP_PROFILES:
        return "a color profile in BMP is not supported; convert it to PNG first"
    return ""


def _bits(kind: str, image: PillowFile) -> int:
    """Return the bits per value."""
    if isinstance(image, TiffFile):
        return image.bits
    if kind == "PNG" and image.mode != "P":
        depth = {"1": 1}.get(image.mode, 8)
        return 16 if any("16" in str(tile.args) for tile in image.tile) else depth
    return {"1": 1, "I": 32, "F": 32, "I;16": 16, "I;16B": 16}.get(image.mode, 8)


def _is_plainly_deep(kind: str, image: PillowFile) -> bool:
    plain = {"I;16", "I;16B", "I;16N", "I;16L", "LA;16B"}
    plain |= {f"{mode};16{order}" for mode in ("RGB", "RGBA") for order in "BLN"}
    return raw_mode(image) in plain and (kind == "PNG" or image.mode != "LA")


def _plain(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "P", "PA") or (image.mode in ("L", "RGB") and "transparency" in image.info):
        mode = "L" if image.mode in ("1", "L") else "RGB"
        return image.convert(f"{mode}A" if image.has_transparency_data else mode)
    return image


def _metadata(
    kind: str, image: PillowFile, data: bytes, *, exif: bytes, tail: bytes, orientation: int
) -> ImageMetadata:
    info = image.info
    xmp = info.get("xmp", b"")
    dpi = info.get("dpi")
    jpeg = image if isinstance(image, JpegImagePlugin.JpegImageFile) else None
    return ImageMetadata(
        exif=(exif if holds_images(tail) else upright_exif(exif, orientation)).removeprefix(b"Exif\0\0"),
        profile=info.get("icc_profile") or b"",
        xmp=upright_xmp(xmp.encode() if isinstance(xmp, str) else xmp, orientation),
        dpi=(float(dpi[0]), float(dpi[1])) if dpi else None,
        parts=tuple(_parts(kind, data, orientation, index=holds_images(tail))),
        tables=None if jpeg is None else {key: list(table) for key, table in jpeg.quantization.items()},
        sampling=-1 if jpeg is None else JpegImagePlugin.get_sampling(jpeg),
        lossless=kind == "WebP" and b"VP8L" in data[:64],
        tail=tail,
        tail_distance=distance_to_tail(data, len(data) - len(tail)),
    )


def _tiff_exif(image: Image.Image) -> bytes:
    whole, some = image.getexif(), Image.Exif()
    for tag in _TIFF_TAGS:
        if tag in whole:
            some[tag] = whole[tag]
    for tag in _TIFF_DIRECTORIES:
        if folder := whole.get_ifd(tag):
            some.get_ifd(tag).update(folder)
    return some.tobytes() if len(some) or any(some.get_ifd(tag) for tag in _TIFF_DIRECTORIES) else b""


def _parts(kind: str, data: bytes, orientation: int, *, index: bool) -> Iterator[bytes]:
    """Yield the metadata of a PNG or JPEG file, turned upright; ``index``: with that of further images."""
    if kind == "PNG":
        for name, chunk in png_chunks(data):
            if name in _PNG_METADATA:
                yield upright_chunk(name, chunk, orientation)
    elif kind == "JPEG":
        for marker, _, segment in segments(data):
            # Not Adobe's color transform (APP14).
            if marker in _JPEG_METADATA and (index or not is_index(segment)):
                yield segment if index else upright_segment(segment, orientation)
