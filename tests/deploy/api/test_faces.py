"""``lookalike.faces``: the faces of a photograph, whatever it comes as."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lookalike
from lookalike.encoder.detect import ARCFACE_FRAME, face_finder
from lookalike.encoder.errors import ImageError, InvalidArgumentError, MissingExtraError
from lookalike.encoder.images import encode_png
from lookalike.searcher.faces import FaceCut
from tests.fixtures.face_photos import group, no_face, without_extra, write


def test_faces_of_an_image_whatever_it_comes_as(tmp_path: Path) -> None:
    pixels = group(2)
    expected = face_finder().find(pixels)
    file = write(tmp_path / "a.png", pixels)
    for image in (file, str(file), file.read_bytes(), Image.fromarray(pixels), pixels, pixels / 255):
        assert list(lookalike.faces(image)) == expected
    found = lookalike.faces(pixels)
    assert (len(found), found[1], repr(found)) == (2, expected[1], "<Faces 2 in 512x256>")
    assert len(lookalike.faces(pixels, threshold=0.99)) == 0


def test_cut_faces_are_images(tmp_path: Path) -> None:
    pixels = group(2)
    found = lookalike.faces(pixels)
    cut = found.cut(size=112, frame="arcface", margin=0)
    assert cut.pixels.shape == (2, 112, 112, 3)
    assert np.array_equal(cut.pixels, FaceCut(size=112, frame=ARCFACE_FRAME, margin=0)(pixels, found.found))
    assert found.cut().pixels.shape == (2, 256, 256, 3)
    cut.save(tmp_path / "cut.png")
    found.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(io.BytesIO(found._repr_png_())) as shown:
        assert sheet.size == shown.size


def test_no_face_is_no_error() -> None:
    found = lookalike.faces(no_face())
    assert (len(found), list(found), found.cut().pixels.shape) == (0, [], (0, 256, 256, 3))
    assert found.sheet().shape[2] == 3


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ImageError, match="not an image"):
        lookalike.faces(b"no picture")
    with pytest.raises(ImageError, match="in Python max_pixels"):
        lookalike.faces(encode_png(group()), max_pixels=100)
    with pytest.raises(InvalidArgumentError, match=r"0\.1 to less than 1, 1 is not"):
        lookalike.faces(group(), threshold=1)
    found = lookalike.faces(group())
    for arguments in ({"frame": "square"}, {"size": 3}, {"margin": -1.0}):
        with pytest.raises(InvalidArgumentError):
            found.cut(**arguments)
    with without_extra(), pytest.raises(MissingExtraError, match=r"lookalike\[faces\]"):
        lookalike.faces(group())
