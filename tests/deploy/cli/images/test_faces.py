"""``lookalike faces``: what it lists, writes and says, and how it ends."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.detect import LFW_FRAME, face_finder
from lookalike.searcher.faces import FaceCut
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.face_photos import group, no_face, without_extra, write


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ with a group, a single face in a folder, a picture without a face, and notes."""
    home = tmp_path_factory.mktemp("home")
    write(home / "photos" / "group.png", group(2))
    write(home / "photos" / "Ada" / "ada.png", group(1))
    write(home / "photos" / "wall.png", no_face())
    (home / "photos" / "notes.txt").write_text("no picture")
    (home / "bad.jpg").write_bytes(b"no picture")
    return home


def test_it_lists_faces_from_the_left_and_counts_photographs_without_one(home: Path) -> None:
    done = lookalike("faces", "photos", "bad.jpg", cwd=home)
    assert done.returncode == 3
    both, first, second, wall, ada, face = done.stdout.splitlines()
    assert ada == "Ada/ada.png  256x256  1 face"
    assert both == "group.png  512x256  2 faces"
    assert wall == "wall.png  160x120  no face"
    assert face.split()[:2] == ["1", "box"]
    x, y, across, down = map(int, face.split()[2].split(","))
    assert 60 < x < 110
    assert 50 < y < 80
    assert 70 < across < 110
    assert 90 < down < 130
    assert face.split()[3:6] == [str(across), "px", "wide"]
    lefts = [int(line.split()[2].split(",")[0]) for line in (first, second)]
    assert lefts == pytest.approx([x, x + 256], abs=2)
    failed, summary, skipped = done.stderr.splitlines()
    assert failed.startswith("failed: bad.jpg: not an image")
    assert summary.startswith("3 photographs: 3 faces, 1 without a face, 1 failed; ")
    assert "1 .txt" in skipped


def test_json_has_a_line_for_each_photograph(home: Path) -> None:
    done = lookalike("faces", "photos", "bad.jpg", "--json", "--exclude", "wall*", cwd=home)
    assert done.returncode == 3
    both, ada, bad = map(json.loads, done.stdout.splitlines())
    assert (ada["path"], ada["width"], ada["height"]) == ("Ada/ada.png", 256, 256)
    expected = face_finder().find(group(2))
    assert both["faces"] == [face.to_json() for face in expected]
    assert all(0 <= value <= 1 for face in both["faces"] for point in face["landmarks"] for value in point)
    assert bad.keys() == {"path", "error"}


def test_faces_are_written_upright_at_their_place(home: Path, tmp_path: Path) -> None:
    done = lookalike("faces", "photos", "--out", f"{tmp_path}/", "--size", "90", "--margin", "0", cwd=home)
    assert done.returncode == 0, done.stderr
    names = ["group-1.png", "group-2.png", "Ada/ada-1.png"]
    assert done.stdout.splitlines() == [str(tmp_path / name) for name in names]
    pixels = group(2)
    cut = FaceCut(size=90, frame=LFW_FRAME, margin=0)(pixels, face_finder().find(pixels))
    for image, name in zip(cut, names[:2], strict=True):
        with Image.open(tmp_path / name) as written:
            assert np.array_equal(np.asarray(written), image)
    again = lookalike("faces", "photos", "--out", f"{tmp_path}/", "--size", "90", "--margin", "0", cwd=home)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    other = lookalike("faces", "photos", "--out", f"{tmp_path}/", "--frame", "arcface", "--json", cwd=home)
    assert other.returncode == 3
    assert "group-1.png exists and is another picture; name another --out, or delete it" in other.stderr


def test_a_sheet_is_drawn_beside_the_list(home: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = lookalike("faces", "photos/group.png", "--sheet", sheet, cwd=home)
    assert done.returncode == 0
    assert done.stdout.startswith("photos/group.png  512x256  2 faces\n")
    assert f"image written: {sheet}" in done.stderr
    with Image.open(sheet) as image:
        assert image.width > 3 * 224
    done = lookalike("faces", "bad.jpg", "--sheet", tmp_path / "none.png", cwd=home)
    assert done.returncode == 1
    assert f"no photograph was read, so {tmp_path / 'none.png'} was not written" in done.stderr
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "name a source"),
        (("photos", "--root", "."), 2, "--root works only with --files-from"),
        (("photos", "--out", "photos"), 2, "is a source itself"),
        (("photos", "--out", "bad.jpg"), 2, "--out is a folder, bad.jpg is a file"),
        (("photos", "--threshold", "0.05"), 2, "0.05 is not in the range"),
        (("photos", "--threshold", "1"), 2, "not in the range"),
        (("photos", "--frame", "square"), 2, "cannot read 'square'; write lfw, arcface or x,y"),
        (("photos", "--frame", "1,2,3"), 2, "five landmarks have ten numbers"),
        (("nowhere",), 1, "'nowhere' does not exist"),
    ],
)
def test_what_cannot_be_is_told(home: Path, words: tuple[str, ...], code: int, message: str) -> None:
    done = lookalike("faces", *words, cwd=home)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]


def test_a_list_of_files_and_large_photographs(home: Path) -> None:
    done = lookalike("faces", "--files-from", "-", "--json", cwd=home, stdin=b"photos/group.png\n")
    assert json.loads(done.stdout)["path"] == "group.png"
    done = lookalike("faces", "photos/group.png", "--max-pixels", "1000", cwd=home)
    assert done.returncode == 1
    assert "above the limit of 1000; shrink the image or raise --max-pixels" in done.stderr


def test_without_the_extra_one_line_says_what_to_install(home: Path) -> None:
    with without_extra():
        done = lookalike("faces", "photos", cwd=home)
    assert done.returncode == 1
    assert one_line(done).endswith("pip install 'lookalike[faces]'")
