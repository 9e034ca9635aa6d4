"""Turn and scale a face so that its landmarks lie where a model's training pictures have them.

A similarity (scale, turn, shift) has four numbers; here it is z -> a z + b with points x + iy and complex a
and b, and the least-squares fit is that of Umeyama, "Least-squares estimation of transformation parameters
between two point patterns", IEEE TPAMI 13(4), 1991, without its case of reflections.

Legend: n faces, S side of a model's input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect.face import LANDMARKS, Points
from lookalike.encoder.errors import InvalidArgumentError

Pixels = NDArray[np.uint8]
_NAMES: Final = ("lfw", "arcface")


def _is_near(value: object) -> bool:
    return type(value) is float and -1 <= value <= 2


def _text(points: tuple[tuple[float, float], ...]) -> str:
    return ",".join(f"{value:g}" for point in points for value in point)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the landmarks of a face lie in a model's input.

    Attributes:
        points: x, y of each of the five, in fractions of the input's side; a point may lie outside.

    Raises:
        InvalidArgumentError: Not five different points of finite numbers.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        flat = [value for point in self.points for value in point]
        if len(self.points) != LANDMARKS or len(flat) != 2 * LANDMARKS or not all(map(_is_near, flat)):
            raise InvalidArgumentError(
                "a frame has five landmarks, x and y of each in fractions of the side, from -1 to 2; "
                f"got {_text(self.points)}; write lfw, arcface or x,y,..."
            )
        if len(set(self.points)) < LANDMARKS:
            raise InvalidArgumentError(
                f"the landmarks of a frame differ, those of {_text(self.points)} do not"
            )

    @classmethod
    def parse(cls, text: str) -> Frame:
        """``lfw``, ``arcface``, or ten numbers: x,y of the landmarks in fractions of the side.

        Raises:
            InvalidArgumentError: The text is none of these.
        """
        word = text.strip().lower()
        if word in _NAMES:
            return LFW_FRAME if word == "lfw" else ARCFACE_FRAME
        try:
            values = [float(part) for part in word.split(",")]
        except ValueError as error:
            raise InvalidArgumentError(
                f"frame: cannot read '{text}'; write lfw, arcface or x,y of five landmarks, ten numbers"
            ) from error
        if len(values) != 2 * LANDMARKS:
            raise InvalidArgumentError(
                f"frame: five landmarks have ten numbers, '{text}' has {len(values)}; write x,y of each"
            )
        return cls(tuple(zip(values[::2], values[1::2], strict=True)))

    def __str__(self) -> str:
        names = {LFW_FRAME: "lfw", ARCFACE_FRAME: "arcface"}
        return names.get(self) or _text(self.points)

    def widened(self, margin: float) -> Frame:
        """Return where the landmarks lie in a square that shows ``margin`` of the side more on each side."""
        shares = [tuple((value + margin) / (1 + 2 * margin) for value in point) for point in self.points]
        return Frame(tuple((x, y) for x, y in shares))

    def scaled(self, side: int, *, margin: float = 0.0) -> Points:
        """Return the landmarks in pixels of a square of ``side`` that shows ``margin`` more on each side."""
        share = np.array(self.points, np.float32)
        return (share + np.float32(margin)) / np.float32(1 + 2 * margin) * np.float32(side)


LFW_FRAME: Final = Frame(
    tuple(
        (round((x - 80) / 90, 5), round((y - 80) / 90, 5))
        for x, y in (
            (103.86, 112.24),
            (145.76, 111.23),
            (124.85, 137.27),
            (108.03, 158.52),
            (143.42, 157.61),
        )
    )
)
"""Means of the landmarks that YuNet finds on LFW, 250 pixels wide, in the crop from 80 to 170."""
ARCFACE_FRAME: Final = Frame(
    tuple(
        (round(x / 112, 5), round(y / 112, 5))
        for x, y in (
            (38.2946, 51.6963),
            (73.5318, 51.5014),
            (56.0252, 71.7366),
            (41.5493, 92.3655),
            (70.7299, 92.2041),
        )
    )
)
"""Of the 112 pixels that ArcFace's networks take (Deng et al., arXiv:1801.07698, and its published code)."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """z -> turn z + shift, points x + iy."""

    turn: complex
    shift: complex

    @classmethod
    def fit(cls, points: Points, targets: Points) -> Similarity:
        """Return the one that brings ``points`` nearest to ``targets``, both float32 (5, 2).

        All points in one place give no scale: it is then that of one pixel.
        """
        here, there = _complex(points), _complex(targets)
        centered = here - here.mean()
        size = float((abs(centered) ** 2).sum())
        turn = complex((centered.conj() * (there - there.mean())).sum()) / size if size > 0 else 1 + 0j
        if not abs(turn) > 0:
            turn = 1 + 0j
        return cls(turn, complex(there.mean() - turn * here.mean()))

    @property
    def scale(self) -> float:
        """By how much it enlarges."""
        return abs(self.turn)

    @property
    def degrees(self) -> float:
        """By how much it turns, clockwise as shown."""
        return math.degrees(math.atan2(self.turn.imag, self.turn.real))

    def inverse(self) -> Similarity:
        """Return the one that brings everything back."""
        return Similarity(1 / self.turn, -self.shift / self.turn)

    def apply(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return float32 (n, 2) where it brings points (n, 2)."""
        moved = self.turn * _complex(points) + self.shift
        return np.stack([moved.real, moved.imag], 1).astype(np.float32)

    def matrix(self) -> NDArray[np.float64]:
        """Return it as float64 (2, 3)."""
        a, b = self.turn, self.shift
        return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def cut_out(pixels: Pixels, similarity: Similarity, side: int) -> Pixels:
    """Return the square that a similarity brings to 0..side, uint8 (side, side, 3).

    Places outside the picture repeat its edge. What is made smaller is averaged, as resizing does.

    Args:
        pixels: uint8 (H, W, 3).
        similarity: From pixels of the picture to pixels of the square.
        side: In pixels.
    """
    import cv2

    height, width = pixels.shape[:2]
    corners = similarity.inverse().apply(np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float32))
    # The part that is needed, with a margin: for a small face of a large picture it is small.
    margin = 4 / similarity.scale + 2
    left, top = (math.floor(max(0, value - margin)) for value in corners.min(0))
    right, bottom = (
        math.ceil(min(limit, value + margin))
        for value, limit in zip(corners.max(0), (width, height), strict=True)
    )
    left, top = min(left, width - 1), min(top, height - 1)
    part = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    turn, shift = similarity.turn, similarity.shift + similarity.turn * complex(left, top)
    # Twice the side, then averaged; before that whole pixels are averaged where even that is much smaller.
    turn, shift = 2 * turn, 2 * shift
    shrink = max(1, int(1 / abs(turn)))
    if shrink > 1:
        rows, columns = (max(1, length // shrink) for length in part.shape[:2])
        fits = min(rows * shrink, part.shape[0]), min(columns * shrink, part.shape[1])
        averaged = cv2.resize(part[: fits[0], : fits[1]], (columns, rows), interpolation=cv2.INTER_AREA)
        part = np.asarray(averaged, np.uint8)
        turn = turn * shrink
    # OpenCV counts from the middle of the first pixel, we from its corner.
    shift = shift + turn * complex(0.5, 0.5) - complex(0.5, 0.5)
    large = cv2.warpAffine(
        part,
        Similarity(turn, shift).matrix(),
        (2 * side, 2 * side),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def _complex(points: NDArray[np.float32]) -> NDArray[np.complex128]:
    return points[:, 0].astype(np.float64) + 1j * points[:, 1].astype(np.float64)
