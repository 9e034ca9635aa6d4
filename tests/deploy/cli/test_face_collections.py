"""Collections of faces from the command line: filled, listed, checked and searched with whole photographs."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fixtures.command import Done, lookalike, one_line
from tests.fixtures.face_pictures import write_picture

LOOKS = {"Ada/one.png": (0,), "none.png": (), "three.png": (1, 8, 11)}
FACES = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/, and a collection of its faces. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    for name, looks in LOOKS.items():
        write_picture(home / "photos" / name, looks)
    first = lookalike("index", "photos", "--faces", "--collection", "c", cwd=home)
    assert first.returncode == 0, first.stderr
    assert "4 faces found, 1 pictures without a face" in first.stderr
    return home


def search(home: Path, *words: str | Path) -> Done:
    return lookalike("search", *words, "--collection", "c", cwd=home)


def answers(home: Path, *words: str | Path) -> list[dict[str, Any]]:
    done = search(home, *words, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("words", [[], ["--faces", "--face-threshold", "0.8"]])
def test_a_second_run_changes_nothing(home: Path, words: list[str]) -> None:
    again = lookalike("index", "photos", *words, "--collection", "c", "--json", cwd=home)
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert (report["unchanged"], report["added"], report["changed"]) == (3, 0, 0)


@pytest.mark.parametrize(
    "words", [["--crop", "full"], ["--faces", "--face-threshold", "0.7"], ["--model", "digits"]]
)
def test_a_collection_of_faces_refuses_what_does_not_fit(home: Path, words: list[str]) -> None:
    done = lookalike("index", "photos", *words, "--collection", "c", cwd=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert "another collection" in done.stderr.splitlines()[-1]


def test_the_main_face_one_by_number_or_each(home: Path) -> None:
    three = Path("photos", "three.png")
    (main,) = answers(home, three, "-n", "1")
    assert main["face"]["count"] == 3
    assert main["results"][0]["payload"]["face"]["number"] == main["face"]["number"]
    (one,) = answers(home, three, "-n", "1", "--face", "2")
    assert one["face"]["number"] == one["results"][0]["payload"]["face"]["number"] == 2
    every = answers(home, three, Path("photos", "Ada", "one.png"), "-n", "2", "--all-faces")
    assert [(each["face"]["number"], each["face"]["count"]) for each in every] == [
        (1, 3), (2, 3), (3, 3), (1, 1),
    ]  # fmt: skip
    assert [each["results"][0]["path"] for each in every] == ["three.png"] * 3 + ["Ada/one.png"]


def test_the_table_says_which_face(home: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = search(home, "photos/three.png", "-n", "1", "--face", "2", "--sheet", sheet)
    assert done.returncode == 0
    query, hit = done.stdout.splitlines()
    assert query.startswith("photos/three.png  face 2 of 3, from the left  (")
    assert hit.endswith("three.png  face 2 of 3")
    with Image.open(sheet) as image:
        assert image.width > 256
    (line,) = search(home, "photos/Ada/one.png", "-n", "1", "--where", "person=Ada").stdout.splitlines()[1:]
    assert line.endswith(f"Ada  {Path('photos', 'Ada', 'one.png')}")


def test_another_face_of_the_same_picture_is_not_the_same_file(home: Path) -> None:
    (answer,) = answers(home, Path("photos", "three.png"), "--face", "2")
    same = {
        hit["payload"]["face"]["number"]: hit["same_file"]
        for hit in answer["results"]
        if hit["path"] == "three.png"
    }
    assert same == {1: False, 2: True, 3: False}


def test_a_query_without_a_face_fails_alone_and_says_what_to_do(home: Path) -> None:
    none = search(home, "photos/none.png")
    assert none.returncode == 1
    assert one_line(none) == (
        "failed: photos/none.png: no face was found; pass --crop full (or --crop X,Y,W,H) to use it as it is"
    )
    both = search(home, "photos/none.png", "photos/three.png", "--all-faces", "--json")
    assert both.returncode == 3
    assert [each.get("error") is None for each in json.loads(both.stdout)] == [False, True, True, True]
    assert search(home, "photos/none.png", "--crop", "full", "-n", "1").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--face", "1", "--all-faces"], "--face and --all-faces exclude each other"),
        (["--face", "0"], "0 is not in the range"),
        (["--faces", "--crop", "full"], "--crop does not work with --faces"),
        (["--face", "1", "--crop", "full"], "--crop does not work with --faces"),
        (["--all-faces", "--like", "photos/three.png"], "--all-faces does not work with --like"),
    ],
)
def test_options_that_contradict_each_other_are_usage_errors(
    home: Path, words: list[str], message: str
) -> None:
    done = search(home, "photos/three.png", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]


def test_queries_with_an_attribute_and_examples(home: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ("photos/three.png", "--face", "2", "--add", "Smiling=1", "-n", "1", "--sheet", sheet)
    (added,) = answers(home, *words)
    (plain,) = answers(home, *words[:3], "-n", "1")
    assert added["results"][0]["score"] < plain["results"][0]["score"]
    assert sheet.stat().st_size > 0
    (combined,) = answers(home, "photos/Ada/one.png", "--unlike", "photos/three.png", "-n", "1")
    assert combined["results"][0]["path"] == "Ada/one.png"


def test_faces_are_counted_everywhere_not_pictures_without_one(home: Path) -> None:
    (row,) = json.loads(lookalike("collections", "list", "--json", cwd=home).stdout)
    assert row["count"] == FACES
    shown = json.loads(lookalike("collections", "show", "c", "--json", cwd=home).stdout)
    assert shown["count"] == FACES
    facets = lookalike("facets", "path", "--collection", "c", "--json", cwd=home)
    assert {each["value"]: each["count"] for each in json.loads(facets.stdout)} == {
        "three.png": 3, "Ada/one.png": 1,
    }  # fmt: skip
    checked = lookalike("collections", "verify", "c", "--json", cwd=home)
    assert checked.returncode == 0, checked.stdout
    report = json.loads(checked.stdout)
    # Checked is also that the picture without a face is still as it was.
    assert (report["items"], report["findings"]) == (FACES + 1, [])


def test_whole_pictures_are_searched_with_a_face_and_the_two_do_not_mix(home: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "photos" / "a.png", (0,))
    assert lookalike("index", "photos", "--collection", "w", cwd=tmp_path).returncode == 0
    mixed = lookalike("index", "photos", "--faces", "--collection", "w", cwd=tmp_path)
    assert mixed.returncode == 1
    assert "another collection" in one_line(mixed)
    query = home / "photos" / "three.png"
    words = ("search", query, "--collection", "w", "--all-faces", "--json")
    every = json.loads(lookalike(*words, cwd=tmp_path).stdout)
    assert [each["face"]["number"] for each in every] == [1, 2, 3]
