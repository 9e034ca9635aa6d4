"""A face that was changed is put back where it was, and nothing else of the photograph changes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lookalike.encoder.detect import (
    LFW_FRAME,
    ChosenFace,
    CutFace,
    Face,
    Similarity,
    face_finder,
    read_face,
)
from lookalike.encoder.errors import ImageError, InvalidArgumentError
from lookalike.encoder.images import ImageSpec, encode_png
from tests.fixtures.face_pictures import face_picture

S = 64
TURNED = [
    (scale, degrees)
    for scale in (0.3, 1.0, 4.0)  # pixels of the photograph for one of the model
    for degrees in (0, 17, -40, 180)
]


def gray_photograph(scale: float, degrees: float, *, at: complex | None = None) -> tuple[CutFace, Face]:
    """A face of this size and turn in the middle of a photograph without detail."""
    side = round(2 * S * scale) + 41
    middle = complex(side / 2, side / 2) if at is None else at
    turn = scale * np.exp(1j * np.deg2rad(degrees))
    place = Similarity(complex(turn), middle - complex(turn) * complex(S / 2, S / 2))
    points = place.apply(LFW_FRAME.scaled(S))
    face = Face.from_pixels(
        np.array([*points.min(0), *np.ptp(points, 0)], np.float32), points, 0.9, width=side, height=side
    )
    photograph = np.full((side, side, 3), 100, np.uint8)
    return CutFace.of(photograph, face, LFW_FRAME, ImageSpec(size=S)), face


def inside(cut: CutFace) -> NDArray[np.bool_]:
    """Which pixels of the photograph have their middle in the square, or nearly, (H, W)."""
    height, width = cut.photograph.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    where = cut.similarity.apply(np.stack([x.ravel(), y.ravel()], 1)).reshape(height, width, 2)
    slack = max(0.01, cut.similarity.scale)  # a pixel that the border crosses
    return np.asarray(((where > -slack) & (where < S + slack)).all(2))


@pytest.mark.parametrize(("scale", "degrees"), TURNED)
def test_a_change_lands_where_it_was_made(scale: float, degrees: float) -> None:
    cut, _ = gray_photograph(scale, degrees)
    changed = cut.pixels.copy()
    changed[38:42, 30:36] += 60
    pasted = cut.paste(changed)
    change = np.abs(pasted.astype(np.float64) - cut.photograph).mean(2)
    y, x = np.mgrid[: change.shape[0], : change.shape[1]] + 0.5
    found = np.array([(x * change).sum(), (y * change).sum()]) / change.sum()
    (expected,) = cut.similarity.inverse().apply(np.array([[33, 40]], np.float32))
    assert np.abs(found - expected).max() < min(2.0, 0.1 + 0.05 * scale)
    # As much is added as was changed: 24 pixels of the cut-out by 60.
    assert change.sum() == pytest.approx(24 * 60 * scale**2, rel=0.15)


@pytest.mark.parametrize(("scale", "degrees"), TURNED)
def test_pixels_outside_the_square_are_untouched_and_no_edge_is_seen(scale: float, degrees: float) -> None:
    cut, _ = gray_photograph(scale, degrees)
    pasted = cut.paste(cut.pixels + np.uint8(100))
    change = pasted.astype(int) - cut.photograph
    within = inside(cut)
    assert not change[~within].any()
    assert change.max() == 100
    steps = max(np.abs(np.diff(change, axis=axis)).max() for axis in (0, 1))
    assert steps <= 100 * 1.5 / (0.09 * S * scale) * 1.42 + 2  # the steepest place of the fading, diagonally


@pytest.mark.parametrize("turned", [0, 1])
def test_nothing_changed_is_nothing_pasted(turned: int) -> None:
    photograph = face_picture(0, 8, turned=turned)
    for face in face_finder().find(photograph):
        for spec in (ImageSpec(size=S), ImageSpec(size=S, channels=1)):
            cut = CutFace.of(photograph, face, LFW_FRAME, spec)
            assert np.array_equal(cut.paste(cut.pixels.copy()), photograph)
            assert cut.paste(cut.pixels.copy()) is not cut.photograph


def test_detail_that_the_model_has_no_pixels_for_stays() -> None:
    cut, face = gray_photograph(6.0, 10)
    rng = np.random.default_rng(0)
    grain = rng.integers(60, 140, cut.photograph.shape, np.uint8)
    fine = CutFace.of(grain, face, LFW_FRAME, ImageSpec(size=S))
    pasted = fine.paste(fine.pixels + np.uint8(30))
    change = pasted.astype(int) - grain
    assert set(np.unique(change)) == set(range(31))  # the change alone, smooth


def test_a_face_at_the_edge_and_one_outside() -> None:
    for at in (complex(0, 0), complex(60, 170), complex(-500, 0)):
        cut, _ = gray_photograph(1.5, 30, at=at)
        pasted = cut.paste(cut.pixels + np.uint8(50))
        change = pasted.astype(int) - cut.photograph
        assert change.any() == (at.real >= 0)
        assert not change[~inside(cut)].any()


def test_gray_models_change_all_colors_alike_and_values_stay_in_range() -> None:
    cut, face = gray_photograph(2.0, 5)
    white = np.full_like(cut.photograph, 250)
    gray = CutFace.of(white, face, LFW_FRAME, ImageSpec(size=S, channels=1))
    assert gray.pixels.shape == (S, S, 1)
    lighter = gray.paste(np.full((S, S, 1), 255, np.uint8))
    assert lighter.max() == 255
    assert np.ptp(lighter.astype(int), axis=2).max() == 0
    darker = gray.paste(np.zeros((S, S, 1), np.uint8))
    assert darker.min() == 0
    with pytest.raises(InvalidArgumentError, match="has the shape of what was cut out"):
        gray.paste(np.zeros((S, S, 3), np.uint8))


def test_the_main_face_is_read_or_one_by_number() -> None:
    data = encode_png(face_picture(0, 8))
    spec = ImageSpec(size=S)
    first, second = (
        read_face(data, spec, LFW_FRAME, ChosenFace(number), name="a.png").similarity for number in (1, 2)
    )
    middles = [each.inverse().apply(np.array([[S / 2, S / 2]], np.float32))[0, 0] for each in (first, second)]
    assert middles[0] < 160 < middles[1]
    assert read_face(data, spec, LFW_FRAME, ChosenFace(), name="a.png").similarity in (first, second)
    with pytest.raises(ImageError, match=r"a\.png: it has 2 faces, not 3; choose 1 to 2"):
        read_face(data, spec, LFW_FRAME, ChosenFace(3), name="a.png")
    with pytest.raises(ImageError, match="no face was found"):
        read_face(encode_png(face_picture()), spec, LFW_FRAME, ChosenFace(), name="a.png")
    with pytest.raises(InvalidArgumentError, match="0 is none"):
        ChosenFace(0)
