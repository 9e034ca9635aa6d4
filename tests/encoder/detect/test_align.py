"""Frames, the similarity that turns a face upright, and cutting it out."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.transform import SimilarityTransform, warp

from lookalike.encoder.detect import ARCFACE_FRAME, LFW_FRAME, Frame, Similarity, cut_out
from lookalike.encoder.errors import InvalidArgumentError

Floats = NDArray[np.float32]
resample: Callable[..., NDArray[np.float64]] = warp  # scikit-image has no types for them
transform: Callable[..., Any] = SimilarityTransform


def face_points(rng: np.random.Generator) -> Floats:
    """Landmarks of some face, turned anyhow, float32 (5, 2)."""
    turn = Similarity(complex(*rng.normal(0, 50, 2)), complex(*rng.uniform(0, 2000, 2)))
    moved = turn.apply(LFW_FRAME.scaled(1))
    return (moved + rng.normal(0, 2, (5, 2))).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_fit_has_the_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, targets = face_points(rng), LFW_FRAME.scaled(64)
    # x' = a x - b y + c, y' = b x + a y + d is linear in a, b, c, d.
    x, y = points.astype(np.float64).T
    ones, zeros = np.ones(5), np.zeros(5)
    rows = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    (a, b, c, d), *_ = np.linalg.lstsq(rows, targets.T.ravel().astype(np.float64), rcond=None)
    fitted = Similarity.fit(points, targets)
    assert fitted.matrix() == pytest.approx(np.array([[a, -b, c], [b, a, d]]), abs=1e-3, rel=1e-4)
    moved = fitted.apply(points)
    best = np.square(moved - targets).sum()
    for _ in range(50):  # no similarity beside it is better
        beside = Similarity(fitted.turn * (1 + complex(*rng.normal(0, 0.01, 2))), fitted.shift)
        assert np.square(beside.apply(points) - targets).sum() >= best - 1e-4


@pytest.mark.parametrize("seed", range(6))
def test_fit_finds_an_exact_similarity_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = Similarity(complex(*rng.normal(0, 2, 2)), complex(*rng.uniform(-99, 99, 2)))
    points = ARCFACE_FRAME.scaled(112)
    found = Similarity.fit(points, true.apply(points))
    assert found.turn == pytest.approx(true.turn, abs=1e-4)
    assert found.shift == pytest.approx(true.shift, abs=1e-2)
    assert found.scale == pytest.approx(abs(true.turn), rel=1e-4)
    assert math.cos(math.radians(found.degrees)) == pytest.approx(true.turn.real / abs(true.turn), abs=1e-4)
    assert found.inverse().apply(found.apply(points)) == pytest.approx(points, abs=1e-2)


def test_points_in_one_place_do_not_divide_by_zero() -> None:
    place = np.full((5, 2), 7, np.float32)
    frame = LFW_FRAME.scaled(64)
    assert Similarity.fit(place, frame).scale == 1
    assert Similarity.fit(frame, place).scale == 1


def test_degrees_are_clockwise_as_shown() -> None:
    # y runs down: what points right points down after a quarter turn clockwise.
    (moved,) = Similarity(1j, 0).apply(np.array([[1, 0]], np.float32))
    assert moved == pytest.approx([0, 1])
    assert Similarity(1j, 0).degrees == pytest.approx(90)


def smooth(height: int, width: int, period: float, phase: float = 0.0) -> NDArray[np.float64]:
    """Waves without detail, float64 (H, W, 3) in 0..255; middles of pixels lie at half numbers."""
    y, x = np.mgrid[:height, :width] + 0.5
    waves = [
        np.sin(2 * np.pi * (x * a + y * b) / period + phase) for a, b in ((1, 0.3), (-0.4, 1), (0.7, 0.7))
    ]
    return 127.5 + 100 * np.stack(waves, 2)


@pytest.mark.parametrize("scale", [0.1, 0.17, 0.25, 0.4, 0.5, 0.7, 1.0, 1.3, 2.0, 3.3, 5.0])
@pytest.mark.parametrize("degrees", [0, 23, -90, 171])
def test_cut_out_is_the_warp_of_smooth_pictures(scale: float, degrees: float) -> None:
    side = 48
    size = math.ceil(side / scale * 2)
    picture = smooth(size, size + 7, period=max(30 / scale, 12))
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees))) * scale
    middle = complex(size / 2 + 1.3, size / 2 - 2.1)
    similarity = Similarity(turn, complex(side / 2, side / 2) - turn * middle)
    cut = cut_out(np.rint(picture).astype(np.uint8), similarity, side)
    assert cut.shape == (side, side, 3)
    # scikit-image counts from the middle of the first pixel: x - 0.5 there is x here.
    shift = similarity.shift + turn * complex(0.5, 0.5) - complex(0.5, 0.5)
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]])
    expected = resample(picture, transform(matrix).inverse, output_shape=(side, side), order=1, mode="edge")
    assert np.abs(cut - expected).mean() < 2.5
    assert np.abs(cut - expected).max() < 14


@pytest.mark.parametrize("scale", [0.12, 0.3, 1.0, 4.0])
def test_pixels_outside_repeat_the_edge(scale: float) -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[:, :40], picture[:, 40:] = (200, 10, 10), (10, 10, 200)
    left = cut_out(picture, Similarity(complex(scale), complex(100, 5)), 32)
    right = cut_out(picture, Similarity(complex(scale), complex(-100 - 80 * scale, 5)), 32)
    assert (left == (200, 10, 10)).all()
    assert (right == (10, 10, 200)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
@pytest.mark.parametrize("scale", [0.05, 1.0, 40.0])
def test_tiny_pictures_are_cut_too(shape: tuple[int, int], scale: float) -> None:
    picture = np.full((*shape, 3), 77, np.uint8)
    for shift in (0, 500, -500):
        assert (cut_out(picture, Similarity(complex(scale), complex(shift, shift)), 16) == 77).all()


def test_a_fine_pattern_is_averaged_not_sampled() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[::2, ::2] = picture[1::2, 1::2] = 255
    cut = cut_out(picture, Similarity(0.1 + 0.02j, 5), 32)
    assert abs(float(cut[4:-4, 8:-4].mean()) - 127.5) < 6
    assert cut[4:-4, 8:-4].std() < 25


FRAMES = [
    LFW_FRAME,
    ARCFACE_FRAME,
    Frame(((0.25, 0.25), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.75, 0.75))),
    Frame(((-1.0, 2.0), (1.5, 0.0), (0.0, 0.125), (1e-3, 0.5), (0.875, -0.25))),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_frames_are_read_as_they_are_written(frame: Frame) -> None:
    assert Frame.parse(str(frame)) == frame
    assert Frame.parse(f"  {str(frame).upper()} ") == frame


def test_the_named_frames() -> None:
    assert (str(LFW_FRAME), str(ARCFACE_FRAME)) == ("lfw", "arcface")
    assert LFW_FRAME.scaled(90)[0] == pytest.approx([23.86, 32.24], abs=0.01)
    assert ARCFACE_FRAME.scaled(112)[2] == pytest.approx([56.0252, 71.7366], abs=0.01)
    assert LFW_FRAME.scaled(180, margin=0.5) == pytest.approx(LFW_FRAME.scaled(90) + 45, abs=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_any_frame_is_read_as_it_is_written(seed: int) -> None:
    values = np.random.default_rng(seed).uniform(-1, 2, (5, 2)).round(5).tolist()
    frame = Frame(tuple((x, y) for x, y in values))
    assert np.array(Frame.parse(str(frame)).points) == pytest.approx(np.array(frame.points), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("face", "cannot read 'face'"),
        ("0.1,0.2", "'0.1,0.2' has 2"),
        (",".join(["0.1"] * 11), "has 11"),
        (",".join(["0.5"] * 10), "differ"),
        (",".join(map(str, range(10))), "from -1 to 2"),
        ("nan," + ",".join(["0.1"] * 9), "from -1 to 2"),
        ("inf," + ",".join(["0.1"] * 9), "from -1 to 2"),
    ],
)
def test_other_frames_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        Frame.parse(text)
    assert "\n" not in str(caught.value)
