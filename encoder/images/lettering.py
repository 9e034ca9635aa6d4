"""Text on pictures: one line that fits, in letters that the font has."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final

from PIL import ImageFont

from lookalike.encoder.images.decode import printable

__all__ = ["cut", "drawable", "font_of"]

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_LONGEST: Final = 300  # characters looked at in a caption; more never fit


@cache
def _is_drawn(character: str) -> bool:
    """Whether the font has this character; what it lacks, it draws as a box."""
    font = font_of(20)
    return bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


def drawable(text: str) -> str:
    """``text`` on one line in letters the font has: accents it lacks are left off, the rest is ``?``."""
    drawn = []
    for character in unicodedata.normalize("NFC", printable(text[:_LONGEST])):
        plain = unicodedata.normalize("NFKD", character)[0]
        drawn.append(next((c for c in (character, plain) if _is_drawn(c)), "?"))
    return "".join(drawn)


@cache
def font_of(size: int) -> _Font:
    """The font that all text is drawn in, so many pixels high."""
    return ImageFont.load_default(size=size)


def cut(text: str, font: _Font, width: int) -> str:
    """``text`` on one line, ended by an ellipsis where it would be wider than ``width`` pixels."""
    line = drawable(text)
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"
