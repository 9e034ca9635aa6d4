"""Names of any script on a sheet: in a font that has them, or as code points; never as question marks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lookalike.encoder.images import Tile, contact_sheet, text
from lookalike.encoder.images.text import Line

CACHED = ("_font_with", "_has", "_font", "_system_fonts")


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system with no fonts but those in this folder."""
    folder = tmp_path / "fonts" / "some" / "where"
    folder.mkdir(parents=True)
    monkeypatch.setattr(text, "_font_folders", lambda: [str(tmp_path / "fonts")])
    for name in CACHED:
        getattr(text, name).cache_clear()
    yield folder
    for name in CACHED:
        getattr(text, name).cache_clear()


def make_font(file: Path, characters: str) -> None:
    """A font in which each of the characters is a filled square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *(f"u{ord(character):04X}" for character in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): f"u{ord(character):04X}" for character in characters})
    builder.setupGlyf({name: square if name != ".notdef" else TTGlyphPen(None).glyph() for name in names})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)


def written(line: Line) -> str:
    return "".join(part for _, part in line.runs)


NAMES = {
    "Latin": "Ñandú Åse Łukasz Ğül Œdipe ß Þór Nguyễn Thị Đặng",
    "Greek": "Ελένη Παππά Ἀθηνᾶ",
    "Cyrillic": "Анна Иванова Ђорђе Ґалина",
    "Armenian": "Անահիտ",
    "Georgian": "ნინო",
    "Hebrew": "שרה",
    "plain": "Ada Lovelace 0.42 …",
}


@pytest.mark.parametrize("script", NAMES)
def test_shipped_fonts_have_names_of_these_scripts(script: str, fonts: Path) -> None:
    assert written(Line.of(NAMES[script], 14)) == NAMES[script]
    assert len(Line.of(NAMES[script], 14).runs) == 1  # in one font


def test_every_letter_of_latin_greek_and_cyrillic_is_in_the_shipped_font(fonts: Path) -> None:
    blocks = [(0x00A1, 0x024F), (0x0400, 0x0525), (0x1E00, 0x1EF9)]
    letters = [chr(code) for first, last in blocks for code in range(first, last + 1)]
    greek = [chr(code) for code in range(0x0370, 0x03FF)]
    letters += [letter for letter in greek if letter.isalpha() and letter not in "ͰͱͲͳͶͷͿϏ"]  # archaic
    missing = [letter for letter in letters if letter.isalpha() and not text._has(1, letter)]
    assert missing == []


def picture(line: Line) -> NDArray[np.uint8]:
    image = Image.new("L", (400, 40))
    line.draw(ImageDraw.Draw(image), (5, 30), 255, anchor="ls")  # type: ignore[arg-type]  # one channel
    return np.asarray(image)


def test_a_letter_keeps_its_accent_and_looks_as_the_font_draws_it(fonts: Path) -> None:
    assert not np.array_equal(picture(Line.of("Ñ", 20)), picture(Line.of("N", 20)))
    font = ImageFont.truetype(Path(text.__file__).parent / "fonts" / "DejaVuSans.ttf", 20)
    expected = Image.new("L", (400, 40))
    ImageDraw.Draw(expected).text((5, 30), "Анна", 255, font, anchor="ls")
    np.testing.assert_array_equal(picture(Line.of("Анна", 20)), np.asarray(expected))


def test_what_no_font_has_is_told_by_its_code_points(fonts: Path) -> None:
    assert written(Line.of("山田", 14)) == "U+5C71 U+7530"
    assert written(Line.of("Ada 山田!", 14)) == "Ada U+5C71 U+7530!"
    assert written(Line.of("สี", 14)) == "U+0E2A U+0E35"  # the mark is not drawn on something else
    assert written(Line.of("\uff21\uff22", 14)) == "AB"  # wide letters
    assert "?" not in written(Line.of("山\udcff\x1b\n🦆", 14))
    assert written(Line.of("why?", 14)) == "why?"


def test_fonts_of_the_system_are_found(fonts: Path) -> None:
    make_font(fonts / "NotoSansCJK-Regular.ttf", "山 ")
    make_font(fonts / "NotoSansThai-Bold.ttf", "ส")  # bold is not for captions
    (fonts / "NotoSansBroken.ttf").write_bytes(b"no font")
    make_font(fonts / "Decoration.ttf", "田")
    assert text._system_fonts() == (str(fonts / "NotoSansCJK-Regular.ttf"),)
    assert Line.of("Ada 山田ส", 14).runs == ((1, "Ada "), (2, "山"), (0, "U+7530 U+0E2A"))
    filled = picture(Line.of("山", 20)) > 128
    assert 14 * 14 < filled.sum() < 18 * 18  # the square of the test's font


@pytest.mark.parametrize("name", [*NAMES.values(), "山田太郎" * 30, "Ada 山" * 30, "Ж" * 400, ""])
def test_a_line_is_cut_to_its_width(name: str, fonts: Path) -> None:
    make_font(fonts / "NotoSansJP.ttf", "山")
    whole = Line.of(name, 14)
    for width in (10, 60, 100, 101, 5000):
        line = Line.of(name, 14, width=width)
        if whole.width <= width:
            assert line == whole
        else:
            assert written(line).endswith("…")
            assert line.width <= width or written(line) == "…"


def test_parts_in_several_fonts_stand_on_one_line_in_every_place(fonts: Path) -> None:
    def sheet(name: str) -> NDArray[np.uint8]:
        tiles = [[Tile(pixels=None, caption=name, subcaption=name)]]
        return contact_sheet(tiles, title=name, row_labels=[name], column_labels=[name], side=300)

    def lines(name: str) -> NDArray[np.intp]:
        return np.unique(np.nonzero((sheet(name) < 120).all(axis=2))[0])

    assert sheet("Hg山Hg").shape[0] == sheet("HgHg").shape[0]
    mixed, plain = lines("Hg山Hg"), lines("HgHg")
    assert abs(int(mixed[0]) - int(plain[0])) <= 3  # the title
    assert abs(int(mixed[-1]) - int(plain[-1])) <= 3  # the last line
