"""Find the faces of whole photographs, and cut them out upright for a model.

Two looks: on the picture at two sizes, as a detector misses faces much larger or smaller than those it was
trained on; then closely, on each face turned upright and scaled to one size, where its landmarks are more
exact: once to turn it the right way up, once with its mirror image, averaged. What is not seen closely is no
face.

Legend: n faces, H, W height and width of a picture as shown, S side of a model's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect.align import LFW_FRAME, Frame, Similarity, cut_out
from lookalike.encoder.detect.face import Face, Points, fractions
from lookalike.encoder.detect.yunet import Detector, Found, Pixels, YuNet
from lookalike.encoder.errors import ImageError, printable

INDEX_THRESHOLD: Final = 0.8
"""Of 700 faces in made photographs it keeps 699, and in 300 without one it finds 10 (``evaluate faces``)."""
QUERY_THRESHOLD: Final = 0.6
"""Whoever asks with a picture says that there is a face."""
MIN_WIDTH: Final = 28
"""Pixels: of smaller faces too little is left to compare."""
_FILLED: Final = 0.35
"""Least width of a face, of the part of a picture that it fills."""
_LONG_SIDES: Final = (1280, 320)
_OVERLAP: Final = 0.3
_SAME_FACE: Final = 0.4
_CLOSE_SIDE: Final = 256
_CLOSE_MARGIN: Final = 0.5
_CLOSE_THRESHOLD: Final = 0.3
_SURE: Final = 0.9
"""A face with a better score is seen upright."""
_TURN_GAIN: Final = 0.02
_SAME_SIDE: Final = 0.7
"""Cosine of the angle, about 45 degrees, by which two looks at one face may differ."""


class FaceFinder:
    """Finds faces; several threads may use one.

    Args:
        detector: Finds them in one picture; None: YuNet.

    Raises:
        MissingExtraError: The extra ``faces`` is not installed.
    """

    def __init__(self, detector: Detector | None = None) -> None:
        self._detector = YuNet() if detector is None else detector

    def find(self, pixels: Pixels, *, threshold: float = INDEX_THRESHOLD, refined: bool = True) -> list[Face]:
        """Return the faces of a picture, from left to right.

        Where there is none, the picture may lie on its side or stand on its head: it is turned.

        Args:
            pixels: uint8 (H, W, 3), RGB.
            threshold: Smallest score.
            refined: Whether each face is looked at closely, see :meth:`refine`.
        """
        height, width = pixels.shape[:2]
        if min(height, width) < MIN_WIDTH:
            return []
        looks = _reduced_to(pixels, _LONG_SIDES)
        for turns in range(4):
            rows = (
                _turned_back(row, turns, height, width)
                for row in self._find_upright([(np.rot90(look, turns), by) for look, by in looks], threshold)
            )
            found = [face for row in rows if (face := _face(row, height, width)).width >= MIN_WIDTH]
            if refined:
                found = [better for face in found if (better := self.refine(pixels, face)) is not None]
            if found:
                return sorted(found, key=lambda face: (face.box[0], face.box[1]))
        return []

    def find_for_query(self, pixels: Pixels) -> list[Face]:
        """Return the faces that indexing finds; where it finds none, those that are less certain.

        So the number of a face is the same in a query as where faces are listed.

        Args:
            pixels: uint8 (H, W, 3), RGB.
        """
        return self.find(pixels) or self.find(pixels, threshold=QUERY_THRESHOLD)

    def fills(self, square: Pixels, fraction: float) -> bool:
        """Whether a face fills the middle of a square picture, as it does in the images of a model of faces.

        Args:
            square: uint8 (S, S, 3), RGB; 200 pixels are enough.
            fraction: Side of the middle, of S.
        """
        side = len(square)
        rows = self._detector.detect(square, threshold=QUERY_THRESHOLD)
        off = np.abs(rows[:, :2] + rows[:, 2:4] / 2 - side / 2).max(axis=1, initial=0)
        return bool(((off < fraction * side / 2) & (rows[:, 2] > _FILLED * fraction * side)).any())

    def _find_upright(self, looks: Sequence[tuple[Pixels, float]], threshold: float) -> Found:
        """Return the faces (n, 15) of a picture that is given at several scales, those that overlap once."""
        found: list[Found] = []
        for look, scale in looks:
            rows = self._detector.detect(look, threshold=threshold)
            found.append(np.concatenate([rows[:, :14] / np.float32(scale), rows[:, 14:]], 1))
        return _best_of_overlapping(np.concatenate(found))

    def refine(self, pixels: Pixels, face: Face) -> Face | None:
        """Return a face with the landmarks that are found when it is seen upright and large.

        A detector takes some faces that lie on their side or stand on their head for upright ones: where it
        is not sure, the face is seen from all four sides, and that with the best score counts. Then it is
        seen once more, and so is its mirror image.

        Args:
            pixels: uint8 (H, W, 3), RGB, the picture that it was found in.
            face: The face.

        Returns:
            None where no face is seen there: then it was none.
        """
        height, width = pixels.shape[:2]
        first = face.points(width, height)
        points = self._upright_landmarks(pixels, first)
        if points is None:
            return None
        close = _close_up(points)
        square, here = cut_out(pixels, close, _CLOSE_SIDE), close.apply(points)
        plain = self._landmarks_near(square, here)
        mirror = self._landmarks_near(square[:, ::-1], _mirrored(here))
        views = [] if plain is None else [plain[1]]
        views += [] if mirror is None else [_mirrored(mirror[1])]
        if views:
            here = np.mean(views, axis=0, dtype=np.float32)
            points = close.inverse().apply(here)
        better = replace(face, landmarks=fractions(points, width, height))
        turn = _close_up(first).turn / close.turn
        if turn.real > _SAME_SIDE * abs(turn):
            return better
        # It was taken for an upright one: its box is as wrong.
        box = _box_around(here)
        corners = box[:2] + box[2:] * np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
        corners = close.inverse().apply(corners)
        low, high = corners.min(0), corners.max(0)
        around = np.concatenate([low, high - low])
        return Face.from_pixels(around, points, face.score, width=width, height=height)

    def _upright_landmarks(self, pixels: Pixels, points: Points) -> Points | None:
        """Return the landmarks that are found in a close-up, from the side where the face is upright."""
        close = _close_up(points)
        square, here = cut_out(pixels, close, _CLOSE_SIDE), close.apply(points)
        seen = self._landmarks_near(square, here)
        if seen is None or seen[0] < _SURE:
            middle = complex(_CLOSE_SIDE / 2, _CLOSE_SIDE / 2)
            for quarters, turn in ((1, -1j), (2, -1 + 0j), (3, 1j)):
                turned = Similarity(turn, middle - turn * middle)
                other = self._landmarks_near(np.rot90(square, quarters), turned.apply(here))
                if other is not None and (seen is None or other[0] > seen[0] + _TURN_GAIN):
                    seen = other[0], turned.inverse().apply(other[1])
        return None if seen is None else close.inverse().apply(seen[1])

    def _landmarks_near(self, square: Pixels, points: Points) -> tuple[float, Points] | None:
        """Return the best score of the face at some landmarks of a square, and where it has them itself."""
        found = self._detector.detect(square, threshold=_CLOSE_THRESHOLD)
        near = found[_overlaps(found, _box_around(points)) > _SAME_FACE] if len(found) else found
        if not len(near):
            return None
        weights = near[:, 14:] ** 2
        mean = (near[:, 4:14] * weights).sum(0) / weights.sum()
        return float(near[:, 14].max()), mean.reshape(5, 2).astype(np.float32)


def cut_faces(pixels: Pixels, faces: list[Face], frame: Frame, side: int, *, margin: float = 0.0) -> Pixels:
    """Return faces upright, their landmarks where a model expects them: uint8 (n, S, S, 3).

    Args:
        pixels: uint8 (H, W, 3), the picture that they were found in.
        faces: n faces.
        frame: Where the landmarks belong.
        side: S.
        margin: How much more is shown on each side, in fractions of the frame.
    """
    height, width = pixels.shape[:2]
    cut = np.empty((len(faces), side, side, 3), np.uint8)
    for row, face in enumerate(faces):
        similarity = Similarity.fit(face.points(width, height), frame.scaled(side, margin=margin))
        cut[row] = cut_out(pixels, similarity, side)
    return cut


@cache
def face_finder() -> FaceFinder:
    """Return the finder that is shared by all threads.

    Raises:
        MissingExtraError: The extra ``faces`` is not installed.
    """
    return FaceFinder()


def labeled_face(faces: Sequence[Face], *, centered: bool) -> int | None:
    """Return the index of the face that an image is named after; None where there is no face.

    Args:
        faces: All that were found in it.
        centered: The image was cut out around the person, as those of LFW are: it is the face nearest to the
            middle. Else it is the most prominent one, as in a search.
    """
    if not faces:
        return None
    return max(
        range(len(faces)),
        key=lambda place: faces[place].centrality if centered else faces[place].prominence,
    )


def choose_face(faces: list[Face], number: int | None, *, name: str) -> Face:
    """Return the face of a query: the one with a number, from 1 at the left, or the most prominent.

    Raises:
        ImageError: There is none, or none of that number; the message names ``name``.
    """
    if not faces:
        raise ImageError(
            f"{printable(name)}: no face was found; pass --crop full (or --crop X,Y,W,H) to use it as it is"
        )
    if number is None:
        return max(faces, key=lambda face: face.prominence)
    if not 1 <= number <= len(faces):
        raise ImageError(
            f"{printable(name)}: it has {len(faces)} faces, not {number}; choose 1 to {len(faces)}"
        )
    return faces[number - 1]


def _face(row: NDArray[np.float32], height: int, width: int) -> Face:
    return Face.from_pixels(row[:4], row[4:14].reshape(5, 2), float(row[14]), width=width, height=height)


def _reduced_to(pixels: Pixels, long_sides: Sequence[int]) -> list[tuple[Pixels, float]]:
    """Return a picture at several sizes, each made of the one before, and by how much it was scaled.

    Sizes that it does not reach are left out, all but the first.
    """
    import cv2

    looks = [(pixels, 1.0)]
    for long_side in long_sides:
        look, scale = looks[-1]
        height, width = look.shape[:2]
        if long_side < max(height, width):
            by = long_side / max(height, width)
            size = max(1, round(width * by)), max(1, round(height * by))
            look = np.ascontiguousarray(look)
            looks.append(
                (np.asarray(cv2.resize(look, size, interpolation=cv2.INTER_AREA), np.uint8), scale * by)
            )
    return looks[1:] if max(pixels.shape[:2]) > long_sides[0] else looks


def _turned_back(row: NDArray[np.float32], turns: int, height: int, width: int) -> NDArray[np.float32]:
    """Return a face (15,) of a picture turned by quarter turns to the left, in pixels of the picture."""
    box, points = row[:4], row[4:14].reshape(5, 2)
    corners = np.array([box[:2], box[:2] + box[2:]], np.float32)
    for turn in range(turns, 0, -1):
        # np.rot90 brings x, y of a picture W wide to y, W - x; the picture before this turn was this wide:
        before = width if turn % 2 else height
        corners, points = (np.stack([before - each[:, 1], each[:, 0]], 1) for each in (corners, points))
    low, high = corners.min(0), corners.max(0)
    return np.concatenate([low, high - low, points.ravel(), row[14:]]).astype(np.float32)


def _close_up(points: Points) -> Similarity:
    """Return the one that brings a face to the middle of a square, upright."""
    return Similarity.fit(points, LFW_FRAME.scaled(_CLOSE_SIDE, margin=_CLOSE_MARGIN))


def _mirrored(points: Points) -> Points:
    """Return landmarks of the mirror image of a square: left ones become right ones."""
    return (points * np.array([-1, 1], np.float32) + np.array([_CLOSE_SIDE, 0], np.float32))[[1, 0, 2, 4, 3]]


def _best_of_overlapping(found: Found) -> Found:
    """Return of faces that overlap the best one."""
    left = found[np.argsort(-found[:, 14], kind="stable")]
    kept: list[NDArray[np.float32]] = []
    while len(left):
        best, left = left[0], left[1:]  # a box without area overlaps nothing, not even itself
        kept.append(best)
        left = left[_overlaps(left, best[:4]) <= _OVERLAP]
    return np.array(kept, np.float32).reshape(-1, 15)


def _overlaps(found: Found, box: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the share (n,) that boxes have in common with one, of both together."""
    low = np.maximum(found[:, :2], box[:2])
    high = np.minimum(found[:, :2] + found[:, 2:4], box[:2] + box[2:])
    common = (high - low).clip(0).prod(1)
    both = found[:, 2:4].prod(1) + box[2:].prod() - common
    return np.asarray(common / np.maximum(both, 1e-6), np.float32)


def _box_around(points: Points) -> NDArray[np.float32]:
    """Return the box (4,) of a face with these landmarks, as the detector draws them."""
    middle = points.mean(0)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    height = np.float32(2.6) * np.linalg.norm(mouth - eyes).astype(np.float32)
    size = np.array([0.78 * height, height], np.float32)
    return np.concatenate([middle - size / 2, size]).astype(np.float32)
