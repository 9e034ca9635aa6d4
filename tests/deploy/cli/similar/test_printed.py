"""What ``lookalike search`` prints: files that can be opened, as a table, CSV, JSON or paths."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from tests.fixtures.command import lookalike
from tests.fixtures.photos import photograph


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs, one with a comma and quotes in its name, and a collection of them."""
    home = tmp_path_factory.mktemp("home")
    (home / "photos" / "Ada").mkdir(parents=True)
    for number, name in enumerate(['a "b", c.jpg', "Ada/1.jpg", "Ada/2.jpg", "ä.jpg"]):
        (home / "photos" / name).write_bytes(photograph(number))
    done = lookalike("index", "photos", "--collection", "c", cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def found(home: Path, *words: str, cwd: Path | None = None) -> str:
    query = home / "photos" / "Ada" / "1.jpg"
    done = lookalike("search", query, "--store", home / ".lookalike", *words, cwd=cwd or home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_names_files_as_one_does_here(home: Path, tmp_path: Path) -> None:
    lines = found(home).splitlines()[1:]
    assert lines[0].endswith(f"  {Path('photos', 'Ada', '1.jpg')}")
    inside = found(home, cwd=home / "photos").splitlines()[1]
    assert inside.endswith(f"  {Path('Ada', '1.jpg')}")
    outside = found(home, cwd=tmp_path).splitlines()[1]
    assert outside.endswith(f"  {home / 'photos' / 'Ada' / '1.jpg'}")


def test_json_names_the_absolute_file(home: Path) -> None:
    (answer,) = json.loads(found(home, "--json"))
    for result in answer["results"]:
        assert Path(result["file"]) == home / "photos" / result["path"]


def test_csv_is_read_back(home: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(found(home, "--csv"))))
    assert len(rows) == 4
    assert {row["path"] for row in rows} == {'a "b", c.jpg', "Ada/1.jpg", "Ada/2.jpg", "ä.jpg"}
    assert (rows[0]["rank"], rows[0]["verdict"], rows[0]["person"]) == ("1", "same file", "Ada")
    assert float(rows[0]["score"]) == pytest.approx(1, abs=1e-4)
    assert all(Path(row["file"]).is_file() for row in rows)


@pytest.mark.parametrize(
    ("words", "end"), [(["--paths"], "\n"), (["-0"], "\0"), (["--paths", "--null"], "\0")]
)
def test_paths_for_the_next_program(home: Path, words: list[str], end: str) -> None:
    text = found(home, *words, "-n", "3")
    assert text.endswith(end)
    files = text.split(end)[:-1]
    assert files[0] == str(home / "photos" / "Ada" / "1.jpg")
    assert len(files) == len({os.fsdecode(file) for file in files if Path(file).is_file()}) == 3


def test_a_file_that_is_gone_is_left_out_of_the_paths(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photograph(number))
    lookalike("index", "photos", "--collection", "c", cwd=tmp_path)
    (tmp_path / "photos" / "1.jpg").unlink()
    done = lookalike("search", "photos/0.jpg", "--paths", cwd=tmp_path)
    assert {Path(line).name for line in done.stdout.splitlines()} == {"0.jpg", "2.jpg"}
    assert "1 files left out" in done.stderr


@pytest.mark.parametrize("words", [["--json", "--csv"], ["--csv", "--paths"], ["--json", "-0"]])
def test_one_form_at_a_time(home: Path, words: list[str]) -> None:
    done = lookalike("search", "photos/Ada/1.jpg", *words, cwd=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert "choose one" in done.stderr
