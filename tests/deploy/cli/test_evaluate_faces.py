"""Measuring with faces that are found: evaluate faces, --faces of the comparisons and of calibrate."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.deploy.evaluation import find_people
from lookalike.encoder.bundle import Bundle
from lookalike.encoder.datasets import LFW
from lookalike.encoder.images import encode_png
from lookalike.encoder.runtime import Model
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.people import write_people


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """people/ without faces, and photos/ without people. Leave it as it is."""
    home = tmp_path_factory.mktemp("home")
    write_people(home / "people", people=24, each=2)
    y, x = np.mgrid[:300, :400]
    photograph = np.stack([y * 255 // 300, x * 255 // 400, (x + y) % 256], 2).astype(np.uint8)
    (home / "photos").mkdir()
    (home / "photos" / "slope.png").write_bytes(encode_png(photograph))
    return home


@pytest.mark.lfw
@pytest.mark.usefixtures("lfw")
def test_faces_of_made_photographs(home: Path, tmp_path: Path) -> None:
    words = ["evaluate", "faces", "--photographs", "photos", "--pictures", "3", "--others", "5"]
    words += ["--seed", "4"]  # of people with few images
    done = lookalike(*words, "--json", "--sheet", tmp_path / "faces.png", cwd=home)
    assert (done.returncode, done.stderr) == (0, f"written: {tmp_path / 'faces.png'}\n")
    report = json.loads(done.stdout)
    assert (report["model"], report["pictures"], report["seed"]) == ("faces", 3, 4)
    assert report["recall"] == 1
    assert sum(row["pictures"] for row in report["by_turn"]) == 3
    assert sum(row["pictures"] for row in report["by_width"]) == 3
    assert report["false_faces"] == {"pictures": 3, "faces": 0}
    assert report["on_their_side"]["pictures"] == 3
    assert 0 < report["landmarks"]["two_looks"] < 0.1
    queries = {row["query"]: row["recall_at_1"] for row in report["search"]}
    assert [*queries][::4] == ["whole photograph", "undisturbed"]
    assert queries["landmarks, two looks"] >= queries["whole photograph"]
    with Image.open(tmp_path / "faces.png") as sheet:
        assert min(sheet.size) > 200


def test_photographs_are_asked_for(home: Path) -> None:
    done = lookalike("evaluate", "faces", "--photographs", "nowhere", cwd=home)
    assert done.returncode == 1
    assert "name a folder of photographs without people with --photographs" in one_line(done)


def test_images_without_a_face_are_framed_as_they_are(home: Path) -> None:
    words = ["evaluate", "verification", "--data", "people", "--model", "faces", "--json"]
    plain, aligned = lookalike(*words, cwd=home), lookalike(*words, "--faces", cwd=home)
    assert (plain.returncode, aligned.returncode) == (0, 0)
    (before,), (after,) = json.loads(plain.stdout), json.loads(aligned.stdout)
    assert (before.pop("faces"), after.pop("faces")) == (False, True)
    assert after == before
    assert aligned.stderr == (
        "faces: no face was found in 48 of 48 images, these are framed as they are without --faces\n"
    )


@pytest.mark.parametrize("verb", ["verification", "retrieval"])
def test_a_model_must_say_where_it_has_faces(verb: str, home: Path, tiny_model: Path) -> None:
    done = lookalike("evaluate", verb, "--data", "people", "--model", tiny_model, "--faces", cwd=home)
    assert done.returncode == 2
    assert "does not say where faces lie" in one_line(done)


@pytest.mark.parametrize("verb", ["verification", "retrieval"])
def test_vectors_have_no_faces_to_find(verb: str, home: Path) -> None:
    done = lookalike("evaluate", verb, "--data", "people", "--vectors", "a.parquet", "--faces", cwd=home)
    assert done.returncode == 2
    assert "--faces is for models" in done.stderr


def test_calibrating_needs_faces(home: Path, tmp_path: Path) -> None:
    done = lookalike(
        "calibrate", "people", "--faces", "--model", "faces", "--out", tmp_path / "new", cwd=home
    )
    assert done.returncode == 1
    assert "no face was found" in one_line(done)
    assert not (tmp_path / "new").exists()
    words = ["calibrate", "people", "--faces", "--crop", "full", "--out", "new"]
    done = lookalike(*words, "--model", "faces", cwd=home)
    assert done.returncode == 2
    assert "--crop does not work with --faces" in done.stderr


def test_faces_ships_with_both_calibrations() -> None:
    bundle = Bundle.open("faces")
    plain, aligned = bundle.calibration_of(faces=False), bundle.calibration_of(faces=True)
    assert plain is not None
    assert aligned is not None
    assert plain.scores != aligned.scores
    assert plain.scores is not None
    assert aligned.scores is not None
    assert (plain.scores.people, plain.scores.matched) == (aligned.scores.people, aligned.scores.matched)


@pytest.mark.lfw
def test_a_model_with_lfws_names_is_calibrated_on_those_whom_its_training_left_out(lfw: LFW) -> None:
    named = find_people("lfw", Model.open("faces"))
    assert len(named) == 495
    assert not {person for _, person in named} & lfw.held_out_people()


@pytest.mark.lfw
@pytest.mark.slow
@pytest.mark.usefixtures("lfw")
def test_the_shipped_calibrations_are_those_of_the_command(tmp_path: Path) -> None:
    shipped = Bundle.open("faces")
    for words in ([], ["--faces"]):
        done = lookalike(
            "calibrate", "lfw", "--model", "faces", "--out", tmp_path / "new", *words, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        fitted = Bundle.open(tmp_path / "new").calibration_of(faces=bool(words))
        known = shipped.calibration_of(faces=bool(words))
        assert fitted is not None
        assert known is not None
        assert fitted.scores is not None
        assert known.scores is not None
        assert fitted.scores.slope == pytest.approx(known.scores.slope, rel=1e-3)
        assert fitted.scores.thresholds == pytest.approx(known.scores.thresholds, rel=1e-3)
