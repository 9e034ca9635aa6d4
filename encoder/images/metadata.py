"""EXIF data, XMP and the parts of a JPEG file; orientation: pixels and boxes as stored and as shown.

Phones and cameras put more into one JPEG file: a gain map for HDR screens, a second view, a depth map, a
short video. They lie behind the first image, and an index (CIPA DC-007, Multi-Picture Format) says where.

Of an image that is turned upright, all metadata that say how it was stored are turned too: the orientation in
EXIF and in XMP, the width and the height in both, and the thumbnail in EXIF. No other byte changes.

Legend: H, W = the image as it is shown, after EXIF orientation; h, w = the image as it is stored; C channels.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # its stub file lies beside another module
from numpy.typing import NDArray
from PIL import Image

APP1: Final = 0xE1
_APP2: Final = 0xE2
_SCAN: Final = 0xDA
_END: Final = 0xD9
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_INDEX: Final = b"MPF\0"
_ENTRIES: Final = 0xB002
_ENTRY: Final = 16
"""Bytes of an entry of the index: attributes, size, offset (4 bytes each), and two numbers."""
# In a scan, FF is followed by 0, by a restart marker or by a fill byte; anything else ends it.
_BEHIND_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, offset and bytes of each segment between the start of an image and its first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (_SCAN, _END):
            return
        length = 2 + (data[at + 2] << 8 | data[at + 3])
        yield marker, at, data[at : at + length]
        at += length


def is_progressive(data: bytes) -> bool:
    """Whether the whole image must be held in memory to decode it, however small."""
    return any(marker in _PROGRESSIVE for marker, _, _ in segments(data))


def end_of_image(data: bytes) -> int:
    """Return the offset behind the end of the first image of a file; its length where there is no end."""
    at = 2
    for _, start, segment in segments(data):
        at = start + len(segment)
    while at + 4 <= len(data):
        found = _BEHIND_SCAN.search(data, at)
        if found is None:
            break
        marker = data[found.start() + 1]
        if marker == _END:
            return found.end()
        # The header of a scan, or a table between two scans.
        at = found.end()
        at += data[at] << 8 | data[at + 1] if at + 2 <= len(data) else 2
    return len(data)


def holds_images(tail: bytes) -> bool:
    """Whether what follows the first image holds further images or a video."""
    return b"\xff\xd8\xff" in tail or b"ftyp" in tail


def is_index(segment: bytes) -> bool:
    """Whether a segment is the index of further images."""
    return segment[1:2] == bytes([_APP2]) and segment.startswith(_INDEX, 4)


def distance_to_tail(data: bytes, end: int) -> int:
    """Return how far behind the start of its index's offsets the first image of a file ends; 0 without."""
    return next((end - start - 8 for _, start, segment in segments(data) if is_index(segment)), 0)


def with_tail(image: bytes, tail: bytes, distance: int) -> bytes:
    """Append what followed an image before it was changed, and correct the index of further images.

    Args:
        image: The changed image, with the index as it was.
        tail: What followed it.
        distance: From :func:`distance_to_tail`, before the change.
    """
    for _, start, segment in segments(image):
        if is_index(segment):
            moved = len(image) - start - 8 - distance
            corrected = segment[:8] + _moved(segment[8:], len(image), moved)
            return image[:start] + corrected + image[start + len(segment) :] + tail
    return image + tail


def _moved(index: bytes, size: int, moved: int) -> bytes:
    """Return an index with the size of the first image, and all others ``moved`` bytes further."""
    order: Literal["little", "big"] = "little" if index[:2] == b"II" else "big"
    out = bytearray(index)

    def number(at: int, length: int = 4) -> int:
        return int.from_bytes(out[at : at + length], order)

    start = number(4)
    for at in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        if number(at, 2) != _ENTRIES:
            continue
        first = number(at + 8)
        for entry in range(first, min(first + number(at + 4), len(out) - _ENTRY + 1), _ENTRY):
            if entry == first:
                out[entry + 4 : entry + 8] = size.to_bytes(4, order)
            elif offset := number(entry + 8):
                out[entry + 8 : entry + 12] = ((offset + moved) % (1 << 32)).to_bytes(4, order)
        break  # there is one table
    return bytes(out)


Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; right and bottom are exclusive."""

ORIENTATION: Final = 0x0112
_SIZES: Final = {3: 2, 4: 4}
"""Bytes of a number by its type: SHORT, LONG."""

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
    for marker, _, segment in segments(data):
        if marker == APP1 and segment.startswith(b"Exif\0\0", 4):
            return exif_orientation(segment[4:])
    return 1


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in a block of EXIF data, 1..8; 1 where it is missing or invalid."""
    block = ExifBlock(exif)
    return valid_orientation(block.value(block.main, ORIENTATION))


def valid_orientation(value: object) -> int:
    """Return an orientation as a file gives it; 1 where it is none of 1..8."""
    return value if isinstance(value, int) and value in _STEPS else 1


@dataclass(frozen=True, slots=True)
class ExifNumber:
    """Where a tag's value of one number lies, and how many bytes it has."""

    at: int
    size: int


class ExifBlock:
    """The tags of a block of EXIF data that hold one whole number, found in its bytes.

    Damaged data have no tags. Values can be changed, in place.

    Attributes:
        main: Tags of the main image.
        data: The bytes.
    """

    def __init__(self, exif: bytes) -> None:
        self.data = bytearray(exif)
        self._base = 6 if exif.startswith(b"Exif\0\0") else 0
        start = bytes(self.data[self._base : self._base + 4])
        self._order: Literal["little", "big"] = "little" if start == b"II*\0" else "big"
        self._valid = start in (b"II*\0", b"MM\0*")
        self.main = self.folder(self._number(4, 4))

    def folder(self, start: int) -> dict[int, ExifNumber]:
        """Return the tags of the folder at an offset; of a tag that occurs twice, the first."""
        entries: dict[int, ExifNumber] = {}
        if not self._valid or start < 8:
            return entries
        for at in range(start + 2, start + 2 + 12 * self._number(start, 2), 12):
            if self._base + at + 10 > len(self.data):
                break
            size = _SIZES.get(self._number(at + 2, 2), 0)
            if size and self._number(at + 4, 4) == 1:
                entries.setdefault(self._number(at, 2), ExifNumber(at + 8, size))
        return entries

    def thumbnail_link(self) -> ExifNumber:
        """Return where the offset of the thumbnail's folder lies, behind the main folder."""
        start = self._number(4, 4)
        return ExifNumber(start + 2 + 12 * self._number(start, 2), 4)

    def value(self, folder: Mapping[int, ExifNumber], tag: int) -> int | None:
        """Return the value of a tag; None where there is none."""
        return self.read(folder[tag]) if tag in folder else None

    def read(self, entry: ExifNumber) -> int:
        """Return the number at an entry."""
        return self._number(entry.at, entry.size)

    def write(self, entry: ExifNumber, value: int) -> None:
        """Change the number at an entry."""
        at = self._base + entry.at
        if at + entry.size <= len(self.data):
            self.data[at : at + entry.size] = value.to_bytes(entry.size, self._order)

    def part(self, at: int, length: int) -> bytes:
        """Return the bytes at an offset."""
        return bytes(self.data[self._base + at : self._base + at + length])

    def replace(self, at: int, part: bytes) -> None:
        """Change the bytes at an offset."""
        self.data[self._base + at : self._base + at + len(part)] = part

    def _number(self, at: int, length: int) -> int:
        return int.from_bytes(self.data[self._base + at : self._base + at + length], self._order)


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
