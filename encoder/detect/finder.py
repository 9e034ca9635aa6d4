"""Find the faces of whole photographs, and cut them out upright for a model.

Two looks: on the picture at two sizes, as a detector misses faces much larger or smaller than those it was
trained on; then on each face turned upright and scaled to one size, where its landmarks are more exact.

Legend: n faces, H, W height and width of a picture as shown, S side of a model's input.
"""

from __future__ import annotations

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
"""Of 699 faces it keeps 697, and takes one other thing for a face; at 0.6 that is 49."""
QUERY_THRESHOLD: Final = 0.6
"""Whoever asks with a picture says that there is a face."""
MIN_WIDTH: Final = 28
"""Pixels: of smaller faces too little is left to compare."""
_LONG_SIDES: Final = (1280, 320)
_OVERLAP: Final = 0.3
_SAME_FACE: Final = 0.4
_CLOSE_SIDE: Final = 256
_CLOSE_MARGIN: Final = 0.5
_CLOSE_THRESHOLD: Final = 0.3


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
        for turns in range(4):
            found = self._find_upright(np.rot90(pixels, turns), threshold)
            if len(found):
                break
        else:
            return []
        rows = [_turned_back(row, turns, height, width) for row in found]
        faces = [_face(row, height, width) for row in rows]
        wide = sorted(
            (face for face in faces if face.width >= MIN_WIDTH), key=lambda face: (face.box[0], face.box[1])
        )
        return [self.refine(pixels, face) for face in wide] if refined else wide

    def _find_upright(self, pixels: Pixels, threshold: float) -> Found:
        """Return the faces (n, 15) of a picture at both sizes, those that overlap once."""
        found: list[Found] = []
        sizes: set[tuple[int, int]] = set()
        for long_side in _LONG_SIDES:
            small, scale = _reduced(pixels, long_side)
            if small.shape[:2] not in sizes:
                sizes.add((small.shape[0], small.shape[1]))
                rows = self._detector.detect(small, threshold=threshold)
                found.append(np.concatenate([rows[:, :14] / np.float32(scale), rows[:, 14:]], 1))
        return _best_of_overlapping(np.concatenate(found))

    def refine(self, pixels: Pixels, face: Face) -> Face:
        """Return a face with the landmarks that are found when it is seen upright and large.

        Args:
            pixels: uint8 (H, W, 3), RGB, the picture that it was found in.
            face: The face.
        """
        height, width = pixels.shape[:2]
        points = face.points(width, height)
        close = Similarity.fit(points, LFW_FRAME.scaled(_CLOSE_SIDE, margin=_CLOSE_MARGIN))
        found = self._detector.detect(
            cut_out(pixels, close, _CLOSE_SIDE), threshold=_CLOSE_THRESHOLD, merged=False
        )
        near = found[_overlaps(found, _box_around(close.apply(points))) > _SAME_FACE] if len(found) else found
        if not len(near):
            return face
        weights = near[:, 14:] ** 2
        mean = (near[:, 4:14] * weights).sum(0) / weights.sum()
        points = close.inverse().apply(mean.reshape(5, 2).astype(np.float32))
        return replace(face, landmarks=fractions(points, width, height))


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


def _reduced(pixels: Pixels, long_side: int) -> tuple[Pixels, float]:
    """Return a picture of at most this size, and by how much it was scaled."""
    import cv2

    height, width = pixels.shape[:2]
    scale = min(1.0, long_side / max(height, width))
    if scale == 1.0:
        return pixels, scale
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(
        cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA), np.uint8
    ), scale


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


def _best_of_overlapping(found: Found) -> Found:
    """Return of faces that overlap the best one."""
    left = found[np.argsort(-found[:, 14], kind="stable")]
    kept: list[NDArray[np.float32]] = []
    while len(left):
        kept.append(left[0])
        left = left[_overlaps(left, left[0, :4]) <= _OVERLAP]
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
