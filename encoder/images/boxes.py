"""Boxes with numbers on a reduced image.

Legend: H, W = height and width of the image; h, w = of the reduced one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lookalike.encoder.images.text import Line

Box = tuple[float, float, float, float]
_COLOR: Final = (26, 104, 214)
_WHITE: Final = (255, 255, 255)
_TEXT: Final = 13
_PADDING: Final = 2


def numbered_boxes(pixels: NDArray[np.uint8], boxes: Sequence[Box], *, side: int) -> NDArray[np.uint8]:
    """Return an image with its boxes and their numbers, from 1, uint8 (h, w, 3).

    Args:
        pixels: uint8 (H, W, 3).
        boxes: x, y, width and height of each, in fractions of the image; they may reach out of it.
        side: Largest of h and w, in pixels; a smaller image is not enlarged.
    """
    image = Image.fromarray(pixels)
    scale = min(1.0, side / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    draw = ImageDraw.Draw(image)
    thick = max(1, round(max(size) / 150))
    corners = [
        (x * size[0], y * size[1], (x + across) * size[0], (y + down) * size[1])
        for x, y, across, down in boxes
    ]
    for box in corners:
        draw.rectangle(box, outline=_COLOR, width=thick)
    for number, (left, top, _, _) in enumerate(corners, start=1):  # above all boxes, and inside the image
        line = Line.of(str(number), _TEXT)
        room = line.width + 2 * _PADDING, _TEXT + 2 * _PADDING
        x, y = (
            max(0.0, min(at, limit - need)) for at, limit, need in zip((left, top), size, room, strict=True)
        )
        draw.rectangle((x, y, x + room[0], y + room[1]), fill=_COLOR)
        line.draw(draw, (x + room[0] / 2, y + room[1] - _PADDING - 1), _WHITE, anchor="ms")
    return np.array(image)
