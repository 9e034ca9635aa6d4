"""The parts of a JPEG file: its segments, where its image ends, and the further images behind it.

Phones and cameras put more into one file: a gain map for HDR screens, a second view, a depth map, a short
video. They lie behind the first image, and an index (CIPA DC-007, Multi-Picture Format) says where.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

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
