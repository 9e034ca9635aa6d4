"""The tour ends in pictures: on the real data set, and where that cannot be had."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.datasets import LFW, MNIST
from lookalike.indexer.open import open_store
from tests.fixtures.command import lookalike

PICTURES = (
    "search.png",
    "reconstructions.png",
    "generated.png",
    "smile.png",
    "search-smiling.png",
    "denoised.png",
    "digits-generated.png",
    "digits-classes.png",
)
NO_LFW = {"LOOKALIKE_DATA": "", "LOOKALIKE_MIRRORS": "http://127.0.0.1:9"}  # nobody listens there


def check_pictures(folder: Path, names: Iterable[str] = PICTURES) -> None:
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300, name
            assert np.asarray(picture).std() > 20, name


@pytest.fixture
def few_lfw(lfw: LFW, mnist: MNIST, tmp_path: Path) -> Path:
    """A folder of data sets: MNIST, and LFW of a few people who are held out and have five images or more."""
    held_out = sorted(lfw.held_out_people())
    many = [person for person in held_out if len(list((lfw.root / person).iterdir())) >= 5][:8]
    images = tmp_path / "data" / "lfw" / lfw.variant
    images.mkdir(parents=True)
    for person in many:
        (images / person).mkdir()  # links to folders are not followed
        for file in (lfw.root / person).iterdir():
            (images / person / file.name).symlink_to(file)
    for file in lfw.folder.glob("*.txt"):
        (images.parent / file.name).symlink_to(file)
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    for file in mnist.folder.iterdir():
        (tmp_path / "data" / "MNIST" / "raw" / file.name).symlink_to(file)
    return tmp_path / "data"


@pytest.mark.lfw
@pytest.mark.mnist
@pytest.mark.slow
@pytest.mark.parametrize("few", [True, False], ids=["few", "all"])
def test_the_tour_on_the_real_faces(data_root: Path, few_lfw: Path, tmp_path: Path, few: bool) -> None:
    data = few_lfw if few else data_root
    count = len(list((data / "lfw").glob("*/*/*.jpg")))
    env = {"LOOKALIKE_DATA": str(data)}
    first = lookalike("demo", "--out", "tour", cwd=tmp_path, env=env)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert few or count == 13_233
    assert f"Indexed {count:,} faces of lfw with model faces" in first.stdout
    assert "random people the model never saw" in first.stdout
    assert first.stdout.split("Look at\n")[1].split()[0] == "tour/search.png"
    check_pictures(tmp_path / "tour")
    before = [(tmp_path / "tour" / name).read_bytes() for name in PICTURES]
    again = lookalike("demo", "--out", "tour", cwd=tmp_path, env=env)
    assert again.returncode == 0, again.stderr
    assert f"{count:,} faces of lfw were already indexed" in again.stdout
    assert [(tmp_path / "tour" / name).read_bytes() for name in PICTURES] == before
    # Where LFW is gone, the same folder serves a taste, and what was indexed stays as it was.
    taste = lookalike("demo", "--out", "tour", cwd=tmp_path, env={**NO_LFW, "LOOKALIKE_CACHE": str(tmp_path)})
    assert taste.returncode == 0, taste.stderr
    with open_store(str(tmp_path / "tour" / "store")) as store:
        assert {name: store.count(name) for name in store.list_collections()} == {
            "lfw": count,
            "generated-faces": 200,
            "sample-faces": 100,
        }


def test_without_the_data_set_the_tour_is_a_taste_and_says_so(tmp_path: Path) -> None:
    began = time.monotonic()
    env = {**NO_LFW, "LOOKALIKE_CACHE": str(tmp_path / "cache")}
    done = lookalike("demo", "--out", "tour", cwd=tmp_path, env=env)
    assert time.monotonic() - began < 60
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("LFW not found: ")
    assert "LOOKALIKE_DATA" in line
    assert "Generated faces only: the model faces drew 200 people who do not exist" in done.stdout
    assert "Indexed 200 faces of generated-faces" in done.stdout
    assert "Indexed 100 faces of sample-faces" in done.stdout
    assert "100 real faces of 25x25 pixels" in done.stdout
    assert "people the model never saw" not in done.stdout
    check_pictures(tmp_path / "tour")
    check_pictures(tmp_path / "tour", ("search-sample-faces.png",))
    again = lookalike("demo", "--out", "tour", cwd=tmp_path, env=env)
    assert "200 faces of generated-faces were already indexed" in again.stdout
    assert "100 faces of sample-faces were already indexed" in again.stdout


@pytest.mark.slow
def test_without_scikit_image_the_tour_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("skimage", "skimage.data"):
        monkeypatch.setitem(sys.modules, name, None)
    env = {**NO_LFW, "LOOKALIKE_CACHE": str(tmp_path / "cache")}
    done = lookalike("demo", "--out", "tour", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "sample-faces" not in done.stdout
    check_pictures(tmp_path / "tour")
