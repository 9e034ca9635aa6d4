"""Write changed images: same depth, same alpha, and all metadata.

What a format cannot hold is refused with the reason, never dropped silently. TIFF is written with lossless
compression (Deflate with a predictor), also 16-bit RGB, which Pillow cannot write; so is 16-bit color PNG
(PNG filters, the better of two for each row).

Legend: H, W = height and width; C channels (1 gray, 2 gray and alpha, 3 RGB, 4 RGBA).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image, TiffImagePlugin

from lookalike.encoder.errors import ImageError, printable
from lookalike.encoder.images.metadata import holds_images, png_chunk, with_tail
from lookalike.encoder.images.read import BMP_V4, ImageFile, ImageMetadata, Values

DEFAULT_QUALITY: Final = 95
"""For JPEG, WebP and AVIF where the image had another format; a JPEG keeps its quantization tables."""

WRITABLE_FORMATS: Final = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "PNM": ".ppm",
    "AVIF": ".avif",
}
"""Formats that can be written, and the suffix of each."""

_MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_STRIP: Final = 1 << 20
"""Approximate number of bytes that are compressed at a time."""
_MAX_TIFF_BYTES: Final = (1 << 32) - (1 << 20)


def write_image_file(
    original: ImageFile, *, kind: str | None = None, quality: int | None = None, name: str
) -> bytes:
    """Encode an image with its metadata as an image file.

    Args:
        original: From :func:`read_image_file`; its pixels may have been changed.
        kind: One of :data:`WRITABLE_FORMATS`; None keeps the format.
        quality: 1..100 for JPEG, WebP and AVIF; with None, a JPEG keeps its quantization tables, a lossless
            WebP stays lossless, others get :data:`DEFAULT_QUALITY`.
        name: Name of the file in messages.

    Raises:
        ImageError: The format cannot hold such an image.
    """
    kind = original.kind if kind is None else kind
    if kind not in WRITABLE_FORMATS:
        raise ImageError(f"{printable(name)}: writing {kind} is not supported; choose another format")
    if kind != "JPEG" and holds_images(original.metadata.tail):
        raise ImageError(
            f"{printable(name)}: {kind} cannot hold the further images of this file (a gain map, a second "
            "view or a video); keep JPEG, or save the first image alone"
        )
    unsupported = _unsupported(kind, original)
    if unsupported:
        raise ImageError(
            f"{printable(name)}: {kind} cannot hold {unsupported}; choose another format, such as png"
        )
    writers: dict[str, Callable[[ImageFile, int | None], bytes]] = {
        "PNG": _png,
        "TIFF": _tiff,
        "JPEG": _jpeg,
        "WebP": _webp,
    }
    try:
        return writers[kind](original, quality) if kind in writers else _with_pillow(kind, original, quality)
    except ImageError:
        raise
    except Exception as error:  # Pillow's writers raise many types, such as for sides that are too long
        reason = printable(str(error)).strip().rstrip(".") or type(error).__name__
        raise ImageError(
            f"{printable(name)}: cannot be written as {kind} ({reason}); choose another format"
        ) from error


def _unsupported(kind: str, original: ImageFile) -> str:
    depth, channels = original.pixels.dtype, original.pixels.shape[2]
    if depth == np.uint16 and kind not in ("PNG", "TIFF"):
        return "16 bits"
    if channels in (2, 4) and kind in ("JPEG", "PNM"):
        return "alpha"
    metadata = original.metadata
    if kind in ("BMP", "PNM") and (metadata.exif or metadata.profile or metadata.xmp):
        return "its metadata (EXIF, XMP or a color profile)"
    return "gray and alpha" if channels == 2 and kind == "BMP" else ""


def _image(original: ImageFile) -> Image.Image:
    pixels = original.pixels
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, _MODES[pixels.shape[2]])


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **{key: value for key, value in options.items() if value not in (None, b"")})
    return out.getvalue()


def _with_pillow(kind: str, original: ImageFile, quality: int | None) -> bytes:
    metadata = original.metadata
    if kind == "AVIF":
        return _saved(
            _image(original),
            "AVIF",
            quality=quality or DEFAULT_QUALITY,
            exif=metadata.exif,
            icc_profile=metadata.profile,
            xmp=metadata.xmp,
        )
    if kind == "BMP" and original.pixels.shape[2] == 4:
        return _bmp_with_alpha(original.pixels, metadata.dpi)
    return _saved(_image(original), {"PNM": "PPM"}.get(kind, kind), dpi=metadata.dpi)


def _bmp_with_alpha(pixels: Values, dpi: tuple[float, float] | None) -> bytes:
    """Encode uint8 (H, W, 4) as BMP, version 4: in older ones, as Pillow writes them, nobody sees alpha."""
    height, width = pixels.shape[:2]
    body = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    across, down = (round(value / 0.0254) for value in dpi or (0, 0))
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack(
        "<IiiHHIIiiII4I4s", BMP_V4, width, height, 1, 32, 3, len(body), across, down, 0, 0, *masks, b"BGRs"
    )
    start = 14 + BMP_V4
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header.ljust(BMP_V4, b"\0") + body


def _webp(original: ImageFile, quality: int | None) -> bytes:
    metadata = original.metadata
    return _saved(
        _image(original),
        "WEBP",
        quality=quality or DEFAULT_QUALITY,
        lossless=metadata.lossless and quality is None,
        exact=True,  # keeps colors of transparent pixels too
        exif=metadata.exif,
        icc_profile=metadata.profile,
        xmp=metadata.xmp,
        method=4,
    )


def _jpeg(original: ImageFile, quality: int | None) -> bytes:
    metadata, image = original.metadata, _image(original)
    tables = metadata.tables
    if tables is not None and len(tables) == 1 and image.mode == "RGB":
        tables = None  # the original was gray
    options: dict[str, Any] = {"quality": quality or DEFAULT_QUALITY, "subsampling": 0}
    if quality is None and tables:
        options = {"qtables": tables, "subsampling": metadata.sampling}
    elif metadata.sampling >= 0:
        options["subsampling"] = metadata.sampling
    if image.mode == "L":
        options.pop("subsampling")
    if original.kind != "JPEG":
        return _saved(
            image,
            "JPEG",
            exif=_app(metadata.exif),
            icc_profile=metadata.profile,
            xmp=metadata.xmp,
            dpi=metadata.dpi,
            **options,
        )
    data = _saved(image, "JPEG", **options)
    if metadata.parts and data[2:4] == b"\xff\xe0":  # JFIF: the original has its own or none
        data = _without_first(data)
    whole = data[:2] + b"".join(metadata.parts) + data[2:]
    return with_tail(whole, metadata.tail, metadata.tail_distance)


def _without_first(data: bytes) -> bytes:
    """Return a JPEG file without its first segment."""
    return data[:2] + data[4 + (data[4] << 8 | data[5]) :]


def _app(exif: bytes) -> bytes:
    return b"Exif\0\0" + exif if exif else b""


def _png(original: ImageFile, _: int | None) -> bytes:
    metadata, pixels = original.metadata, original.pixels
    data = _deep_png(pixels) if pixels.dtype == np.uint16 else _saved(_image(original), "PNG")
    extra = b"".join(metadata.parts) if original.kind == "PNG" else _chunks_of(metadata)
    at = 8 + 12 + 13  # behind the signature and IHDR
    return data[:at] + extra + data[at:]


def _chunks_of(metadata: ImageMetadata) -> bytes:
    """Return PNG chunks with the metadata of an image of another format."""
    parts = []
    if metadata.profile:
        parts.append(png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.profile)))
    if metadata.dpi:
        across, down = (round(value / 0.0254) for value in metadata.dpi)
        parts.append(png_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.exif:
        parts.append(png_chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        parts.append(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    return b"".join(parts)


def _deep_png(pixels: Values) -> bytes:
    """Encode uint16 (H, W, C) as a 16-bit PNG file."""
    height, width, channels = pixels.shape
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    step, row = 2 * channels, 2 * channels * width
    packer, parts = zlib.compressobj(6), []
    above = np.zeros((1, row), np.uint8)
    at_once = max(1, _STRIP // row)
    for top in range(0, height, at_once):
        part = pixels[top : top + at_once]
        raw = part.astype(">u2").view(np.uint8).reshape(len(part), row)
        up = raw - np.concatenate([above, raw[:-1]])
        left = raw.copy()
        left[:, step:] -= raw[:, :-step]
        above = raw[-1:]
        # The heuristic of the specification: the smaller sum of absolute differences, as signed bytes.
        sizes = [np.abs(each.view(np.int8).astype(np.int16)).sum(axis=1) for each in (left, up)]
        which = (sizes[1] < sizes[0]).astype(np.uint8)
        rows = np.where(which[:, None], up, left)
        parts.append(packer.compress(np.concatenate([which[:, None] + np.uint8(1), rows], axis=1).tobytes()))
    parts.append(packer.flush())
    body = b"".join(png_chunk(b"IDAT", each) for each in parts if each)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body + png_chunk(b"IEND", b"")


def _tiff(original: ImageFile, _: int | None) -> bytes:
    """Encode as little-endian TIFF in strips, Deflate with horizontal differences."""
    pixels, metadata = original.pixels, original.metadata
    height, width, channels = pixels.shape
    rows = max(1, _STRIP // (width * channels * pixels.itemsize))
    strips = []
    for top in range(0, height, rows):
        part = pixels[top : top + rows].copy()
        part[:, 1:] -= pixels[top : top + rows, :-1]
        strips.append(zlib.compress(part.astype(part.dtype.newbyteorder("<")).tobytes()))
    if sum(map(len, strips)) > _MAX_TIFF_BYTES:
        raise ImageError("a TIFF file holds at most 4 GiB; choose another format, such as png")
    ends = np.cumsum([0, *map(len, strips)])  # Pillow adds where the strips begin
    tags = _tiff_tags(metadata)
    tags |= {
        256: width,
        257: height,
        258: (8 * pixels.itemsize,) * channels,
        259: 8,
        262: 1 if channels <= 2 else 2,
        273: tuple(int(end) for end in ends[:-1]),
        277: channels,
        278: rows,
        279: tuple(map(len, strips)),
        284: 1,
        317: 2,
    }
    if channels in (2, 4):
        tags[338] = 2  # unassociated alpha
    folder = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    folder.tagtype.update(dict.fromkeys((256, 257, 273, 278, 279), 4))  # LONG
    folder.tagtype[34675] = 7  # UNDEFINED: a profile is raw bytes
    for tag, value in tags.items():
        folder[tag] = value
    return b"".join([b"II*\0", struct.pack("<I", 8), folder.tobytes(8), *strips])


def _tiff_tags(metadata: ImageMetadata) -> dict[int, Any]:
    tags: dict[int, Any] = {}
    if metadata.dpi:
        tags |= {282: metadata.dpi[0], 283: metadata.dpi[1], 296: 2}
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif)
        tags |= {tag: value for tag, value in exif.items() if tag not in (34665, 34853, 40965, 513, 514)}
        tags |= {tag: dict(inner) for tag in (34665, 34853) if (inner := exif.get_ifd(tag))}
        tags[274] = 1
    if metadata.xmp:
        tags[700] = metadata.xmp
    if metadata.profile:
        tags[34675] = metadata.profile
    return tags
