"""Metadata of an image that is turned upright: all of it that says how the image was stored is turned too.

That is the orientation in EXIF and in XMP, the width and the height in both, and the thumbnail in EXIF. No
other byte changes.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # its stub file lies beside another module
from PIL import Image

from lookalike.encoder.images.metadata.exif import (
    ORIENTATION,
    ExifBlock,
    ExifNumber,
    exif_orientation,
    orient,
    shown_size,
)

_EXIF_FOLDER: Final = 0x8769
_SIZE_TAGS: Final = ((0x0100, 0x0101), (0xA002, 0xA003))
_THUMBNAIL_AT, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_THUMBNAIL_QUALITIES: Final = (90, 75, 60, 40)
_XMP_SEGMENT: Final = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_CHUNK: Final = b"XML:com.adobe.xmp\0"
# Attributes and elements; strangers write packets, so that this must not look back.
_XMP_NUMBER: Final = re.compile(
    rb":(Orientation|ImageWidth|ImageLength|PixelXDimension|PixelYDimension)(?:\s*=\s*[\"']\s*|>\s*)(\d+)"
)
_MAX_PREFIX: Final = 64
_MAX_THUMBNAIL: Final = 1 << 20
"""Pixels of a thumbnail; a few bytes may claim to hold millions."""
_XMP_SIZES: Final = (
    (b"http://ns.adobe.com/tiff/1.0/", b"ImageWidth", b"ImageLength"),
    (b"http://ns.adobe.com/exif/1.0/", b"PixelXDimension", b"PixelYDimension"),
)


def is_sideways(orientation: int) -> bool:
    """Whether width and height change places."""
    return shown_size(1, 2, orientation) == (2, 1)


def upright_exif(exif: bytes, orientation: int | None = None) -> bytes:
    """Return a block of EXIF data as of the image turned upright.

    A thumbnail is turned too; if that does not fit into its place, the thumbnail is taken out.

    Args:
        exif: The block; empty if there is none.
        orientation: How the image was stored, 1..8; None: as the block says.
    """
    turn = exif_orientation(exif) if orientation is None else orientation
    block = ExifBlock(exif)
    if ORIENTATION in block.main:
        block.write(block.main[ORIENTATION], 1)
    if turn == 1:
        return bytes(block.data)
    folders = [block.main]
    if (inner := block.value(block.main, _EXIF_FOLDER)) is not None:
        folders.append(block.folder(inner))
    link = block.thumbnail_link()
    thumbnail = block.folder(block.read(link))
    if thumbnail:
        folders.append(thumbnail)
        if ORIENTATION in thumbnail:
            block.write(thumbnail[ORIENTATION], 1)
        at, length = (block.value(thumbnail, tag) for tag in (_THUMBNAIL_AT, _THUMBNAIL_LENGTH))
        turned = None if at is None or length is None else _turned(block.part(at, length), turn)
        if at is not None and turned is not None:
            block.replace(at, turned)
            block.write(thumbnail[_THUMBNAIL_LENGTH], len(turned))
        else:
            block.write(link, 0)
    if is_sideways(turn):
        for folder in folders:
            for tags in _SIZE_TAGS:
                _swap(block, [folder[tag] for tag in tags if tag in folder])
    return bytes(block.data)


def _swap(block: ExifBlock, entries: Sequence[ExifNumber]) -> None:
    if len(entries) == 2:
        values = [block.read(entry) for entry in entries]
        for entry, value in zip(entries, reversed(values), strict=True):
            block.write(entry, value)


def _turned(thumbnail: bytes, orientation: int) -> bytes | None:
    """Return a JPEG thumbnail turned upright in no more bytes than before; None where that fails."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(thumbnail)
        if height * width > _MAX_THUMBNAIL:
            return None
        pixels = simplejpeg.decode_jpeg(thumbnail, colorspace="RGB")
    except ValueError:
        return None
    image = Image.fromarray(np.array(orient(pixels, orientation), order="C"))
    for quality in _THUMBNAIL_QUALITIES:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= len(thumbnail):
            return out.getvalue()
    return None


def upright_xmp(xmp: bytes, orientation: int) -> bytes:
    """Return an XMP packet as of the image turned upright, of the same length.

    Args:
        xmp: The packet; empty if there is none.
        orientation: How the image was stored, 1..8; with 1, nothing changes.
    """
    if orientation == 1:
        return xmp
    for namespace, width, height in _XMP_SIZES:
        prefixes = set(re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(namespace) + rb"[\"']", xmp))
        found = [match for match in _XMP_NUMBER.finditer(xmp) if _prefix(xmp, match.start()) in prefixes]
        values = {match[1]: match[2] for match in found}
        changed = {b"Orientation": b"1"}
        if is_sideways(orientation) and {width, height} <= values.keys():
            changed |= {width: values[height], height: values[width]}
        pieces, at = [], 0
        for match in found:
            if match[1] in changed:
                pieces += [xmp[at : match.start(2)], changed[match[1]]]
                at = match.end(2)
        xmp = b"".join([*pieces, xmp[at:]])
    return xmp


def _prefix(xmp: bytes, end: int) -> bytes:
    """Return the name that ends before an offset, such as ``tiff`` before ``:Orientation``."""
    found = re.search(rb"[\w.-]+\Z", xmp[max(0, end - _MAX_PREFIX) : end])
    return found[0] if found else b""


def upright_segment(segment: bytes, orientation: int) -> bytes:
    """Return a metadata segment of a JPEG file as of the image turned upright."""
    if segment.startswith(b"Exif\0\0", 4):
        return _segment(segment[:2], upright_exif(segment[4:], orientation))
    if segment.startswith(_XMP_SEGMENT, 4):
        at = 4 + len(_XMP_SEGMENT)
        return _segment(segment[:2], _XMP_SEGMENT + upright_xmp(segment[at:], orientation))
    return segment


def _segment(marker: bytes, body: bytes) -> bytes:
    return marker + (2 + len(body)).to_bytes(2, "big") + body


def upright_chunk(name: bytes, chunk: bytes, orientation: int) -> bytes:
    """Return a metadata chunk of a PNG file as of the image turned upright."""
    body = chunk[8:-4]
    if orientation == 1 and name != b"eXIf":
        return chunk
    if name == b"eXIf":
        return png_chunk(name, upright_exif(body, orientation))
    if name == b"iTXt" and body.startswith(_XMP_CHUNK):
        at = len(_XMP_CHUNK)
        compressed, head, text = body[at], body[: at + 2], body[at + 2 :]
        language, translated, packet = text.split(b"\0", 2) if text.count(b"\0") >= 2 else (b"", b"", b"")
        try:
            packet = upright_xmp(zlib.decompress(packet) if compressed else packet, orientation)
        except zlib.error:
            return chunk
        packet = zlib.compress(packet) if compressed else packet
        return png_chunk(name, b"\0".join([head + language, translated, packet]))
    return chunk


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
