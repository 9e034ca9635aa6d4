"""Pictures for people: contact sheets with captions, plain grids, and writing them to disk.

Legend: h, w = height and width of one picture; H, W = of the finished sheet; C channels (1 grey, 3 RGB).
Pixels are ``uint8``, 0 black to 255 white.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.files import atomic_write
from lookalike.encoder.text import printable

_Colour = tuple[int, int, int]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PAPER: Final[_Colour] = (255, 255, 255)
_INK: Final[_Colour] = (32, 33, 36)
_FADED: Final[_Colour] = (110, 114, 120)
_EMPTY: Final[_Colour] = (243, 244, 246)
_HAIRLINE: Final[_Colour] = (222, 224, 228)
_ACCENT: Final[_Colour] = (26, 104, 214)
_LONGEST: Final = 300  # characters looked at in a caption; more never fit

_SAVE: Final[dict[str, tuple[str, dict[str, int]]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 90}),
}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a contact sheet.

    Attributes:
        pixels: ``uint8 (h, w, 1 or 3)``, or None for a picture that is missing: a pale box is drawn.
        caption: dark text below it, cut with an ellipsis where it is wider than the tile.
        subcaption: smaller and paler text below that.
        accent: draw a coloured frame around it (for the query, say).
        faded: write the caption as pale as the subcaption.
    """

    pixels: NDArray[np.uint8] | None
    caption: str = ""
    subcaption: str = ""
    accent: bool = False
    faded: bool = False


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """All measures of a sheet, in pixels; they follow from the side of a tile."""

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
        """Room below the tiles of a row: two lines, one or none."""
        lines = any(tile.caption for tile in row) + any(tile.subcaption for tile in row)
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
    """Rows of captioned tiles on white.

    Args:
        rows: the tiles; rows may differ in length.
        title: a line above all.
        row_labels: one text per row, in a column on the left.
        column_labels: one text per column, in a line above the first row.
        side: width and height of a tile, 32..1024 px. Pictures that are not square are fitted in.

    Returns:
        ``uint8 (H, W, 3)``.

    Raises:
        InvalidArgumentError: there is no tile, ``row_labels`` has another length than ``rows``,
            ``column_labels`` than the longest row, or ``side`` cannot be.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise InvalidArgumentError("a contact sheet needs at least one tile, got none")
    if row_labels is not None and len(row_labels) != len(rows):
        raise InvalidArgumentError(f"row_labels ({len(row_labels)}) must be as many as rows ({len(rows)})")
    if column_labels is not None and len(column_labels) != columns:
        raise InvalidArgumentError(
            f"column_labels ({len(column_labels)}) must be as many as columns ({columns})"
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

    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        font = _font(round(layout.text * 1.5))
        text = _cut(title, font, width - 2 * layout.margin)
        draw.text((layout.margin, layout.margin), text, _INK, font, anchor="lt")
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
    """Pictures edge to edge, without captions.

    Args:
        images: each ``uint8 (h, w, 1 or 3)``.
        columns: pictures in a row; as near to a square as can be by default.
        side: width and height of a tile, 32..1024 px.
        gap: white space between tiles, in pixels.

    Returns:
        ``uint8 (H, W, 3)``.

    Raises:
        InvalidArgumentError: there is no picture, or ``columns`` or ``side`` cannot be.
    """
    if not images:
        raise InvalidArgumentError("a grid needs at least one picture, got none")
    if columns is not None and columns < 1:
        raise InvalidArgumentError(f"columns must be at least 1, not {columns}")
    _check_side(side)
    across = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    down = math.ceil(len(images) / across)
    step = side + gap
    sheet = Image.new("RGB", (across * step - gap, down * step - gap), _PAPER)
    for index, pixels in enumerate(images):
        picture = _fit(pixels, side)
        row, column = divmod(index, across)
        sheet.paste(
            picture,
            (column * step + (side - picture.width) // 2, row * step + (side - picture.height) // 2),
        )
    return np.array(sheet)


def save_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write ``uint8 (h, w, 1 or 3)`` as PNG, JPEG or WebP, by the suffix of ``path``; folders are made.

    The file appears complete or not at all: it is written under another name beside its place, then renamed.

    Raises:
        InvalidArgumentError: the suffix is none of .png, .jpg, .jpeg, .webp, or the file cannot be written
            there.
    """
    if path.suffix.lower() not in _SAVE:
        raise InvalidArgumentError(
            f"{printable(str(path))}: a picture is written as {', '.join(_SAVE)}, not as "
            f"'{printable(path.suffix)}'; "
            "change the file name"
        )
    kind, options = _SAVE[path.suffix.lower()]
    out = io.BytesIO()
    try:
        _image(pixels).save(out, kind, **options)
        atomic_write(path, out.getvalue())
    except (OSError, ValueError) as error:  # ValueError: too wide or high for this kind of file
        reason = printable(str(error.strerror if isinstance(error, OSError) and error.strerror else error))
        raise InvalidArgumentError(
            f"{printable(str(path))}: cannot write here ({reason}); choose another place or kind"
        ) from error


def _check_side(side: int) -> None:
    if not 32 <= side <= 1024:
        raise InvalidArgumentError(f"side must be 32 to 1024 pixels, not {side}")


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _fit(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """``(h, w, C)`` -> an RGB image whose longer side is ``side``."""
    image = _image(pixels)
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if image.size != size:
        # Lanczos is sharpest for reducing; for small pictures much enlarged it would draw rings around edges.
        image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    return image.convert("RGB")


def _label_width(labels: Sequence[str], layout: _Layout) -> int:
    if not any(labels):
        return 0
    font = _font(layout.text)
    widest = max(math.ceil(font.getlength(_drawable(label))) for label in labels)
    return min(widest, 2 * layout.side) + layout.gap


def _draw_label(draw: ImageDraw.ImageDraw, label: str, layout: _Layout, top: int) -> None:
    font = _font(layout.text)
    text = _cut(label, font, layout.label_width - layout.gap)
    draw.text((layout.margin, top + layout.side // 2), text, _INK, font, anchor="lm")


def _draw_head(draw: ImageDraw.ImageDraw, label: str, layout: _Layout, left: int, first: int) -> None:
    """Above the first row, which begins at ``first``, centred on its column."""
    font = _font(layout.text)
    middle, baseline = left + layout.side // 2, first - round(layout.text * 0.45)
    draw.text((middle, baseline), _cut(label, font, layout.side), _INK, font, anchor="ms")


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, layout: _Layout, left: int, top: int
) -> None:
    side = layout.side
    edge = (left - 1, top - 1, left + side, top + side)
    picture = None if tile.pixels is None else _fit(tile.pixels, side)
    if picture is None or picture.size != (side, side):
        draw.rectangle(edge, _EMPTY)
    if picture is not None:
        sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
    # A hairline keeps white pictures apart from the paper.
    draw.rectangle(edge, outline=_HAIRLINE)
    if tile.accent:
        thick = max(2, side // 40)
        draw.rectangle(
            (left - thick, top - thick, left + side + thick - 1, top + side + thick - 1), None, _ACCENT, thick
        )
    baseline = top + side + round(layout.text * 0.45) + layout.text
    ink = _FADED if tile.faded else _INK
    for text, size, colour in ((tile.caption, layout.text, ink), (tile.subcaption, layout.small, _FADED)):
        if text:
            font = _font(size)
            draw.text((left, baseline), _cut(text, font, side), colour, font, anchor="ls")
            baseline += layout.line


@cache
def _is_drawn(character: str) -> bool:
    """Whether the font has this character; what it lacks, it draws as a box."""
    font = _font(20)
    return bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


def _drawable(text: str) -> str:
    """``text`` on one line in letters the font has: accents it lacks are left off, the rest is ``?``."""
    drawn = []
    for character in unicodedata.normalize("NFC", printable(text[:_LONGEST])):
        plain = unicodedata.normalize("NFKD", character)[0]
        drawn.append(next((c for c in (character, plain) if _is_drawn(c)), "?"))
    return "".join(drawn)


@cache
def _font(size: int) -> _Font:
    """The font that all text is drawn in, so many pixels high."""
    return ImageFont.load_default(size=size)


def _cut(text: str, font: _Font, width: int) -> str:
    """``text`` on one line, ended by an ellipsis where it would be wider than ``width`` pixels."""
    line = _drawable(text)
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"
