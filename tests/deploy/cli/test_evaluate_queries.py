"""evaluate groups, small-faces, and what evaluate retrieval says of probabilities."""

import json
import shutil
from pathlib import Path

import pytest

from tests.fixtures.command import lookalike, one_line
from tests.fixtures.people import write_people


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """people/ (one image of them damaged), and calibrated/, fitted to others. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    write_people(home / "people", people=24, each=3)
    (home / "people" / "person-0" / "bad.png").write_bytes(b"")
    write_people(home / "others", people=24, each=4, seed=1)
    shutil.copytree(tiny_model, home / "model")
    words = "calibrate others --model model --out calibrated --crop full --json"
    done = lookalike(*words.split(), cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def test_small_faces_of_a_folder(home: Path) -> None:
    words = "evaluate small-faces --model model --data people --crop full --pixels 16 --pixels 2"
    done = lookalike(*words.split(), "--json", cwd=home)
    assert done.returncode == 3
    assert "bad.png" in done.stderr
    full, least = json.loads(done.stdout)
    assert (full["side"], full["queries"], least["side"]) == (16, 72, 2)
    assert full["recall_at_1"] >= least["recall_at_1"]
    table = lookalike(*words.split(), cwd=home).stdout.splitlines()
    assert table[0].split() == ["model:", "pixels", "queries", "Recall@1"]
    assert table[1].split()[:2] == ["16x16", "72"]


def test_groups_by_light(home: Path) -> None:
    words = "evaluate groups --model calibrated --data people --crop full --by brightness"
    done = lookalike(*words.split(), cwd=home)
    assert done.returncode == 2
    assert "no threshold for a false match rate of 0.001, the known rates are 0.1" in one_line(done)
    done = lookalike(*words.split(), "--fmr", "0.1", "--json", cwd=home)
    assert done.returncode == 3  # an image is damaged
    rows = json.loads(done.stdout)
    assert [row["group"] for row in rows] == ["dark", "middling", "bright"]
    assert sum(row["images"] for row in rows) == 72
    assert all(0 <= row["within"] < 0.5 for row in rows)
    table = lookalike(*words.split(), "--fmr", "0.1", cwd=home).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["calibrated,", "group", "dark", "middling", "bright"]


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        (2, "--model model --by brightness", "model is not calibrated; run lookalike calibrate first"),
        (2, "--model calibrated --by Male", "only lfw comes with attributes, people has no 'Male'"),
        (2, "--model calibrated", "Missing option '--by'"),
    ],
)
def test_what_cannot_be_compared_is_said(home: Path, code: int, more: str, said: str) -> None:
    done = lookalike("evaluate", "groups", "--data", "people", *more.split(), cwd=home)
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]


def test_retrieval_says_how_right_probabilities_are(home: Path) -> None:
    words = "evaluate retrieval --model calibrated --model model --data people --crop full"
    done = lookalike(*words.split(), "--reliability", "drawn.png", cwd=home)
    assert done.returncode == 3
    recall, reliability = done.stdout.split("\n\n")
    assert len(recall.splitlines()) == 3
    assert [line.split()[:2] for line in reliability.splitlines()[1:]] == [["calibrated", "71"]] * 4
    assert "written: drawn.png" in done.stderr
    answers = json.loads(lookalike(*words.split(), "--json", cwd=home).stdout)
    assert [("reliability" in answer) for answer in answers] == [True, False]
    assert {row["person"] for row in answers[0]["reliability"]} == {
        "there", "not there", "even odds", "as it is",
    }  # fmt: skip
