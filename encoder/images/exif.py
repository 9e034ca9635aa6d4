"""EXIF orientation: finding it, applying it to pixels, and undoing it for boxes.

Legend: W, H = width and height as shown; w, h = as stored; for orientations 5 to 8 the two are swapped.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; right and bottom lie outside."""

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
    """Stored pixels ``(h, w, C)`` -> a view of them as shown, ``(H, W, C)``."""
    swap, flip, mirror = _STEPS[orientation]
    if swap:
        pixels = pixels.swapaxes(0, 1)
    if flip:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if mirror else pixels


def shown_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(w, h) -> (W, H)."""
    return (height, width) if _STEPS[orientation][0] else (width, height)


def stored_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """A box in the picture as shown -> the same box in the stored picture of ``width`` x ``height``."""
    swap, flip, mirror = _STEPS[orientation]
    left, top, right, bottom = box
    across, down = shown_size(width, height, orientation)
    if mirror:
        left, right = across - right, across - left
    if flip:
        top, bottom = down - bottom, down - top
    return (top, left, bottom, right) if swap else (left, top, right, bottom)


def jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG file, 1..8; 1 where there is none or it makes no sense."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        # Application segments, comments and tables may come before it; with the first scan the header ends.
        if marker == 0xDA:
            break
        length = data[at + 2] << 8 | data[at + 3]
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            return exif_orientation(data[at + 4 : at + 2 + length])
        at += 2 + length
    return 1


def exif_orientation(exif: bytes) -> int:
    """The orientation in a block of EXIF data, 1..8; 1 where there is none or it makes no sense."""
    found = _orientation_at(exif)
    if found is None:
        return 1
    at, order = found
    value = int.from_bytes(exif[at : at + 2], order)
    return value if value in _STEPS else 1


def upright_exif(exif: bytes) -> bytes:
    """The same block of EXIF data, with an orientation of 1 where it has one: not a byte more is changed."""
    found = _orientation_at(exif)
    if found is None:
        return exif
    at, order = found
    return exif[:at] + (1).to_bytes(2, order) + exif[at + 2 :]


def _orientation_at(exif: bytes) -> tuple[int, Literal["little", "big"]] | None:
    """Where the two bytes of the orientation lie in a block of EXIF data, and in what order."""
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
