"""EXIF data, and the orientation in it: pixels and boxes as stored and as shown.

Legend: H, W = the image as it is shown, after EXIF orientation; h, w = the image as it is stored; C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.images.metadata.jpeg import APP1, segments

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
