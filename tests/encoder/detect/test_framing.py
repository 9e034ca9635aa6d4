"""How a collection's pictures are framed, as text and back; and the faces of a file."""

import io

import numpy as np
import pytest
from PIL import Image

from lookalike.encoder.detect import (
    ARCFACE_FRAME,
    LFW_FRAME,
    Faces,
    Frame,
    face_finder,
    parse_framing,
    read_faces,
)
from lookalike.encoder.errors import ImageError, InvalidArgumentError
from lookalike.encoder.images import Crop, ImageSpec
from tests.fixtures.portrait import portrait_pixels


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.6, 0.8, 0.95, 0.999])
def test_faces_are_read_as_they_are_written(threshold: float) -> None:
    faces = Faces(threshold)
    assert Faces.parse(str(faces)) == parse_framing(str(faces)) == faces
    assert str(faces) == f"faces:yunet-2023mar:{threshold:g}"


@pytest.mark.parametrize("text", ["full", "center:0.36", "0.1,0.2,0.5,0.6"])
def test_a_crop_is_read_as_before(text: str) -> None:
    assert parse_framing(text) == Crop.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("faces:", "write faces:DETECTOR:THRESHOLD"),
        ("faces:yunet-2023mar", "write faces:DETECTOR:THRESHOLD"),
        ("faces:yunet-2023mar:high", "write faces:DETECTOR:THRESHOLD"),
        ("faces:yunet-2023mar:0.8:1", "write faces:DETECTOR:THRESHOLD"),
        ("faces:yunet-2023mar:1", "0.1 to less than 1"),
        ("faces:yunet-2023mar:nan", "0.1 to less than 1"),
        ("faces:yunet-2023mar:-0.5", "0.1 to less than 1"),
        ("faces:other:0.8", "there is no detector other here, only yunet-2023mar"),
        ("faces:a\nb:0.8", "there is no detector"),
    ],
)
def test_other_framings_are_refused_on_one_line(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        parse_framing(text)
    assert "\n" not in str(caught.value)


def encoded(kind: str, mode: str = "RGB", orientation: int = 1) -> bytes:
    stored = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # quarter turns to the left that the file needs
    image = Image.fromarray(np.rot90(portrait_pixels(), stored)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, kind, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("frame", [LFW_FRAME, ARCFACE_FRAME])
def test_the_faces_of_a_file_are_cut_for_a_model(channels: int, frame: Frame) -> None:
    spec = ImageSpec(size=48, channels=channels)  # type: ignore[arg-type]  # each of the two
    faces, cut = read_faces(encoded("PNG"), spec, frame, Faces(), name="a.png")
    assert faces == face_finder().find(portrait_pixels())
    assert cut.shape == (1, 48, 48, channels)
    assert cut.std() > 20


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_turns_the_picture_first(orientation: int) -> None:
    spec = ImageSpec(size=32)
    upright, turned = (
        read_faces(encoded("PNG", orientation=each), spec, LFW_FRAME, Faces(), name="a")
        for each in (1, orientation)
    )
    assert turned[0] == upright[0]
    assert np.array_equal(turned[1], upright[1])


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "L"), ("WEBP", "RGB")])
def test_every_kind_of_file_has_its_face(kind: str, mode: str) -> None:
    faces, _ = read_faces(encoded(kind, mode), ImageSpec(size=32), LFW_FRAME, Faces(), name="a")
    assert len(faces) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_without_a_face_gives_none(channels: int) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 100, 50)).save(stream, "PNG")
    spec = ImageSpec(size=32, channels=channels)  # type: ignore[arg-type]  # each of the two
    faces, cut = read_faces(stream.getvalue(), spec, LFW_FRAME, Faces(), name="a.png")
    assert faces == []
    assert cut.shape == (0, 32, 32, channels)
    assert cut.dtype == np.uint8


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ImageError, match=r"a\.png"):
        read_faces(b"no image", ImageSpec(size=32), LFW_FRAME, Faces(), name="a.png")
    with pytest.raises(ImageError, match=r"a\.png"):
        read_faces(encoded("PNG"), ImageSpec(size=32), LFW_FRAME, Faces(), max_pixels=100, name="a.png")
