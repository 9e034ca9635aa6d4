"""``lookalike duplicates``, and the collection that need not be named."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from lookalike.encoder.images import decode_rgb
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import cuttings, photograph


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs; a copy and a smaller version of one, another one as PNG too. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    photos = home / "photos"
    (photos / "old ones").mkdir(parents=True)
    for number in (1, 2, 4, 6, 9, 11):
        (photos / f"{number}.jpg").write_bytes(photograph(number))
    (photos / "old ones" / "1.jpg").write_bytes(photograph(1))
    smaller = Image.fromarray(cuttings()[1]).resize((96, 96))
    smaller.save(photos / "small.jpg", quality=70)
    with Image.open(io.BytesIO(photograph(2))) as picture:
        picture.save(photos / "old ones" / "2.png")
    done = lookalike("index", "photos", "--crop", "full", "--collection", "family", cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def test_groups_are_listed(home: Path) -> None:
    done = lookalike("duplicates", cwd=home)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("\n\n")
    assert first.startswith("3 copies, similarity ")
    assert first.splitlines()[3].endswith(str(Path("photos", "small.jpg")))
    assert second.startswith("2 copies, similarity ")
    assert [line.split(maxsplit=1)[1] for line in second.splitlines()[1:]] == [
        "photos/old ones/2.png",
        "photos/2.jpg",
    ]
    assert "family: 2 groups of copies, 0 of them of identical files; 3 files" in done.stderr


@pytest.mark.parametrize("words", [(), ("--json",), ("--paths",)])
def test_where_most_images_count_as_copies_a_warning_says_so(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(11):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photograph(number % 3))
    lookalike("index", "photos", "--crop", "full", "-c", "family", cwd=tmp_path)
    done = lookalike("duplicates", "--threshold", "0.9", *words, cwd=tmp_path)
    assert "8 of 11 images count as copies of others, which may be too many" in done.stderr
    assert "give --threshold 0.95 or --exact" in done.stderr
    assert "3 groups of copies" in done.stderr
    exact = lookalike("duplicates", "--exact", *words, cwd=tmp_path)
    assert "count as copies of others" not in exact.stderr
    (tmp_path / "photos" / "9.jpg").unlink()
    lookalike("index", "photos", "--prune", cwd=tmp_path)
    assert "count as copies" not in lookalike("duplicates", "--threshold", "0.9", *words, cwd=tmp_path).stderr


def test_groups_as_json(home: Path) -> None:
    done = lookalike("duplicates", "--exact", "--json", cwd=home)
    (group,) = json.loads(done.stdout)
    assert (group["identical"], group["similarity"]) == (True, 1.0)
    assert {copy["path"] for copy in group["copies"]} == {"1.jpg", "old ones/1.jpg"}
    assert all(Path(copy["file"]).read_bytes() == photograph(1) for copy in group["copies"])


def test_files_that_could_go(home: Path) -> None:
    done = lookalike("duplicates", "--paths", cwd=home)
    files = list(map(Path, done.stdout.splitlines()))
    assert [file.name for file in files] == ["1.jpg", "small.jpg", "2.jpg"]
    assert all(file.is_absolute() and file.is_file() for file in files)
    null = lookalike("duplicates", "-0", cwd=home)
    assert null.stdout == done.stdout.replace("\n", "\0")


def test_groups_as_a_picture(home: Path, tmp_path: Path) -> None:
    done = lookalike("duplicates", "--sheet", tmp_path / "copies.png", cwd=home)
    assert done.stderr.splitlines()[-1].startswith("image written: ")
    assert decode_rgb((tmp_path / "copies.png").read_bytes(), name="").shape[2] == 3


def test_files_that_are_gone_are_left_out_and_said_to_be(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(photograph(3))
    lookalike("index", "photos", "--collection", "c", cwd=tmp_path)
    (tmp_path / "photos" / "b.jpg").unlink()
    done = lookalike("duplicates", "--paths", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 files left out" in done.stderr


def test_no_copies(home: Path) -> None:
    done = lookalike("duplicates", "--where", "path=4.jpg", "--json", cwd=home)
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert done.stderr.splitlines()[-1] == "family: no copies"


@pytest.mark.parametrize(
    "words",
    [["--exact", "--threshold", "0.5"], ["--json", "--paths"], ["--threshold", "0"], ["--threshold", "2"]],
)
def test_wrong_usage(home: Path, words: list[str]) -> None:
    assert lookalike("duplicates", *words, cwd=home).returncode == 2


def test_the_only_collection_need_not_be_named(home: Path, tmp_path: Path) -> None:
    found = lookalike("search", home / "photos" / "4.jpg", "-n", "1", "--json", cwd=home)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)[0]["results"][0]["path"] == "4.jpg"
    again = lookalike("index", "photos", cwd=home)
    assert "family: " in again.stderr
    assert lookalike("facets", "size", cwd=home).returncode == 0
    none = lookalike("search", home / "photos" / "4.jpg", cwd=tmp_path)
    assert none.returncode == 2
    assert "create one with lookalike index" in one_line(none)


def test_of_several_collections_one_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photograph(0))
    for name in ("one", "two"):
        assert lookalike("index", "photos", "-c", name, cwd=tmp_path).returncode == 0
    done = lookalike("search", "photos/a.jpg", cwd=tmp_path)
    assert done.returncode == 2
    assert "has the collections one, two; choose one" in one_line(done)
    chosen = lookalike("search", "photos/a.jpg", cwd=tmp_path, env={"LOOKALIKE_COLLECTION": "two"})
    assert chosen.returncode == 0, chosen.stderr


TURNS = {
    "90": Image.Transpose.ROTATE_90,
    "180": Image.Transpose.ROTATE_180,
    "270": Image.Transpose.ROTATE_270,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "flipped": Image.Transpose.FLIP_TOP_BOTTOM,
    "transposed": Image.Transpose.TRANSPOSE,
    "transversed": Image.Transpose.TRANSVERSE,
}


def test_turned_and_mirrored_copies_are_found_and_only_these(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, (name, turn) in zip((0, 1, 2, 4, 6, 9, 11), TURNS.items(), strict=True):
        picture = Image.fromarray(cuttings()[number][:96])  # not square
        picture.save(tmp_path / "photos" / f"{name}.png")
        picture.transpose(turn).save(tmp_path / "photos" / f"{name} turned.png")
    lookalike("index", "photos", "--crop", "full", "--collection", "c", cwd=tmp_path)
    upright = json.loads(lookalike("duplicates", "--json", cwd=tmp_path).stdout)
    assert len(upright) < len(TURNS)
    done = lookalike("duplicates", "--turned", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    groups = [sorted(copy["path"] for copy in group["copies"]) for group in json.loads(done.stdout)]
    assert sorted(groups) == sorted([f"{name} turned.png", f"{name}.png"] for name in TURNS)
    (tmp_path / "photos" / "90.png").write_bytes(b"no picture")
    again = lookalike("duplicates", "--turned", cwd=tmp_path)
    assert again.returncode == 3
    assert "failed: 90.png: " in again.stderr


def test_turned_copies_are_not_looked_for_where_that_makes_no_sense(home: Path, tmp_path: Path) -> None:
    assert "leave --turned or --exact out" in one_line(
        lookalike("duplicates", "--turned", "--exact", cwd=home)
    )
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photograph(0))
    words = ("index", "photos", "--crop", "0,0,0.5,0.5", "-c", "c")
    assert lookalike(*words, cwd=tmp_path).returncode == 0
    assert "--crop full in another collection" in one_line(lookalike("duplicates", "--turned", cwd=tmp_path))


def test_copies_take_one_place_among_results(home: Path) -> None:
    words = ("search", "photos/1.jpg", "--json", "-n")

    def found(count: int, *more: str) -> list[str]:
        done = lookalike(*words, str(count), *more, cwd=home)
        assert done.returncode == 0, done.stderr
        return [row["path"] for row in json.loads(done.stdout)[0]["results"]]

    everything, folded = found(20), found(20, "--fold-duplicates")
    assert len(everything) == 9
    assert len(folded) == 6
    assert [path for path in everything if path in folded] == folded
    assert {Path(path).stem for path in folded} == {"1", "2", "4", "6", "9", "11"}
    for count in (1, 2, 3, 5):  # more are fetched until there are enough
        assert found(count, "--fold-duplicates") == folded[:count]
    both = lookalike(*words, "3", "--fold-duplicates", "--group-by", "person", cwd=home)
    assert both.returncode == 2
