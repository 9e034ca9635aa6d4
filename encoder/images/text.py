"""Text of one line on an image, in fonts that have its characters.

Pillow's own font is used where it has all of a text, else DejaVu Sans, which is shipped (Latin, Greek,
Cyrillic, Armenian, Georgian, Hebrew), else what the system has, such as a font for Chinese or Thai. A
character that no font has is drawn as its code point: ``U+5C71``.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final, Literal

from PIL import ImageDraw, ImageFont

from lookalike.encoder.errors import printable

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Color = tuple[int, int, int]

_LONGEST: Final = 300
"""Characters of a text that are looked at; more never fit."""
_PROBE: Final = 20
"""Size in pixels at which a font is asked for a character."""
_SHIPPED: Final = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
_NO_CHARACTER: Final = "\uffff"
_ELLIPSIS: Final = "…"
# Fonts of many scripts, or of those with many characters; not the bold, slanted and narrow ones among them.
_WIDE: Final = re.compile(
    r"(noto ?sans|dejavusans|droidsansfallback|sourcehan|wqy|unifont|arial ?unicode|arialuni|ipag|takao"
    r"|vlgothic|pingfang|hiragino|stheiti|applesdgothic|applegothic|thonburi|kohinoor|geeza"
    r"|msyh|msgothic|meiryo|yugoth|malgun|simsun|leelawui|nirmala|segoeui|tahoma|freesans|unbatang|nanumgothic)",
    re.IGNORECASE,
)
_STYLED: Final = re.compile(r"bold|black|thin|italic|oblique|condensed|mono|extralight|medium", re.IGNORECASE)
_SUFFIXES: Final = (".ttf", ".ttc", ".otf", ".otc")
_MAX_FONTS: Final = 300


@dataclass(frozen=True, slots=True)
class Line:
    """A text of one line, as it is drawn.

    Attributes:
        runs: Its parts: the number of a font, and characters that this font has.
        size: Height of the fonts in pixels.
    """

    runs: tuple[tuple[int, str], ...]
    size: int

    @classmethod
    def of(cls, text: str, size: int, *, width: float | None = None) -> Line:
        """Return a text as a line, cut with an ellipsis where it is wider than ``width`` pixels."""
        line = cls(tuple(_runs(_characters(text))), size)
        if width is None or line.width <= width:
            return line
        flat = [(font, character) for font, part in line.runs for character in part]

        def cut(count: int) -> Line:
            return cls((*_joined(flat[:count]), (0, _ELLIPSIS)), size)

        return cut(bisect_right(range(1, len(flat)), width, key=lambda count: cut(count).width))

    @property
    def width(self) -> float:
        """Its width in pixels."""
        return float(sum(_font(font, self.size).getlength(part) for font, part in self.runs))

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        at: tuple[float, float],
        color: _Color,
        *,
        anchor: Literal["lt", "lm", "ls", "ms"],
    ) -> None:
        """Draw it.

        Args:
            draw: On what.
            at: The point that ``anchor`` names.
            color: Of the text.
            anchor: As Pillow has it: left or middle; top, middle or baseline.
        """
        x, y = at
        if len(self.runs) > 1:  # all on the baseline of the first
            _, top, _, bottom = _font(self.runs[0][0], self.size).getbbox("Hg", anchor="ls")
            y -= {"t": top, "m": (top + bottom) / 2, "s": 0}[anchor[1]]
            x -= self.width / 2 if anchor[0] == "m" else 0
            anchor = "ls"
        for font, part in self.runs:
            draw.text((x, y), part, color, _font(font, self.size), anchor=anchor)
            x += _font(font, self.size).getlength(part)


def _joined(flat: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield runs of characters in one font; the last without spaces behind it."""
    runs = [(font, "".join(each for _, each in group)) for font, group in groupby(flat, key=itemgetter(0))]
    if runs:
        yield from runs[:-1]
        yield runs[-1][0], runs[-1][1].rstrip()


def _characters(text: str) -> str:
    """Return a text on one line; characters that no font has, such as wide letters, as similar ones."""
    return "".join(map(_known, unicodedata.normalize("NFC", printable(text[:_LONGEST]))))


def _known(character: str) -> str:
    if _has(0, character) or _font_with(character) is not None:
        return character
    similar = unicodedata.normalize("NFKC", character)
    return similar if all(_font_with(each) is not None for each in similar) else character


def _runs(text: str) -> Iterator[tuple[int, str]]:
    """Yield parts of a text with the number of the font that has each; one part where one font has all."""
    for font in (0, 1):
        if all(_has(font, character) for character in text):
            if text:
                yield font, text
            return
    for found, group in groupby(_with_fonts(text), key=itemgetter(0)):
        part = "".join(character for _, character in group)
        if found is not None:
            yield found, part
        else:
            yield 0, " ".join(f"U+{ord(character):04X}" for character in part)


def _with_fonts(text: str) -> Iterator[tuple[int | None, str]]:
    """Yield each character and the number of its font; a mark has that of the letter it stands on."""
    font: int | None = 0
    for character in text:
        is_mark = unicodedata.category(character).startswith("M")
        if not (is_mark and (font is None or _has(font, character))):
            font = _font_with(character)
        yield font, character


@cache
def _font_with(character: str) -> int | None:
    """Return the number of a font that has a character; None if there is none."""
    fonts = range(2 + len(_system_fonts()))
    # The shipped one goes first: Pillow's has not all of the text, and a word looks best in one font.
    return next((font for font in (1, 0, *fonts[2:]) if _has(font, character)), None)


@cache
def _has(font: int, character: str) -> bool:
    """Whether a font has a character; it draws a box for those it has not."""
    opened = _font(font, _PROBE)
    return bytes(opened.getmask(character)) != bytes(opened.getmask(_NO_CHARACTER))


@cache
def _font(number: int, size: int) -> _Font:
    """Return a font: 0 is Pillow's, 1 the shipped one, further ones the system's."""
    if number == 0:
        return ImageFont.load_default(size=size)
    return ImageFont.truetype(_SHIPPED if number == 1 else _system_fonts()[number - 2], size)


@cache
def _system_fonts() -> tuple[str, ...]:
    """Return fonts of the system that have many characters and can be opened."""
    found: list[str] = []
    for folder in _font_folders():
        for here, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)  # noqa: PTH122
                if suffix.lower() in _SUFFIXES and _WIDE.match(stem) and not _STYLED.search(stem):
                    found.append(os.path.join(here, name))  # noqa: PTH118
    return tuple(filter(_opens, found[:_MAX_FONTS]))


def _font_folders() -> list[str]:
    home = Path.home() if "HOME" in os.environ or sys.platform == "win32" else Path()
    if sys.platform == "win32":
        return [os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts")]  # noqa: PTH118
    if sys.platform == "darwin":
        return ["/System/Library/Fonts", "/Library/Fonts", str(home / "Library/Fonts")]
    data = os.environ.get("XDG_DATA_HOME", str(home / ".local/share"))
    return ["/usr/share/fonts", "/usr/local/share/fonts", f"{data}/fonts", str(home / ".fonts")]


def _opens(file: str) -> bool:
    try:
        ImageFont.truetype(file, _PROBE).getmask("a")
    except (OSError, ValueError):  # damaged, or of a kind that FreeType does not know
        return False
    return True
