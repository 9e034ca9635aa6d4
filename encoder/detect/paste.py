"""One face of a photograph: cut out upright for a model, and put back when it was changed.

Legend: H, W height and width of a photograph as shown, S side of a model's input, C its channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect.align import Frame, Similarity
from lookalike.encoder.detect.face import Face
from lookalike.encoder.detect.finder import choose_face, face_finder
from lookalike.encoder.detect.framing import cut_for_model
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import ImageSpec, decode_rgb, resize_floats

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

_SOFT: Final = 0.09
"""Share of the square's side over which a change fades out: no edge is seen, and the mouth lies inside."""
_ROWS: Final = 256
"""Rows of the photograph that are changed at a time, so that a large face takes little memory."""
_SMOOTH: Final = 8
"""A change is enlarged smoothly so many times; what is left is done in straight lines between."""


@dataclass(frozen=True, slots=True)
class ChosenFace:
    """Which face of a photograph is meant.

    Attributes:
        number: From 1 at the left; None: the most prominent one.

    Raises:
        InvalidArgumentError: The number is below 1.
    """

    number: int | None = None

    def __post_init__(self) -> None:
        if self.number is not None and self.number < 1:
            raise InvalidArgumentError(
                f"faces are numbered from 1 at the left, {self.number} is none; leave it out for the main one"
            )


@dataclass(frozen=True, eq=False, slots=True)
class CutFace:
    """A face as a model sees it, and where it was.

    Attributes:
        photograph: uint8 (H, W, 3), as shown.
        face: The face.
        similarity: From pixels of the photograph to pixels of the model's input.
        pixels: uint8 (S, S, C), the model's input.
        number: Of the face, from 1 at the left; 0 where the others were not looked for.
        count: Faces of the photograph; 0 likewise.
    """

    photograph: Pixels
    face: Face
    similarity: Similarity
    pixels: Pixels
    number: int = 0
    count: int = 0

    @classmethod
    def of(cls, photograph: Pixels, face: Face, frame: Frame, spec: ImageSpec) -> CutFace:
        """Cut a face out of a photograph, uint8 (H, W, 3)."""
        height, width = photograph.shape[:2]
        similarity = Similarity.fit(face.points(width, height), frame.scaled(spec.size))
        return cls(photograph, face, similarity, cut_for_model(photograph, [face], frame, spec)[0])

    def paste(self, changed: Pixels) -> Pixels:
        """Return the photograph, uint8 (H, W, 3), with the face changed as its cut-out was.

        What is added is the change alone, enlarged smoothly and fading out towards the border of the square:
        detail that a model has no pixels for stays, and where nothing changed no pixel does.

        Args:
            changed: The cut-out after the change, uint8 (S, S, C).

        Raises:
            InvalidArgumentError: It has another shape than the cut-out.
        """
        if changed.shape != self.pixels.shape:
            raise InvalidArgumentError(
                f"a changed face has the shape of what was cut out, {self.pixels.shape}, not {changed.shape}"
            )
        result = self.photograph.copy()
        change = changed.astype(np.float32) - self.pixels
        if not change.any():
            return result
        larger = min(_SMOOTH, max(1, math.ceil(1 / self.similarity.scale))) * len(change)
        enlarged = resize_floats(change, larger, larger)
        for rows, columns in self._strips():
            part = result[rows, columns] + self._change_at(enlarged, rows, columns)
            result[rows, columns] = np.rint(part.clip(0, 255)).astype(np.uint8)
        return result

    def _strips(self) -> Iterator[tuple[slice, slice]]:
        """Yield the part of the photograph that the square covers, some rows at a time."""
        height, width = self.photograph.shape[:2]
        side = len(self.pixels)
        corners = self.similarity.inverse().apply(
            np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float32)
        )
        left, top = (math.floor(max(0.0, value)) for value in corners.min(0))
        right, bottom = (
            math.ceil(min(limit, value)) for value, limit in zip(corners.max(0), (width, height), strict=True)
        )
        if left < right:
            for row in range(top, bottom, _ROWS):
                yield slice(row, min(row + _ROWS, bottom)), slice(left, right)

    def _change_at(self, enlarged: Floats, rows: slice, columns: slice) -> Floats:
        """Return what is added to a part of the photograph, float32 (rows, columns, 1 or 3)."""
        import cv2

        side, channels = len(self.pixels), enlarged.shape[2]
        larger = len(enlarged) // side
        # A face smaller than the model's input: several samples for each pixel, averaged.
        samples = max(1, math.ceil(self.similarity.scale))
        size = samples * (columns.stop - columns.start), samples * (rows.stop - rows.start)
        turn = self.similarity.turn / samples
        # The middle of the first sample, in pixels of the square.
        shift = (
            turn * complex(samples * columns.start + 0.5, samples * rows.start + 0.5) + self.similarity.shift
        )
        half = complex(0.5, 0.5)
        back = Similarity(larger * turn, larger * shift - half)  # OpenCV counts from the middle of a pixel
        found = cv2.warpAffine(
            enlarged,
            back.matrix(),
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        ).reshape(size[1], size[0], channels)
        found = found * _fading(Similarity(turn, shift), size, side)[..., None]
        if samples > 1:
            found = found.reshape(
                rows.stop - rows.start, samples, columns.stop - columns.start, samples, channels
            ).mean((1, 3))
        return np.asarray(found, np.float32)


def read_face(
    data: bytes,
    spec: ImageSpec,
    frame: Frame,
    chosen: ChosenFace | Face,
    *,
    max_pixels: int | None = None,
    name: str,
) -> CutFace:
    """Find a face in an image file, and cut it out for a model.

    Args:
        data: Content of the file.
        spec: The model's input format; its crop is not used.
        frame: Where the model has the landmarks.
        chosen: Which face; one that was found before is not looked for.
        max_pixels: Larger images are refused; None: the default limit.
        name: Name of the file in messages.

    Raises:
        ImageError: The bytes are not a readable image, it is too large, or it has no such face.
        MissingExtraError: The extra ``faces`` is not installed.
    """
    finder = face_finder()
    photograph = decode_rgb(data, max_pixels=max_pixels, name=name)
    if isinstance(chosen, Face):
        return CutFace.of(photograph, chosen, frame, spec)
    found = finder.find_for_query(photograph)
    face = choose_face(found, chosen.number, name=name)
    number = next(number for number, each in enumerate(found, 1) if each is face)
    return replace(CutFace.of(photograph, face, frame, spec), number=number, count=len(found))


def _fading(similarity: Similarity, size: tuple[int, int], side: int) -> Floats:
    """Return 1 inside a square of ``side`` and 0 from its border on, float32 (height, width).

    Args:
        similarity: From samples, counted from the middle of the first, to the square.
        size: Width and height in samples.
        side: Of the square.
    """
    x, y = np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32)[:, None]
    turn, shift = similarity.turn, similarity.shift
    across = np.float32(turn.real) * x - np.float32(turn.imag) * y + np.float32(shift.real)
    down = np.float32(turn.imag) * x + np.float32(turn.real) * y + np.float32(shift.imag)
    inside = np.minimum(np.minimum(across, side - across), np.minimum(down, side - down))
    share = (inside / np.float32(_SOFT * side)).clip(0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)
