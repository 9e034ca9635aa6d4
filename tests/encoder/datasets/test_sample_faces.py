"""The hundred tiny faces."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.datasets import write_sample_faces
from lookalike.encoder.datasets.sample_faces import SAMPLE_FACES
from lookalike.encoder.errors import DataError


def test_a_hundred_grey_faces_are_written(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    paths = write_sample_faces(tmp_path / "taste")
    assert paths == sorted((tmp_path / "taste").iterdir())
    assert len(paths) == SAMPLE_FACES == 100
    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (25, 25))


def test_the_pixels_are_those_of_scikit_image(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    paths = write_sample_faces(tmp_path)
    assert paths == write_sample_faces(tmp_path)
    for path, face in zip(paths, data.lfw_subset(), strict=False):
        with Image.open(path) as image:
            np.testing.assert_allclose(np.asarray(image) / 255, face, atol=0.5 / 255 + 1e-9)


def test_without_scikit_image_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(DataError, match=r"pip install 'lookalike\[demo\]'"):
        write_sample_faces(tmp_path / "taste")
    assert not (tmp_path / "taste").exists()


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="choose another"):
        write_sample_faces(tmp_path / "file")
