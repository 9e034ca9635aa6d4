"""Data sets of faces: the main face of each image, found and turned upright."""

from pathlib import Path

import numpy as np
import pytest

from lookalike.encoder.detect import LFW_FRAME
from lookalike.encoder.images import Crop, ImageSpec
from lookalike.trainer.data import open_dataset, read_pixel_cache
from lookalike.trainer.recipes.identity import with_surroundings
from tests.fixtures.face_pictures import write_picture


def test_each_image_gives_its_main_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        write_picture(tmp_path / "photos" / f"person{number}" / "a.png", (number,), turned=number)
    write_picture(tmp_path / "photos" / "person3" / "none.png", ())
    spec = ImageSpec(size=32)
    whole = open_dataset(str(tmp_path / "photos"))
    faces = whole.with_faces()
    pixels = read_pixel_cache(faces, spec)
    assert pixels.usable == [0, 1, 2]
    assert [reason.endswith("none.png: no face was found") for reason in pixels.failures.values()] == [True]
    upright = pixels.images[0].astype(int)
    for turned in pixels.images[1:3]:
        aligned = min(np.abs(upright - each).mean() for each in (turned, turned[:, ::-1]))
        assert aligned < 40
        assert aligned < np.abs(upright - np.rot90(turned)).mean()
    assert read_pixel_cache(whole, spec).fingerprint != pixels.fingerprint
    assert (faces.frame_within(spec.crop), whole.frame_within(spec.crop)) == (LFW_FRAME, None)
    assert faces.frame_within(Crop(fraction=0.5)) == LFW_FRAME


@pytest.mark.parametrize("crop", [Crop(), Crop(fraction=0.36)], ids=str)
def test_surroundings_show_more_of_the_picture_around_the_same_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: Crop
) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        write_picture(tmp_path / "photos" / f"person{number}" / "a.png", (number,), turned=number)
    faces, spec = open_dataset(str(tmp_path / "photos")).with_faces(), ImageSpec(size=40, crop=crop)
    near = read_pixel_cache(faces, spec).images
    wide_faces, wide_spec = with_surroundings(faces, spec)
    wide = read_pixel_cache(wide_faces, wide_spec).images
    assert wide.shape == (3, 56, 56, 3)
    middle = wide[:, 8:-8, 8:-8]
    assert np.abs(middle.astype(int) - near.astype(int)).mean() < 2
