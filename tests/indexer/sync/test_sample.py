"""A look at a sample before all is read: pictures of another kind are told of, and no probability given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.images import Crop, encode_png
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.store import CollectionSpec
from lookalike.indexer.sync.sample import unlike_training
from lookalike.searcher.generation import sample
from tests.fixtures.command import lookalike, one_line
from tests.fixtures.face_photos import without_extra

Pixels = NDArray[np.uint8]
COUNT: Final = 12
_ROWS, _COLUMNS = np.mgrid[0:180, 0:240] / 180.0


def _landscape(rng: np.random.Generator) -> Pixels:
    """A sky that fades above ground with a wavy edge."""
    edge = 0.5 + 0.15 * np.sin(rng.uniform(2, 9) * _COLUMNS + rng.uniform(0, 6))
    sky = np.array([120, 170, 230]) + 80 * (_ROWS[..., None] - 0.5)
    ground = rng.integers(30, 120, 3) + 60 * rng.random((180, 240, 1))
    drawn = np.where(_ROWS[..., None] < edge[..., None], sky, ground)
    return np.asarray(np.clip(drawn, 0, 255), np.uint8)


def _stripes(rng: np.random.Generator) -> Pixels:
    waves = np.sin(rng.uniform(20, 60) * (_ROWS * rng.uniform(-1, 1) + _COLUMNS))[..., None]
    return np.asarray(128 + 90 * waves * rng.uniform(0.5, 1, 3), np.uint8)


def _tiles(rng: np.random.Generator) -> Pixels:
    return rng.integers(0, 255, (9, 12, 3)).repeat(20, axis=0).repeat(20, axis=1).astype(np.uint8)


def _grain(rng: np.random.Generator) -> Pixels:
    return rng.integers(0, 255, (180, 240, 3)).astype(np.uint8)


KINDS: Final[dict[str, Callable[[np.random.Generator], Pixels]]] = {
    "landscapes": _landscape,
    "stripes": _stripes,
    "tiles": _tiles,
    "grain": _grain,
}


@pytest.fixture(scope="module")
def faces() -> Model:
    return Model.open("faces", threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, faces: Model) -> Path:
    """A folder of pictures of each kind, and one of faces framed as the model has them."""
    root, rng = tmp_path_factory.mktemp("kinds"), np.random.default_rng(3)
    made: dict[str, list[Pixels]] = {kind: [draw(rng) for _ in range(COUNT)] for kind, draw in KINDS.items()}
    made["people"] = [_framed(face) for face in sample(faces, COUNT, seed=5)]
    for kind, pictures in made.items():
        (root / kind).mkdir()
        for number, picture in enumerate(pictures):
            (root / kind / f"{number}.png").write_bytes(encode_png(picture))
    return root


def _framed(face: Pixels) -> Pixels:
    """Put a face into the middle 0.36 of a picture, as in LFW."""
    side = round(len(face) / 0.36)
    picture = np.asarray(Image.fromarray(face).resize((side, side)).reduce(16).resize((side, side))).copy()
    start = (side - len(face)) // 2
    picture[start : start + len(face), start : start + len(face)] = face
    return picture


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_another_kind_are_told_of(faces: Model, photos: Path, kind: str) -> None:
    line = unlike_training(faces, _files(photos / kind), faces.bundle.spec.image.crop)
    assert line is not None
    assert "12 without a face in the part that it sees (--crop center:0.36)" in line
    for way in ("--faces", "--crop full", "models add"):
        assert way in line
    with without_extra():  # the reconstruction and the latents tell of most
        assert unlike_training(faces, _files(photos / kind), faces.bundle.spec.image.crop) is not None


def test_faces_as_in_the_training_are_passed_in_silence(faces: Model, photos: Path) -> None:
    assert unlike_training(faces, _files(photos / "people"), faces.bundle.spec.image.crop) is None


def test_a_few_odd_pictures_among_faces_are_passed(faces: Model, photos: Path) -> None:
    mixed = _files(photos / "people") + _files(photos / "tiles")[:5]
    assert unlike_training(faces, mixed, faces.bundle.spec.image.crop) is None


def test_a_crop_that_was_chosen_needs_no_face(faces: Model, photos: Path) -> None:
    line = unlike_training(faces, _files(photos / "landscapes"), Crop())
    assert line is None or ("without a face" not in line and "--crop full" not in line)


def test_files_that_cannot_be_read_do_not_count(faces: Model, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    files = [bad, tmp_path / "missing.png", *_files(photos / "grain")]
    assert "12 of 12 pictures" in (unlike_training(faces, files, faces.bundle.spec.image.crop) or "")
    assert unlike_training(faces, files[:2], faces.bundle.spec.image.crop) is None


def test_a_model_that_was_not_measured_says_nothing(tiny_model: Path, photos: Path) -> None:
    model = Model.open(tiny_model)
    assert unlike_training(model, _files(photos / "grain"), model.bundle.spec.image.crop) is None


def test_no_probability_is_printed_of_pictures_of_another_kind(photos: Path, tmp_path: Path) -> None:
    done = lookalike("index", photos / "landscapes", "-c", "trip", "--json", cwd=tmp_path)
    assert done.returncode == 0
    warning, summary = done.stderr.splitlines()
    assert warning.startswith("warning: 12 of 12 pictures")
    assert summary.startswith("trip: 12 added")
    assert json.loads(done.stdout)["warning"] == warning
    # Not even of a query that is a face: the images of the collection are none.
    for query in (photos / "landscapes" / "0.png", photos / "people" / "0.png"):
        (answer,) = json.loads(lookalike("search", query, "-c", "trip", "--json", cwd=tmp_path).stdout)
        assert {result["probability"] for result in answer["results"]} == {None}
        assert not any(result["match"] for result in answer["results"])
    assert "probability" not in lookalike("search", query, "-c", "trip", cwd=tmp_path).stdout
    pair = _files(photos / "landscapes")[:2]
    assert "probability" not in lookalike("compare", *pair, cwd=tmp_path).stdout
    assert "probability" not in lookalike("duplicates", "-c", "trip", "--json", cwd=tmp_path).stdout


def test_the_warning_of_a_search_names_faces(photos: Path, tmp_path: Path) -> None:
    lookalike("index", photos / "people", "-c", "people", cwd=tmp_path)
    done = lookalike("search", photos / "grain" / "0.png", "-c", "people", cwd=tmp_path)
    assert "unlike what the model was trained on" in done.stderr
    assert "search with --faces" in done.stderr
    assert "probability" not in done.stdout


def test_quiet_leaves_the_warning(photos: Path, tmp_path: Path) -> None:
    done = lookalike("index", photos / "landscapes", "-c", "trip", "-q", cwd=tmp_path)
    assert one_line(done).startswith("warning: 12 of 12 pictures")


def test_an_unchanged_folder_is_not_looked_at(photos: Path, tmp_path: Path) -> None:
    first = lookalike("index", photos / "grain", "-c", "grain", cwd=tmp_path)
    again = lookalike("index", photos / "grain", "-c", "grain", cwd=tmp_path)
    assert "warning" in first.stderr
    assert "warning" not in again.stderr
    with open_store(str(tmp_path / ".lookalike")) as store:
        assert store.info("grain").unlike_training


def test_a_collection_remembers_it() -> None:
    spec = CollectionSpec(model_id="a", model_name="b", dimension=2, crop="full", unlike_training=True)
    assert CollectionSpec.from_json(spec.to_json(), where="here") == spec
    usual = CollectionSpec(model_id="a", model_name="b", dimension=2, crop="full")
    assert "unlike_training" not in usual.to_json()
