"""``lookalike cluster``: as people use it."""

import json
from pathlib import Path

import pytest

from lookalike.encoder.images import decode_rgb
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.photos import photograph

CLUSTER = ("cluster", "--threshold", "0.9")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three copies of one photograph, two of another, and two without; indexed and grouped."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    for number, name in zip((1, 1, 1, 4, 4, 6, 9), "abcdefg", strict=True):
        (home / "photos" / f"{name}.jpg").write_bytes(photograph(number))
    done = lookalike("index", "photos", "--crop", "full", "--collection", "family", cwd=home)
    assert done.returncode == 0, done.stderr
    done = lookalike(*CLUSTER, cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def facets(home: Path, field: str = "cluster") -> list[tuple[object, int]]:
    done = lookalike("facets", field, "--json", cwd=home)
    return [(row["value"], row["count"]) for row in json.loads(done.stdout)]


def test_groups_are_printed_written_and_searched(home: Path) -> None:
    done = lookalike(*CLUSTER, cwd=home)
    first, second = done.stdout.splitlines()
    assert first.split()[:4] == ["cluster", "1", "3", "images"]
    assert second.split()[:4] == ["cluster", "2", "2", "images"]
    assert first.split()[-1].startswith("photos/")
    assert "family: 5 of 7 images in 2 groups, 0 of them new; 0 images joined" in done.stderr
    assert "threshold 0.9" in done.stderr
    assert facets(home) == [(1, 3), (2, 2)]
    found = lookalike("search", "photos/a.jpg", "--where", "cluster=2", "--json", cwd=home)
    assert {row["path"] for row in json.loads(found.stdout)[0]["results"]} == {"d.jpg", "e.jpg"}
    grouped = lookalike("search", "photos/a.jpg", "--group-by", "cluster", "--json", cwd=home)
    assert len(json.loads(grouped.stdout)[0]["results"]) == 4


def test_new_images_join_a_group_that_has_a_name(home: Path) -> None:
    done = lookalike("cluster", "name", "1", "Ada L.", cwd=home)
    assert "group 1 of 3 images is called Ada L." in done.stderr
    (home / "photos" / "new.jpg").write_bytes(photograph(1))
    lookalike("index", "photos", cwd=home)
    again = lookalike(*CLUSTER, "--json", cwd=home)
    rows = json.loads(again.stdout)
    assert [(row["cluster"], row["name"], row["size"], row["added"]) for row in rows] == [
        (1, "Ada L.", 4, 1),
        (2, None, 2, 0),
    ]
    assert all(Path(each["file"]).is_file() for row in rows for each in row["examples"])
    assert facets(home, "cluster_name") == [("Ada L.", 4)]
    table = lookalike("search", "photos/a.jpg", "-n", "1", cwd=home)
    assert "Ada L." in table.stdout


def test_groups_stay_when_files_move_and_tables_come(home: Path) -> None:
    (home / "photos" / "sub").mkdir()
    (home / "photos" / "a.jpg").rename(home / "photos" / "sub" / "a.jpg")
    (home / "note.csv").write_text("path,note\nb.jpg,mine\n")
    lookalike("cluster", "name", "1", "Ada", cwd=home)
    done = lookalike("index", "photos", "--prune", "--payload", "note.csv", cwd=home)
    assert done.returncode == 0, done.stderr
    assert facets(home) == [(1, 3), (2, 2)]
    assert facets(home, "note") == [("mine", 1)]
    assert facets(home, "cluster_name") == [("Ada", 3)]
    again = lookalike("index", "photos", "--payload", "note.csv", cwd=home)
    assert " 0 changed, 7 unchanged" in again.stderr


def test_a_file_with_another_picture_leaves_its_group(home: Path) -> None:
    (home / "photos" / "a.jpg").write_bytes(photograph(11))
    lookalike("index", "photos", cwd=home)
    assert facets(home) == [(1, 2), (2, 2)]


def test_groups_become_one(home: Path) -> None:
    lookalike("cluster", "name", "2", "Bob", cwd=home)
    done = lookalike("cluster", "merge", "1", "2", cwd=home)
    assert "group 1 (Bob) has 5 images now" in done.stderr
    assert facets(home) == [(1, 5)]


def test_a_dry_run_and_a_restart(home: Path) -> None:
    dry = lookalike(*CLUSTER, "--restart", "--min-size", "3", "--dry-run", cwd=home)
    assert dry.stderr.startswith("Dry run, nothing was written: family: 3 of 7 images in 1 groups")
    assert facets(home) == [(1, 3), (2, 2)]
    lookalike(*CLUSTER, "--restart", "--min-size", "3", cwd=home)
    assert facets(home) == [(1, 3)]


def test_groups_as_a_picture(home: Path, tmp_path: Path) -> None:
    done = lookalike(*CLUSTER, "--sheet", tmp_path / "groups.png", cwd=home)
    assert done.stderr.splitlines()[-1].startswith("image written: ")
    assert decode_rgb((tmp_path / "groups.png").read_bytes(), name="").shape[2] == 3


def test_the_default_threshold_is_that_of_the_model(home: Path) -> None:
    assert "threshold 0.497" in lookalike("cluster", "--dry-run", cwd=home).stderr


@pytest.mark.parametrize(
    "words", [["--threshold", "0"], ["--min-size", "1"], ["name", "9", "Ada"], ["name", "1"], ["merge", "1"]]
)
def test_wrong_usage(home: Path, words: list[str]) -> None:
    done = lookalike("cluster", *words, cwd=home)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_group_that_is_not_there_is_named(home: Path) -> None:
    assert "has no group 9" in one_line(lookalike("cluster", "name", "9", "Ada", cwd=home))
