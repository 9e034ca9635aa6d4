"""Contact sheets, grids and writing pictures."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import Tile, contact_sheet, decode_rgb, grid, save_image

PHOTOGRAPH: NDArray[np.uint8] = astronaut()  # type: ignore[no-untyped-call]  # scikit-image is half typed
"""Eileen Collins (NASA, public domain), 512x512."""


def plain(colour: tuple[int, ...], height: int = 10, width: int = 10) -> NDArray[np.uint8]:
    return np.full((height, width, len(colour)), colour, np.uint8)


def box_of(sheet: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """left, top, width, height of everything that has this colour."""
    y, x = np.nonzero((sheet == colour).all(axis=2))
    return int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1


def test_tiles_have_their_side_and_stand_in_line() -> None:
    red, blue, green = (250, 0, 0), (0, 0, 250), (0, 250, 0)
    sheet = contact_sheet(
        [[Tile(pixels=plain(red)), Tile(pixels=plain(blue, 300, 300))], [Tile(pixels=plain(green))]]
    )
    assert sheet.dtype == np.uint8
    left, top, *size = box_of(sheet, red)
    assert size == [128, 128]
    assert box_of(sheet, blue)[1:] == (top, 128, 128)
    assert box_of(sheet, green)[0] == left
    assert (sheet[0] == 255).all()
    assert (sheet[:, -1] == 255).all()
    assert sheet.shape[1] - left == box_of(sheet, blue)[0] + 128  # the same margin on both sides


@pytest.mark.parametrize(("height", "width"), [(40, 10), (10, 40), (1, 3000), (3000, 1)])
def test_pictures_that_are_not_square_are_fitted_in(height: int, width: int) -> None:
    colour = (250, 0, 0)
    sheet = contact_sheet([[Tile(pixels=plain(colour, height, width))]], side=64)
    _, _, across, down = box_of(sheet, colour)
    assert max(across, down) == 64
    assert (across > down) == (width > height)


def test_grey_pictures_stay_grey() -> None:
    sheet = contact_sheet([[Tile(pixels=plain((77,)))]])
    assert box_of(sheet, (77, 77, 77))[2:] == (128, 128)


def test_captions_take_room_only_where_there_are_any() -> None:
    def height(**text: str) -> int:
        return int(contact_sheet([[Tile(pixels=plain((9, 9, 9)), **text)]]).shape[0])  # type: ignore[arg-type] # text only

    assert (
        height() < height(caption="one") == height(subcaption="one") < height(caption="one", subcaption="two")
    )
    assert height(subcaption="one\ntwo") == height(caption="one", subcaption="two")
    assert height(caption="one", subcaption="two\nthree") > height(caption="one", subcaption="two")


@pytest.mark.parametrize(
    "caption", ["x" * 5000, "a_b_" * 40, "line\nbreak\x1b" * 30, "\udcff" * 50, "σ中文字" * 30, "W" * 40]
)
def test_captions_stay_below_their_tile(caption: str) -> None:
    sheet = contact_sheet([[Tile(pixels=None, caption=caption), Tile(pixels=None)]], side=100)
    tile = sheet[:-10, :, :]
    dark = np.nonzero((tile < 120).all(axis=2))
    assert dark[1].size > 0
    assert dark[1].min() >= 15
    assert dark[1].max() <= 19 + 100 + 1
    assert dark[0].min() > 100


def test_a_missing_picture_is_a_pale_box() -> None:
    sheet = contact_sheet([[Tile(pixels=None, caption="gone")]], side=64)
    values, counts = np.unique(sheet[20:80, 20:80].reshape(-1, 3), axis=0, return_counts=True)
    assert 230 < values[counts.argmax()].min() < 255


def test_the_accent_is_a_frame_around_the_picture() -> None:
    colour = (200, 200, 0)
    framed = contact_sheet([[Tile(pixels=plain(colour), accent=True)]])
    assert framed.shape == contact_sheet([[Tile(pixels=plain(colour))]]).shape
    left, top, across, down = box_of(framed, colour)
    assert (across, down) == (128, 128)
    assert (
        len(
            {
                tuple(framed[top + 64, left - 1]),
                tuple(framed[top - 1, left]),
                tuple(framed[top + 64, left + 128]),
            }
        )
        == 1
    )
    assert tuple(framed[top + 64, left - 1]) != (255, 255, 255)


def test_title_and_labels_make_the_sheet_larger() -> None:
    rows = [[Tile(pixels=plain((9, 9, 9)))]] * 2
    bare = contact_sheet(rows)
    titled = contact_sheet(rows, title="A title that is far wider than the sheet itself, so it has to be cut")
    labelled = contact_sheet(rows, row_labels=["original", "cleaned"])
    assert titled.shape[0] > bare.shape[0]
    assert titled.shape[1] == bare.shape[1]
    assert labelled.shape[0] == bare.shape[0]
    assert labelled.shape[1] > bare.shape[1]
    assert contact_sheet(rows, row_labels=["", ""]).shape == bare.shape


def test_column_labels_stand_above_their_columns() -> None:
    rows = [[Tile(pixels=plain((250, 0, 0))), Tile(pixels=plain((0, 0, 250)))]] * 2
    bare = contact_sheet(rows, title="classes")
    headed = contact_sheet(rows, title="classes", column_labels=["0", "a name that is far too wide for it"])
    assert headed.shape[0] > bare.shape[0]
    assert headed.shape[1] == bare.shape[1]
    assert contact_sheet(rows, title="classes", column_labels=["", ""]).shape == bare.shape
    for colour in ((250, 0, 0), (0, 0, 250)):
        left, top, across, _ = box_of(headed, colour)
        grown = headed.shape[0] - bare.shape[0]
        dark = np.nonzero((headed[top - grown : top - 1, left : left + across] < 120).all(axis=2))
        assert dark[0].size > 0
        assert abs((dark[1].min() + dark[1].max()) / 2 - across / 2) < 12
    # Nothing is drawn between the columns.
    gap = headed[:, box_of(headed, (250, 0, 0))[0] + 130 : box_of(headed, (0, 0, 250))[0] - 2]
    assert (gap[top - grown :] > 200).all()


def test_sheets_that_cannot_be() -> None:
    tile = Tile(pixels=plain((9, 9, 9)))
    empty: list[list[list[Tile]]] = [[], [[]]]
    for rows in empty:
        with pytest.raises(InvalidArgumentError, match="at least one tile"):
            contact_sheet(rows)
    with pytest.raises(InvalidArgumentError, match=r"row_labels must be as many as rows \(2\), got 1"):
        contact_sheet([[tile], [tile]], row_labels=["a"])
    with pytest.raises(InvalidArgumentError, match=r"column_labels must be as many as columns \(2\), got 1"):
        contact_sheet([[tile], [tile, tile]], column_labels=["a"])
    with pytest.raises(InvalidArgumentError, match="side must be 32 to 1024 pixels, not 31"):
        contact_sheet([[tile]], side=31)


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [
        (1, None, (1, 1)),
        (4, None, (2, 2)),
        (5, None, (2, 3)),
        (16, None, (4, 4)),
        (3, 8, (1, 3)),
        (10, 4, (3, 4)),
    ],
)
def test_grids(count: int, columns: int | None, shape: tuple[int, int]) -> None:
    sheet = grid([plain((9,), 28, 28)] * count, columns=columns, side=40, gap=3)
    assert sheet.shape == (shape[0] * 43 - 3, shape[1] * 43 - 3, 3)
    assert (sheet == 9).all(axis=2).sum() == count * 40 * 40


def test_grids_that_cannot_be() -> None:
    with pytest.raises(InvalidArgumentError, match="at least one image"):
        grid([])
    with pytest.raises(InvalidArgumentError, match="columns must be at least 1, not 0"):
        grid([plain((9,))], columns=0)


@pytest.mark.parametrize(
    ("name", "error"), [("a.png", 0), ("a.PNG", 0), ("a.jpg", 3), ("a.jpeg", 3), ("a.webp", 6)]
)
def test_pictures_are_written_by_suffix(tmp_path: Path, name: str, error: float) -> None:
    pixels = PHOTOGRAPH
    path = tmp_path / "new" / "folder" / name
    for _ in range(2):  # the second time over the first
        save_image(path, pixels)
    assert [each.name for each in path.parent.iterdir()] == [name]
    assert np.abs(decode_rgb(path.read_bytes(), name=name).astype(int) - pixels).mean() <= error
    save_image(path, pixels[:, :, :1])
    with Image.open(path) as image:
        assert image.size == (512, 512)


@pytest.mark.parametrize("name", ["a.gif", "a.tiff", "a", "a.png.pdf", "a.\n"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"an image is saved as \.png, \.jpg, \.jpeg, \.webp"
    ) as caught:
        save_image(tmp_path / name, plain((9, 9, 9)))
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    occupied = tmp_path / "taken.png"
    occupied.mkdir()
    with pytest.raises(InvalidArgumentError, match="cannot write here"):
        save_image(occupied, plain((9, 9, 9)))
    with pytest.raises(InvalidArgumentError, match="cannot write here"):  # WebP ends at 16383 pixels
        save_image(tmp_path / "wide.webp", plain((9,), 8, 20000))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidArgumentError, match="cannot write here"):
        save_image(tmp_path / "file" / "a.png", plain((9, 9, 9)))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "taken.png"]


def test_the_box_of_a_missing_image_says_so() -> None:
    missing = contact_sheet([[Tile(pixels=None)]])
    pale = contact_sheet([[Tile(pixels=np.full((128, 128, 3), (243, 244, 246), np.uint8))]])
    assert missing.shape == pale.shape
    assert (missing != pale).any(axis=2).sum() > 50
