"""Contact sheets with captions, plain image grids, images with numbered boxes, and saving them.

Legend: h, w = height and width of one image; H, W = of the whole sheet; C channels (1 gray, 3 RGB).
Pixels are ``uint8``, 0 black to 255 white.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.files import atomic_write
from lookalike.encoder.images.text import Line

_Color = tuple[int, int, int]

_BACKGROUND: Final[_Color] = (255, 255, 255)
_INK: Final[_Color] = (32, 33, 36)
_FADED: Final[_Color] = (110, 114, 120)
_EMPTY: Final[_Color] = (243, 244, 246)
_HAIRLINE: Final[_Color] = (222, 224, 228)
_ACCENT: Final[_Color] = (26, 104, 214)

_NUMBER: Final = 13
_MISSING: Final = "not found"
_PADDING: Final = 2

_SAVE: Final[dict[str, tuple[str, dict[str, int]]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 90}),
}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One image of a contact sheet.

    Attributes:
        pixels: ``uint8 (h, w, 1 or 3)``, or None for a missing image, shown as a pale box that says so.
        caption: Dark text below it, cut with an ellipsis where it is wider than the tile.
        subcaption: Smaller and paler text below that, a line or more.
        accent: Draw a colored frame around it, such as for the query.
        faded: Draw the caption as pale as the subcaption.
    """

    pixels: NDArray[np.uint8] | None
    caption: str = ""
    subcaption: str = ""
    accent: bool = False
    faded: bool = False


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """All sizes in a sheet, in pixels; they follow from the side of a tile."""

    side: int
    label_width: int = 0
    title_height: int = 0
    heads_height: int = 0

    @property
    def text(self) -> int:
        return max(13, min(20, round(self.side * 0.115)))

    @property
    def gap(self) -> int:
        return max(8, round(self.side * 0.11))

    @property
    def margin(self) -> int:
        return max(16, round(self.side * 0.19))

    @property
    def line(self) -> int:
        return round(self.text * 1.35)

    @property
    def small(self) -> int:
        return self.text - 1

    def caption_height(self, row: Sequence[Tile]) -> int:
        """Return the height below the tiles of a row, for its longest captions."""
        lines = int(any(tile.caption for tile in row))
        lines += max(len(_lines(tile)) for tile in row) if row else 0
        return lines * self.line + round(self.text * 0.45) if lines else 0

    def left(self, column: int) -> int:
        return self.margin + self.label_width + column * (self.side + self.gap)


def contact_sheet(
    rows: Sequence[Sequence[Tile]],
    *,
    title: str = "",
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    side: int = 128,
) -> NDArray[np.uint8]:
    """Draw rows of captioned tiles on white.

    Args:
        rows: The tiles; rows may differ in length.
        title: A line at the top.
        row_labels: One text per row, in a column on the left.
        column_labels: One text per column, in a line above the first row.
        side: Width and height of a tile, 32..1024 px. Images that are not square are fitted in.

    Returns:
        ``uint8 (H, W, 3)``.

    Raises:
        InvalidArgumentError: there is no tile, ``row_labels`` has another length than ``rows``,
            ``column_labels`` than the longest row, or ``side`` cannot be.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise InvalidArgumentError("a contact sheet needs at least one tile")
    if row_labels is not None and len(row_labels) != len(rows):
        raise InvalidArgumentError(f"row_labels must be as many as rows ({len(rows)}), got {len(row_labels)}")
    if column_labels is not None and len(column_labels) != columns:
        raise InvalidArgumentError(
            f"column_labels must be as many as columns ({columns}), got {len(column_labels)}"
        )
    _check_side(side)
    plain = _Layout(side=side)
    layout = _Layout(
        side=side,
        label_width=_label_width(row_labels or (), plain),
        title_height=round(plain.text * 1.5 * 1.9) if title else 0,
        heads_height=plain.line if any(column_labels or ()) else 0,
    )
    width = layout.left(columns) - layout.gap + layout.margin
    heights = [side + layout.caption_height(row) for row in rows]
    first = layout.margin + layout.title_height + layout.heads_height
    height = first + sum(heights) + (len(rows) - 1) * layout.gap + layout.margin

    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if title:
        line = Line.of(title, round(layout.text * 1.5), width=width - 2 * layout.margin)
        line.draw(draw, (layout.margin, layout.margin), _INK, anchor="lt")
    for column, label in enumerate(column_labels or ()):
        _draw_head(draw, label, layout, layout.left(column), first)
    top = first
    for index, (row, room) in enumerate(zip(rows, heights, strict=True)):
        if row_labels is not None:
            _draw_label(draw, row_labels[index], layout, top)
        for column, tile in enumerate(row):
            _draw_tile(sheet, draw, tile, layout, layout.left(column), top)
        top += room + layout.gap
    return np.array(sheet)


def grid(
    images: Sequence[NDArray[np.uint8]], *, columns: int | None = None, side: int = 96, gap: int = 2
) -> NDArray[np.uint8]:
    """Draw images edge to edge, without captions.

    Args:
        images: Each ``uint8 (h, w, 1 or 3)``.
        columns: Images in a row; by default the grid is nearly square.
        side: Width and height of a tile, 32..1024 px.
        gap: White space between tiles, in pixels.

    Returns:
        ``uint8 (H, W, 3)``.

    Raises:
        InvalidArgumentError: there is no image, or ``columns`` or ``side`` cannot be.
    """
    if not images:
        raise InvalidArgumentError("a grid needs at least one image")
    if columns is not None and columns < 1:
        raise InvalidArgumentError(f"columns must be at least 1, not {columns}")
    _check_side(side)
    across = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    down = math.ceil(len(images) / across)
    step = side + gap
    sheet = Image.new("RGB", (across * step - gap, down * step - gap), _BACKGROUND)
    for index, pixels in enumerate(images):
        fitted = _fit(pixels, side)
        row, column = divmod(index, across)
        sheet.paste(
            fitted,
            (column * step + (side - fitted.width) // 2, row * step + (side - fitted.height) // 2),
        )
    return np.array(sheet)


def save_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write ``uint8 (h, w, 1 or 3)`` as PNG, JPEG or WebP, by the suffix of ``path``.

    Missing folders are created; the file appears whole or not at all.

    Raises:
        InvalidArgumentError: the suffix is none of .png, .jpg, .jpeg, .webp, or the file cannot be written
            there.
    """
    if path.suffix.lower() not in _SAVE:
        raise InvalidArgumentError(
            f"{printable(str(path))}: an image is saved as {', '.join(_SAVE)}, not as "
            f"'{printable(path.suffix)}'; "
            "change the file name"
        )
    kind, options = _SAVE[path.suffix.lower()]
    out = io.BytesIO()
    try:
        _image(pixels).save(out, kind, **options)
        atomic_write(path, out.getvalue())
    except (OSError, ValueError) as error:  # ValueError: too wide or high for the format
        reason = printable(str(error.strerror if isinstance(error, OSError) and error.strerror else error))
        raise InvalidArgumentError(
            f"{printable(str(path))}: cannot write here ({reason}); choose another place or format"
        ) from error


def _check_side(side: int) -> None:
    if not 32 <= side <= 1024:
        raise InvalidArgumentError(f"side must be 32 to 1024 pixels, not {side}")


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _fit(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """Scale ``(h, w, C)`` to an RGB image whose longer side is ``side``."""
    image = _image(pixels)
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if image.size != size:
        # Lanczos is sharpest for reducing; for enlarging small images it would draw rings around edges.
        image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    return image.convert("RGB")


def _lines(tile: Tile) -> list[str]:
    return tile.subcaption.split("\n") if tile.subcaption else []


def _label_width(labels: Sequence[str], layout: _Layout) -> int:
    if not any(labels):
        return 0
    widest = max(math.ceil(Line.of(label, layout.text).width) for label in labels)
    return min(widest, 2 * layout.side) + layout.gap


def _draw_label(draw: ImageDraw.ImageDraw, label: str, layout: _Layout, top: int) -> None:
    line = Line.of(label, layout.text, width=layout.label_width - layout.gap)
    line.draw(draw, (layout.margin, top + layout.side // 2), _INK, anchor="lm")


def _draw_head(draw: ImageDraw.ImageDraw, label: str, layout: _Layout, left: int, first: int) -> None:
    """Draw a column label above the first row, which begins at ``first``."""
    middle, baseline = left + layout.side // 2, first - round(layout.text * 0.45)
    Line.of(label, layout.text, width=layout.side).draw(draw, (middle, baseline), _INK, anchor="ms")


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, layout: _Layout, left: int, top: int
) -> None:
    side = layout.side
    edge = (left - 1, top - 1, left + side, top + side)
    fitted = None if tile.pixels is None else _fit(tile.pixels, side)
    if fitted is None or fitted.size != (side, side):
        draw.rectangle(edge, _EMPTY)
    if fitted is not None:
        sheet.paste(fitted, (left + (side - fitted.width) // 2, top + (side - fitted.height) // 2))
    else:
        place = left + layout.margin // 2, top + side // 2
        Line.of(_MISSING, layout.small, width=side).draw(draw, place, _FADED, anchor="lm")
    # A hairline separates white images from the background.
    draw.rectangle(edge, outline=_HAIRLINE)
    if tile.accent:
        thick = max(2, side // 40)
        draw.rectangle(
            (left - thick, top - thick, left + side + thick - 1, top + side + thick - 1), None, _ACCENT, thick
        )
    baseline = top + side + round(layout.text * 0.45) + layout.text
    ink = _FADED if tile.faded else _INK
    below = ((line, layout.small, _FADED) for line in _lines(tile))
    for text, size, color in ((tile.caption, layout.text, ink), *below):
        if text:
            Line.of(text, size, width=side).draw(draw, (left, baseline), color, anchor="ls")
            baseline += layout.line


def numbered_boxes(
    pixels: NDArray[np.uint8], boxes: Sequence[tuple[float, float, float, float]], *, side: int
) -> NDArray[np.uint8]:
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
        draw.rectangle(box, outline=_ACCENT, width=thick)
    for number, (left, top, _, _) in enumerate(corners, start=1):  # above all boxes, and inside the image
        line = Line.of(str(number), _NUMBER)
        room = line.width + 2 * _PADDING, _NUMBER + 2 * _PADDING
        x, y = (
            max(0.0, min(at, limit - need)) for at, limit, need in zip((left, top), size, room, strict=True)
        )
        draw.rectangle((x, y, x + room[0], y + room[1]), fill=_ACCENT)
        line.draw(draw, (x + room[0] / 2, y + room[1] - _PADDING - 1), _BACKGROUND, anchor="ms")
    return np.array(image)
