"""``lookalike compare``."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.fixtures.command import lookalike, one_line
from tests.fixtures.face_pictures import write_picture
from tests.fixtures.photos import cuttings, photograph


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to compare. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    (home / "one.jpg").write_bytes(photograph(1))
    (home / "copy.jpg").write_bytes(photograph(1))
    (home / "other.jpg").write_bytes(photograph(9))
    (home / "bad.jpg").write_bytes(b"no image")
    Image.fromarray(cuttings()[1]).resize((100, 100)).save(home / "smaller.png")
    for name, looks in {"alone.png": (1,), "two.png": (0, 11), "none.png": ()}.items():
        write_picture(home / name, looks)
    return home


def test_the_same_file(home: Path) -> None:
    done = lookalike("compare", "one.jpg", "copy.jpg", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("score 1.000, probability ")
    assert done.stdout.endswith(", same file\n")


@pytest.mark.parametrize("other", ["smaller.png", "other.jpg"])
def test_the_exit_code_says_whether_they_match(home: Path, other: str) -> None:
    done = lookalike("compare", "one.jpg", other, "--json", cwd=home)
    found = json.loads(done.stdout)
    assert found["images"] == ["one.jpg", other]
    assert isinstance(found["match"], bool)
    assert done.returncode == (0 if found["match"] else 4)
    # Of an image unlike the training there is no probability, and the warning says why.
    assert (found["probability"] is None) == (found["warning"] is not None)
    assert found["probability"] is None or 0 < found["probability"] <= 1
    text = lookalike("compare", "one.jpg", other, cwd=home)
    assert text.returncode == done.returncode
    assert text.stdout.rstrip().endswith("match" if found["match"] else "no match")
    assert f"score {found['score']:.3f}" in text.stdout


def test_a_model_without_names_has_a_score_alone(home: Path, tiny_model: Path) -> None:
    done = lookalike("compare", "one.jpg", "other.jpg", "--model", tiny_model, cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("score ")
    assert "," not in done.stdout
    both = lookalike("compare", "one.jpg", "other.jpg", "--model", tiny_model, "--prior", "0.1", cwd=home)
    assert both.returncode == 2
    assert "not calibrated" in one_line(both)


def test_faces_of_whole_photographs(home: Path) -> None:
    done = lookalike("compare", "alone.png", "two.png", "--faces", "--json", cwd=home)
    assert done.returncode in (0, 4), done.stderr
    assert [face["count"] for face in json.loads(done.stdout)["faces"]] == [1, 2]
    text = lookalike("compare", "alone.png", "two.png", "--faces", cwd=home)
    assert "two.png: face " in text.stderr
    assert "alone.png" not in text.stderr
    none = lookalike("compare", "alone.png", "none.png", "--faces", cwd=home)
    assert none.returncode == 1
    assert "none.png: no face was found" in one_line(none)


def test_noise_can_be_removed_first(home: Path) -> None:
    done = lookalike("compare", "one.jpg", "one.jpg", "--denoise", cwd=home)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words", [["one.jpg", "bad.jpg"], ["one.jpg", "nowhere.jpg"], ["bad.jpg", "one.jpg"]]
)
def test_what_cannot_be_read(home: Path, words: list[str]) -> None:
    done = lookalike("compare", *words, cwd=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert next(word for word in words if word != "one.jpg") in one_line(done)


@pytest.mark.parametrize(
    "words", [[], ["one.jpg"], ["one.jpg"] * 3, ["one.jpg", "one.jpg", "--faces", "--crop", "full"]]
)
def test_wrong_usage(home: Path, words: list[str]) -> None:
    assert lookalike("compare", *words, cwd=home).returncode == 2
