"""``lookalike map``, and pictures that are not where they were indexed."""

import json
from pathlib import Path

import pytest

from lookalike.encoder.images import decode_rgb
from tests.fixtures.command import lookalike
from tests.fixtures.photos import photograph

MAP = ("map", "--method", "pca", "--out")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in (1, 1, 4, 6, 9):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photograph(number))
    (tmp_path / "photos" / "copy.jpg").write_bytes(photograph(1))
    assert lookalike("index", "photos", "--crop", "full", "-c", "family", cwd=tmp_path).returncode == 0
    return tmp_path


def test_a_map_as_a_page_an_image_and_json(home: Path) -> None:
    done = lookalike(*MAP, "map.html", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 5
    assert all(Path(row["file"]).is_file() and 0 <= row["x"] <= 1 and 0 <= row["y"] <= 1 for row in rows)
    assert done.stderr.splitlines()[-2:] == [
        "family: 5 images placed by two principal components",
        "page written: map.html",
    ]
    again = lookalike(*MAP, "map.png", "--json", cwd=home)
    assert json.loads(again.stdout) == rows
    assert decode_rgb((home / "map.png").read_bytes(), name="").shape == (2000, 2000, 3)
    fewer = lookalike(*MAP, "map.html", "--count", "3", cwd=home)
    assert "3 of 5 images chosen at random" in fewer.stderr
    assert lookalike(*MAP, "map.txt", cwd=home).returncode == 2


SHOWN = [
    ("search", "me.jpg", "--sheet", "out.png"),
    ("duplicates", "--sheet", "out.png"),
    ("cluster", "--threshold", "0.9", "--sheet", "out.png"),
    (*MAP, "out.png"),
    (*MAP, "out.html"),
]


@pytest.mark.parametrize("words", SHOWN)
def test_pictures_that_have_moved_are_named_with_the_way_out(home: Path, words: tuple[str, ...]) -> None:
    (home / "me.jpg").write_bytes(photograph(1))
    here = lookalike(*words, cwd=home)
    assert (here.returncode, "not where" in here.stderr) == (0, False), here.stderr
    before = (home / words[-1]).read_bytes()
    (home / "photos").rename(home / "elsewhere")
    done = lookalike(*words, cwd=home)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "not where they were indexed" in line)
    assert str(home / "photos") in line
    assert (home / words[-1]).read_bytes() != before
    # The way out works.
    way = line.split("says: ")[1].replace("FOLDER", "elsewhere").split()
    assert lookalike(*way[1:], cwd=home).returncode == 0
    assert "not where" not in lookalike(*words, cwd=home).stderr
    assert (home / words[-1]).read_bytes() == before
