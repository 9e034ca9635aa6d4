"""Faces of whole pictures: turned, scaled, several, none; and the same faces cut out."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lookalike.encoder.datasets import LFW
from lookalike.encoder.detect import (
    LFW_FRAME,
    MIN_WIDTH,
    Face,
    FaceFinder,
    Similarity,
    choose_face,
    cut_faces,
    face_finder,
)
from lookalike.encoder.errors import ImageError
from lookalike.encoder.images import decode_rgb
from tests.fixtures.portrait import portrait_pixels

Pixels = NDArray[np.uint8]
CLOSE = 0.02
"""Of the width of the picture."""


@pytest.fixture(scope="module")
def portrait() -> Pixels:
    """A photograph with one face, uint8 (400, 480, 3)."""
    pixels: Pixels = portrait_pixels()[:400, :480]
    return pixels


@pytest.fixture(scope="module")
def known(portrait: Pixels) -> Face:
    """Its face."""
    (face,) = face_finder().find(portrait)
    return face


def resized(pixels: Pixels, scale: float) -> Pixels:
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), np.uint8)


def test_landmarks_stand_in_their_order(known: Face) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = known.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert known.score > 0.8
    assert known.width == pytest.approx(known.box[2] * 480, abs=1)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_picture_on_its_side_has_the_same_face(portrait: Pixels, known: Face, turns: int) -> None:
    (face,) = face_finder().find(np.rot90(portrait, turns))
    points = np.array(face.landmarks)
    for _ in range(turns):  # np.rot90 brings x, y to y, 1 - x; back again:
        points = np.stack([1 - points[:, 1], points[:, 0]], 1)
    assert np.abs(points - known.landmarks).max() < CLOSE
    x, y, across, down = known.box
    corners = np.array([[x, y], [x + across, y + down]])
    for _ in range(turns):
        corners = np.stack([corners[:, 1], 1 - corners[:, 0]], 1)
    low, high = corners.min(0), corners.max(0)
    assert face.box == pytest.approx([*low, *(high - low)], abs=2 * CLOSE)


@pytest.mark.parametrize("degrees", [-30, -20, -10, 10, 20, 30])
def test_a_tilted_face_has_the_same_landmarks(portrait: Pixels, known: Face, degrees: float) -> None:
    turned = np.asarray(Image.fromarray(portrait).rotate(-degrees, Image.Resampling.BICUBIC, expand=False))
    (face,) = face_finder().find(turned)
    height, width = portrait.shape[:2]
    radians = np.deg2rad(degrees)
    turn = complex(np.cos(radians), np.sin(radians))
    middle = complex(width / 2, height / 2)
    expected = Similarity(turn, middle - turn * middle).apply(known.points(width, height))
    assert np.abs(face.points(width, height) - expected).max() < CLOSE * width


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5, 2.0, 3.0])
def test_the_size_of_a_picture_changes_nothing(portrait: Pixels, known: Face, scale: float) -> None:
    (face,) = face_finder().find(resized(portrait, scale))
    assert np.abs(np.array(face.landmarks) - known.landmarks).max() < CLOSE
    assert face.width == pytest.approx(known.width * scale, rel=0.1)


def test_faces_are_numbered_from_left_to_right(portrait: Pixels) -> None:
    small = resized(portrait, 0.6)
    group = np.zeros((400, 480 + small.shape[1] + 100, 3), np.uint8) + np.uint8(90)
    group[-small.shape[0] :, : small.shape[1]] = small
    group[:, -480:] = portrait
    left, right = face_finder().find(group)
    assert left.box[0] < right.box[0]
    assert left.width < right.width
    assert choose_face([left, right], None, name="group.jpg") is right
    assert choose_face([left, right], 1, name="group.jpg") is left
    assert choose_face([left, right], 2, name="group.jpg") is right


def test_gray_pictures_have_faces_too(portrait: Pixels, known: Face) -> None:
    gray = np.asarray(Image.fromarray(portrait).convert("L").convert("RGB"), np.uint8)
    (face,) = face_finder().find(gray)
    assert np.abs(np.array(face.landmarks) - known.landmarks).max() < CLOSE


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (20, 20), (33, 500), (1500, 8)])
def test_small_and_thin_pictures_have_none(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert face_finder().find(noise) == []
    assert face_finder().find(np.zeros((*shape, 3), np.uint8)) == []


def test_a_face_of_few_pixels_is_left_out(portrait: Pixels, known: Face) -> None:
    faces = face_finder().find(resized(portrait, 0.8 * MIN_WIDTH / known.width), threshold=0.3)
    assert faces == []


def test_a_higher_threshold_finds_no_more(portrait: Pixels) -> None:
    counts = [len(face_finder().find(portrait, threshold=each)) for each in (0.3, 0.6, 0.8, 0.9)]
    assert counts == sorted(counts, reverse=True)
    assert face_finder().find(portrait, threshold=0.999) == []


def test_a_second_look_changes_the_landmarks_alone(portrait: Pixels, known: Face) -> None:
    (first,) = face_finder().find(portrait, refined=False)
    assert (first.box, first.score, first.width) == (known.box, known.score, known.width)
    assert first.landmarks != known.landmarks
    assert face_finder().refine(portrait, first) == known


def test_a_second_look_brings_wrong_landmarks_nearer(portrait: Pixels, known: Face) -> None:
    height, width = portrait.shape[:2]
    true = known.points(width, height)
    eyes = np.linalg.norm(true[1] - true[0])
    rng = np.random.default_rng(0)
    for _ in range(5):
        moved = true + rng.normal(0, 0.06 * eyes, (5, 2)).astype(np.float32)
        wrong = Face(known.box, tuple((x / width, y / height) for x, y in moved.tolist()), 0.9, known.width)
        refined = face_finder().refine(portrait, wrong)
        assert refined is not None
        better = refined.points(width, height)
        assert np.linalg.norm(better - true) < 0.7 * np.linalg.norm(moved - true)


def test_another_detector_can_stand_there(portrait: Pixels) -> None:
    class Fixed:
        name = "fixed"

        def detect(self, pixels: Pixels, *, threshold: float) -> NDArray[np.float32]:
            height, width = pixels.shape[:2]
            box = np.array([0.2 * width, 0.2 * height, 0.5 * width, 0.5 * height])
            points = LFW_FRAME.scaled(1) * box[2:] + box[:2]
            if height == width == 256:  # a close look
                points = LFW_FRAME.scaled(width, margin=0.5)
                box = np.array([0.25 * width, 0.15 * width, 0.5 * width, 0.7 * width])
            return np.array([[*box, *points.ravel(), 0.9]], np.float32)

    (face,) = FaceFinder(Fixed()).find(portrait)
    assert face.box == pytest.approx([0.2, 0.2, 0.5, 0.5], abs=1e-3)
    assert face.score == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [((0.9, 0.65), [0.9]), ((0.65,), [0.65]), ((0.9, 0.82, 0.7), [0.9, 0.82]), ((), [])],
)
def test_a_query_takes_less_certain_faces_where_there_are_no_others(
    portrait: Pixels, scores: tuple[float, ...], expected: list[float]
) -> None:
    class Several:
        name = "several"

        def detect(self, pixels: Pixels, *, threshold: float) -> NDArray[np.float32]:
            height, width = pixels.shape[:2]
            if height == width == 256:  # a close look
                points = LFW_FRAME.scaled(width, margin=0.5)
                return np.array([[64, 38, 128, 180, *points.ravel(), 0.9]], np.float32)
            rows = []
            for place, score in enumerate(scores):
                box = np.array([0.3 * place * width, 0.2 * height, 0.25 * width, 0.25 * height])
                rows.append([*box, *(LFW_FRAME.scaled(1) * box[2:] + box[:2]).ravel(), score])
            found = np.array(rows, np.float32).reshape(-1, 15)
            return found[found[:, 14] >= threshold]

    found = FaceFinder(Several()).find_for_query(portrait)
    assert [face.score for face in found] == pytest.approx(expected)


def test_faces_are_cut_out_upright(portrait: Pixels, known: Face) -> None:
    cut = cut_faces(portrait, [known], LFW_FRAME, 128, margin=0.5)
    assert cut.shape == (1, 128, 128, 3)
    (again,) = face_finder().find(cut[0])
    distance = again.points(128, 128) - LFW_FRAME.scaled(128, margin=0.5)
    assert np.abs(distance).max() < 4
    assert cut_faces(portrait, [], LFW_FRAME, 64).shape == (0, 64, 64, 3)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_picture_on_its_side_gives_the_same_cut(portrait: Pixels, known: Face, turns: int) -> None:
    turned = np.ascontiguousarray(np.rot90(portrait, turns))
    (face,) = face_finder().find(turned)
    upright, other = (
        cut_faces(pixels, [each], LFW_FRAME, 64)[0].astype(float)
        for pixels, each in ((portrait, known), (turned, face))
    )
    assert np.abs(upright - other).mean() < 10


def test_what_a_query_asks_for_must_be_there(known: Face) -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: no face was found; pass --crop full"):
        choose_face([], None, name="a.jpg")
    for number in (0, 2, -1):
        with pytest.raises(ImageError, match=rf"it has 1 faces, not {number}; choose 1 to 1"):
            choose_face([known], number, name="a.jpg")


@pytest.mark.lfw
def test_faces_of_people_are_found_where_lfw_has_them(lfw: LFW) -> None:
    for file in lfw.images()[::1200]:
        pixels = decode_rgb(file.read_bytes(), name=file.name)
        faces = face_finder().find(pixels)
        middles = [np.mean(face.landmarks, axis=0) for face in faces]
        assert min(np.abs(middle - 0.5).max() for middle in middles) < 0.1
