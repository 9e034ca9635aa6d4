"""Models as functions of whole photographs: one face of each is seen, turned upright."""

from typing import Any

import numpy as np
import pytest

import lookalike
from lookalike.encoder.detect import cut_for_model, face_finder
from lookalike.encoder.errors import ImageError, InvalidArgumentError, LookalikeError, MissingExtraError
from lookalike.encoder.runtime import Model
from tests.fixtures.face_photos import without_extra
from tests.fixtures.face_pictures import face_picture

PHOTOGRAPH = face_picture(0, 8)


@pytest.fixture(scope="module")
def model() -> Model:
    return lookalike.load_model("faces", threads=1)


def test_every_function_sees_the_same_face(model: Model) -> None:
    found = face_finder().find(PHOTOGRAPH, threshold=0.6)
    cut = cut_for_model(PHOTOGRAPH, found, model.bundle.face_frame, model.bundle.spec.image)
    main = max(range(2), key=lambda place: found[place].prominence)
    # As they are: what the model sees is cut out already.
    for number, place in ((None, main), (1, 0), (2, 1)):
        given = dict[str, Any](faces=number is None, face=number)
        (seen,) = lookalike.embed(model, cut[place], crop="full")
        (vector,) = lookalike.embed(model, PHOTOGRAPH, **given)
        np.testing.assert_allclose(vector, seen, atol=1e-5)
        latents = lookalike.encode(model, PHOTOGRAPH, **given)
        np.testing.assert_allclose(latents, lookalike.encode(model, cut[place], crop="full"), atol=1e-4)
        smiling = lookalike.edit(model, PHOTOGRAPH, {"Smiling": 1}, **given)
        expected = lookalike.edit(model, cut[place], {"Smiling": 1}, crop="full")
        assert np.array_equal(smiling.pixels, expected.pixels)
        back = lookalike.reconstruct(model, PHOTOGRAPH, **given)
        assert np.array_equal(back.pixels, lookalike.reconstruct(model, cut[place], crop="full").pixels)
    row = lookalike.interpolate(model, [PHOTOGRAPH, face_picture(11)], steps=3, faces=True)
    assert np.array_equal(row[0, 0], lookalike.reconstruct(model, PHOTOGRAPH, faces=True)[0])


def test_what_cannot_be_is_refused(model: Model, tiny_model: str) -> None:
    with pytest.raises(InvalidArgumentError, match="leave one of the two out"):
        lookalike.edit(model, PHOTOGRAPH, {"Smiling": 1}, crop="full", faces=True)
    with pytest.raises(InvalidArgumentError, match="from 1 at the left"):
        lookalike.embed(model, PHOTOGRAPH, face=0)
    with pytest.raises(ImageError, match="image 1: no face was found"):
        lookalike.embed(model, [PHOTOGRAPH, face_picture()], faces=True)
    with pytest.raises(LookalikeError, match="does not say where faces lie"):
        lookalike.embed(tiny_model, PHOTOGRAPH, faces=True)
    with without_extra(), pytest.raises(MissingExtraError, match=r"lookalike\[faces\]"):
        lookalike.embed(model, PHOTOGRAPH, faces=True)
