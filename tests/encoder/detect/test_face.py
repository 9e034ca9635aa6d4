"""A face: its coordinates in pixels and back, and as JSON."""

import json
import re

import numpy as np
import pytest

from lookalike.encoder.detect import Face
from lookalike.encoder.errors import InvalidArgumentError

LANDMARKS = ((0.3, 0.4), (0.6, 0.4), (0.45, 0.5), (0.35, 0.6), (0.55, 0.6))
FACE = Face((0.25, 0.3, 0.4, 0.45), LANDMARKS, 0.9, 120)


def test_pixels_and_fractions() -> None:
    points = FACE.points(200, 100)
    assert points.dtype == np.float32
    assert points == pytest.approx(np.array([(x * 200, y * 100) for x, y in LANDMARKS]))
    box = np.array([50, 30, 80, 45], np.float32)
    again = Face.from_pixels(box, points, 0.9, width=200, height=100)
    assert again.box == pytest.approx(FACE.box)
    assert np.array(again.landmarks) == pytest.approx(np.array(LANDMARKS))
    assert again.width == 80


@pytest.mark.parametrize("seed", range(20))
def test_json_is_read_back_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    box, points = rng.uniform(-50, 900, 4), rng.uniform(-50, 900, (5, 2))
    face = Face.from_pixels(
        box.astype(np.float32),
        points.astype(np.float32),
        float(rng.uniform(0.1, 1)),
        width=int(rng.integers(1, 5000)),
        height=int(rng.integers(1, 5000)),
    )
    values = json.loads(json.dumps(face.to_json()))
    assert Face.from_json(values) == face
    assert Face.from_json(values | {"number": 1, "path": "a.jpg"}) == face


GOOD = FACE.to_json()


@pytest.mark.parametrize(
    "values",
    [
        {},
        *({key: value for key, value in GOOD.items() if key != left_out} for left_out in GOOD),
        GOOD | {"box": [0.1, 0.2, 0.3]},
        GOOD | {"box": None},
        GOOD | {"box": ["a", 0, 0, 0]},
        GOOD | {"box": [float("nan"), 0, 0, 0]},
        GOOD | {"landmarks": [[0.1, 0.2]] * 4},
        GOOD | {"landmarks": [[0.1, 0.2, 0.3]] * 5},
        GOOD | {"landmarks": [[0.1, float("inf")]] * 5},
        GOOD | {"score": "high"},
        GOOD | {"score": float("nan")},
        GOOD | {"width": float("inf")},
        GOOD | {"width": None},
    ],
)
def test_what_is_no_face_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"^a face has a box of four numbers.*find the faces again$"
    ):
        Face.from_json(values)


def test_prominence_weighs_score_and_size() -> None:
    small, large = (Face((0, 0, side, side), LANDMARKS, 0.9, 50) for side in (0.1, 0.2))
    unsure = Face((0, 0, 0.2, 0.2), LANDMARKS, 0.4, 50)
    assert large.prominence == pytest.approx(0.18)
    assert large.prominence > small.prominence > unsure.prominence
    assert Face((0, 0, -0.1, 0.1), LANDMARKS, 0.9, 50).prominence == 0
    assert not re.search("nan", str(large.prominence))
