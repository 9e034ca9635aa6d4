"""Orientation: what EXIF says of it, and pixels and boxes as stored and as shown.

Legend: H, W = the image as it is shown, after EXIF orientation; h, w = the image as it is stored; C channels.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

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
