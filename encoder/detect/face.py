"""Faces of a picture: where they are, and how sure the detector is.

Coordinates are fractions of the picture as shown, upright: x of its width to the right, y of its height down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError

LANDMARKS: Final = 5
"""Eyes, tip of the nose, corners of the mouth; the first eye and the first corner are those at the left of an
upright picture."""
_DIGITS: Final = 5

Points = NDArray[np.float32]
"""float32 (5, 2): x, y of the landmarks."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face of a picture.

    Attributes:
        box: x, y, width, height. A face at the edge of a picture may reach out of it.
        landmarks: x, y of each of the five.
        score: Of the detector, 0 to 1.
        width: Of the box, in pixels of the picture.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    score: float
    width: int

    @property
    def prominence(self) -> float:
        """What the main face of a picture has most of: its score times the root of its share of the area."""
        return self.score * math.sqrt(max(self.box[2] * self.box[3], 0.0))

    @property
    def centrality(self) -> float:
        """How near to the middle of the picture it is: 0 there, less elsewhere."""
        left, top, width, height = self.box
        return -math.hypot(left + width / 2 - 0.5, top + height / 2 - 0.5)

    def points(self, width: int, height: int) -> Points:
        """Return the landmarks in pixels of a picture of this size."""
        return np.array(self.landmarks, np.float32) * np.array([width, height], np.float32)

    @classmethod
    def from_pixels(
        cls, box: NDArray[np.float32], points: Points, score: float, *, width: int, height: int
    ) -> Face:
        """Return a face found at ``box`` (4,) and ``points``, in pixels of a picture of this size."""
        left, top, across, down = (float(value) for value in box)
        return cls(
            (_tidy(left / width), _tidy(top / height), _tidy(across / width), _tidy(down / height)),
            fractions(points, width, height),
            round(float(score), 4),
            round(across),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that :meth:`from_json` reads back equal."""
        return {
            "box": list(self.box),
            "landmarks": [list(point) for point in self.landmarks],
            "score": self.score,
            "width": self.width,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Face:
        """Read what :meth:`to_json` wrote; other keys are left alone.

        Raises:
            InvalidArgumentError: A key is missing, or a value is invalid.
        """
        try:
            box = tuple(map(float, values["box"]))
            landmarks = tuple((float(x), float(y)) for x, y in values["landmarks"])
            score, width = float(values["score"]), int(values["width"])
            numbers = [*box, *(each for point in landmarks for each in point), score]
            valid = len(box) == 4 and len(landmarks) == LANDMARKS and all(map(math.isfinite, numbers))
        except (KeyError, TypeError, ValueError, OverflowError):
            valid = False
        if not valid:
            raise InvalidArgumentError(
                "a face has a box of four numbers, five landmarks of two, a score and a width, this has not: "
                f"{str(values)[:100]}; find the faces again"
            )
        return cls((box[0], box[1], box[2], box[3]), landmarks, score, width)


def place_in_words(number: int, count: int) -> str:
    """Return which of how many faces of a picture is meant, for people."""
    return f"face {number} of {count}, from the left"


def fractions(points: Points, width: int, height: int) -> tuple[tuple[float, float], ...]:
    """Return landmarks in pixels of a picture of this size as fractions of it."""
    return tuple((_tidy(x / width), _tidy(y / height)) for x, y in points.tolist())


def _tidy(value: float) -> float:
    return round(value, _DIGITS)
