"""Pictures written again after they were changed: same depth, same alpha, and all that came with them.

What a kind of file cannot hold is refused by name, never left out in silence. TIFF is written with lossless
compression (Deflate with a predictor), also 16-bit RGB, which Pillow cannot write; so is 16-bit colour PNG
(filters as in the PNG specification, of which each row gets the better of two).

Legend: H, W = height and width; C channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGBA).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image, TiffImagePlugin

from lookalike.encoder.errors import ImageError
from lookalike.encoder.images.exif import upright_exif
from lookalike.encoder.images.read import ImageFile, ImageMetadata, Values, png_chunks
from lookalike.encoder.text import printable

DEFAULT_QUALITY: Final = 95
"""Of JPEG, WebP and AVIF where the picture was of another kind; a JPEG keeps the tables it came with."""

WRITABLE_FORMATS: Final = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "PNM": ".ppm",
    "AVIF": ".avif",
}
"""Kinds that can be written, and how such files are called."""

_MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_STRIP: Final = 1 << 20
"""Bytes, about, that are compressed at a time."""
_LARGEST: Final = (1 << 32) - (1 << 20)


def write_image_file(
    original: ImageFile, *, kind: str | None = None, quality: int | None = None, name: str
) -> bytes:
    """Return the bytes of a picture file with these pixels and what came with them.

    Args:
        original: As :func:`read_original` gave it; its pixels may have been changed.
        kind: One of :data:`WRITABLE_FORMATS`; None: as it was.
        quality: 1..100 of JPEG, WebP and AVIF; None: a JPEG keeps the tables it came with, a lossless WebP
            stays lossless, others get :data:`DEFAULT_QUALITY`.
        name: what to call the file in messages.

    Raises:
        ImageError: this kind of file cannot hold such a picture.
    """
    kind = original.kind if kind is None else kind
    if kind not in WRITABLE_FORMATS:
        raise ImageError(
            f"{printable(name)}: {kind} is not written, it has at most 256 colours; name another format"
        )
    lacks = _lacking(kind, original)
    if lacks:
        raise ImageError(f"{printable(name)}: {kind} holds no {lacks}; name another format, png for one")
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
    except Exception as error:  # Pillow's writers raise what their libraries say, such as of sides too long
        reason = printable(str(error)).strip().rstrip(".") or type(error).__name__
        raise ImageError(
            f"{printable(name)}: cannot be written as {kind} ({reason}); name another format"
        ) from error


def _lacking(kind: str, original: ImageFile) -> str:
    depth, channels = original.pixels.dtype, original.pixels.shape[2]
    if depth == np.uint16 and kind not in ("PNG", "TIFF"):
        return "16 bits"
    if channels in (2, 4) and kind in ("JPEG", "PNM"):
        return "alpha"
    return "grey and alpha" if channels == 2 and kind == "BMP" else ""


def _image(original: ImageFile) -> Image.Image:
    pixels = original.pixels
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, _MODES[pixels.shape[2]])


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **{key: value for key, value in options.items() if value not in (None, b"")})
    return out.getvalue()


def _with_pillow(kind: str, original: ImageFile, quality: int | None) -> bytes:
    company = original.company
    if kind == "AVIF":
        return _saved(
            _image(original),
            "AVIF",
            quality=quality or DEFAULT_QUALITY,
            exif=company.exif,
            icc_profile=company.profile,
            xmp=company.xmp,
        )
    return _saved(_image(original), {"PNM": "PPM"}.get(kind, kind), dpi=company.dpi)


def _webp(original: ImageFile, quality: int | None) -> bytes:
    company = original.company
    return _saved(
        _image(original),
        "WEBP",
        quality=quality or DEFAULT_QUALITY,
        lossless=company.lossless and quality is None,
        exact=True,  # colours behind what is transparent stay too
        exif=company.exif,
        icc_profile=company.profile,
        xmp=company.xmp,
        method=4,
    )


def _jpeg(original: ImageFile, quality: int | None) -> bytes:
    company, image = original.company, _image(original)
    tables = company.tables
    if tables is not None and len(tables) == 1 and image.mode == "RGB":
        tables = None  # it was grey
    how: dict[str, Any] = {"quality": quality or DEFAULT_QUALITY, "subsampling": 0}
    if quality is None and tables:
        how = {"qtables": tables, "subsampling": company.sampling}
    elif company.sampling >= 0:
        how["subsampling"] = company.sampling
    if image.mode == "L":
        how.pop("subsampling")
    if original.kind != "JPEG":
        return _saved(
            image,
            "JPEG",
            exif=_app(company.exif),
            icc_profile=company.profile,
            xmp=company.xmp,
            dpi=company.dpi,
            **how,
        )
    data = _saved(image, "JPEG", **how)
    if company.parts and data[2:4] == b"\xff\xe0":  # JFIF, which the original has itself or does without
        data = _without_first(data)
    return data[:2] + b"".join(company.parts) + data[2:]


def _without_first(data: bytes) -> bytes:
    """A JPEG file without its first segment."""
    return data[:2] + data[4 + (data[4] << 8 | data[5]) :]


def _app(exif: bytes) -> bytes:
    return b"Exif\0\0" + exif if exif else b""


def _png(original: ImageFile, _: int | None) -> bytes:
    company, pixels = original.company, original.pixels
    data = _deep_png(pixels) if pixels.dtype == np.uint16 else _saved(_image(original), "PNG")
    extra = b"".join(company.parts) if original.kind == "PNG" else _chunks_of(company)
    upright = b"".join(
        _chunk(name, upright_exif(whole[8:-4])) if name == b"eXIf" else whole
        for name, whole in png_chunks(b"\0" * 8 + extra)
    )
    at = 8 + 12 + 13  # behind the signature and IHDR
    return data[:at] + upright + data[at:]


def _chunks_of(company: ImageMetadata) -> bytes:
    """Chunks of a PNG file that say what came with a picture of another kind."""
    made = []
    if company.profile:
        made.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(company.profile)))
    if company.dpi:
        across, down = (round(value / 0.0254) for value in company.dpi)
        made.append(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if company.exif:
        made.append(_chunk(b"eXIf", company.exif))
    if company.xmp:
        made.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + company.xmp))
    return b"".join(made)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _deep_png(pixels: Values) -> bytes:
    """uint16 (H, W, C) -> a PNG file of 16 bits."""
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    step, row = 2 * channels, 2 * channels * width
    packer, made = zlib.compressobj(6), []
    above = np.zeros((1, row), np.uint8)
    at_once = max(1, _STRIP // row)
    for top in range(0, height, at_once):
        part = pixels[top : top + at_once]
        raw = part.astype(">u2").view(np.uint8).reshape(len(part), row)
        up = raw - np.concatenate([above, raw[:-1]])
        left = raw.copy()
        left[:, step:] -= raw[:, :-step]
        above = raw[-1:]
        # The heuristic of the specification: the smaller sum of what is left, taken as signed.
        sizes = [np.abs(each.view(np.int8).astype(np.int16)).sum(axis=1) for each in (left, up)]
        which = (sizes[1] < sizes[0]).astype(np.uint8)
        rows = np.where(which[:, None], up, left)
        made.append(packer.compress(np.concatenate([which[:, None] + np.uint8(1), rows], axis=1).tobytes()))
    made.append(packer.flush())
    body = b"".join(_chunk(b"IDAT", each) for each in made if each)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + body + _chunk(b"IEND", b"")


def _tiff(original: ImageFile, _: int | None) -> bytes:
    """Little-endian, in strips, Deflate with horizontal differences."""
    pixels, company = original.pixels, original.company
    height, width, channels = pixels.shape
    rows = max(1, _STRIP // (width * channels * pixels.itemsize))
    strips = []
    for top in range(0, height, rows):
        part = pixels[top : top + rows].copy()
        part[:, 1:] -= pixels[top : top + rows, :-1]
        strips.append(zlib.compress(part.astype(part.dtype.newbyteorder("<")).tobytes()))
    if sum(map(len, strips)) > _LARGEST:
        raise ImageError("a TIFF file of this kind has at most 4 GiB; name another format, png for one")
    ends = np.cumsum([0, *map(len, strips)])  # Pillow adds where the strips begin
    tags = _tiff_tags(company)
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
        tags[338] = 2  # alpha that colours were not multiplied with
    folder = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    folder.tagtype.update(dict.fromkeys((256, 257, 273, 278, 279), 4))  # LONG
    folder.tagtype[34675] = 7  # a profile is bytes without meaning
    for tag, value in tags.items():
        folder[tag] = value
    return b"".join([b"II*\0", struct.pack("<I", 8), folder.tobytes(8), *strips])


def _tiff_tags(company: ImageMetadata) -> dict[int, Any]:
    tags: dict[int, Any] = {}
    if company.dpi:
        tags |= {282: company.dpi[0], 283: company.dpi[1], 296: 2}
    if company.exif:
        exif = Image.Exif()
        exif.load(company.exif)
        tags |= {tag: value for tag, value in exif.items() if tag not in (34665, 34853, 40965, 513, 514)}
        tags |= {tag: dict(inner) for tag in (34665, 34853) if (inner := exif.get_ifd(tag))}
        tags[274] = 1
    if company.xmp:
        tags[700] = company.xmp
    if company.profile:
        tags[34675] = company.profile
    return tags
