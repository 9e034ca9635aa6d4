"""Photographs with one known face each: a face of Labeled Faces in the Wild, put onto a photograph.

Legend: H, W height and width of a photograph.
"""

from __future__ import annotations

import cmath
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.encoder.detect import Similarity, cut_out
from lookalike.encoder.errors import DataError, InvalidArgumentError, one_line, printable
from lookalike.encoder.images import find_images

Pixels = NDArray[np.uint8]

MAX_TURN: Final = 30.0
"""Degrees, to either side."""
SCALES: Final = (0.4, 1.8)
_SIDE: Final = 250
"""Of LFW's images, pixels."""
_RADIUS: Final = 118.0
"""What is put onto a photograph is a disc of this radius, in pixels of LFW's image: a head."""
_SOFT: Final = 22.0
"""Over so many pixels its edge becomes transparent."""
_LONG_SIDES: Final = (1000, 1600)
_SHAPES: Final = (4 / 3, 3 / 2, 3 / 4, 1.0)
_LEAST_SHARE: Final = 0.6
"""Of the photograph's smaller scale that a cut-out shows at least."""


@dataclass(frozen=True, slots=True)
class MadePhotograph:
    """How a photograph is made.

    Attributes:
        number: From 0.
        face: Index of the image that the face is taken from.
        background: The photograph that it is put onto.
        window: What is shown of that: left, top, width and height in fractions.
        size: Width and height in pixels.
        degrees: By how much the face is turned, clockwise.
        scale: By how much it is enlarged.
        middle: x, y where its middle is put, in pixels.
    """

    number: int
    face: int
    background: Path
    window: tuple[float, float, float, float]
    size: tuple[int, int]
    degrees: float
    scale: float
    middle: tuple[float, float]

    @property
    def similarity(self) -> Similarity:
        """From pixels of LFW's image to pixels of the photograph."""
        turn = cmath.rect(self.scale, math.radians(self.degrees))
        return Similarity(turn, complex(*self.middle) - turn * complex(_SIDE / 2, _SIDE / 2))

    def draw_background(self, photograph: Pixels) -> Pixels:
        """Return the part of the whole photograph that is shown, uint8 (H, W, 3)."""
        height, width = photograph.shape[:2]
        left, top, across, down = self.window
        box = (left * width, top * height, (left + across) * width, (top + down) * height)
        shown = Image.fromarray(photograph).resize(self.size, Image.Resampling.BICUBIC, box, reducing_gap=3.0)
        return np.array(shown, np.uint8)

    def draw(self, background: Pixels, face: Pixels) -> Pixels:
        """Return a background with the face on it, uint8 (H, W, 3).

        Args:
            background: From :meth:`draw_background`.
            face: LFW's image, uint8 (250, 250, 3).
        """
        side = 2 * math.ceil(_RADIUS * self.scale) + 4
        left, top = (math.floor(value - side / 2) for value in self.middle)
        to_patch = Similarity(self.similarity.turn, self.similarity.shift - complex(left, top))
        opaque = _disc()
        patch, alpha = cut_out(face, to_patch, side), cut_out(opaque, to_patch, side)
        made = background.copy()
        height, width = made.shape[:2]
        rows, columns = (
            slice(max(0, top), min(height, top + side)),
            slice(max(0, left), min(width, left + side)),
        )
        inside = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        share = alpha[inside].astype(np.float32) / 255
        below = made[rows, columns].astype(np.float32)
        made[rows, columns] = np.rint(below + share * (patch[inside] - below)).astype(np.uint8)
        return made


def plan_photographs(
    images: LabeledImages, backgrounds: Sequence[Path], count: int, *, seed: int
) -> list[MadePhotograph]:
    """Choose how photographs are made, the same for a seed; the first are the same for any count.

    Each shows another image, of held-out people with two images or more: there are others to be found.

    Args:
        images: LFW.
        backgrounds: Photographs without people.
        count: How many; fewer where there are fewer such images.
        seed: Of all choices.

    Raises:
        InvalidArgumentError: The images are not LFW.
    """
    if images.lfw is None:
        raise InvalidArgumentError(
            f"photographs are made of the faces of lfw, {images.name} is another data set"
        )
    held_out, counts = images.lfw.held_out_people(), Counter(images.people)
    usable = [
        index
        for index, person in enumerate(images.people)
        if person is not None and person in held_out and counts[person] > 1
    ]
    order = np.random.default_rng(seed).permutation(len(usable))[:count]
    return [
        _plan(number, usable[place], backgrounds, np.random.default_rng((seed, number)))
        for number, place in enumerate(order.tolist())
    ]


def _plan(number: int, face: int, backgrounds: Sequence[Path], rng: np.random.Generator) -> MadePhotograph:
    background = backgrounds[int(rng.integers(len(backgrounds)))]
    wide = _shape(background)
    shape = float(rng.choice(np.array(_SHAPES)))
    # The largest window of this shape, in fractions of the photograph, then a part of it.
    across, down = (1.0, wide / shape) if wide < shape else (shape / wide, 1.0)
    zoom = float(rng.uniform(_LEAST_SHARE, 1))
    across, down = across * zoom, down * zoom
    left, top = float(rng.uniform(0, 1 - across)), float(rng.uniform(0, 1 - down))
    long_side = float(rng.uniform(*_LONG_SIDES))
    size = (
        (round(long_side), round(long_side / shape))
        if shape >= 1
        else (round(long_side * shape), round(long_side))
    )
    degrees, scale = float(rng.uniform(-MAX_TURN, MAX_TURN)), float(rng.uniform(*SCALES))
    margin = _RADIUS * scale
    x, y = (float(rng.uniform(margin, length - margin)) for length in size)
    return MadePhotograph(number, face, background, (left, top, across, down), size, degrees, scale, (x, y))


@cache
def _shape(file: Path) -> float:
    """Return width over height of a photograph as it is shown."""
    try:
        with Image.open(file) as opened:
            shape = opened.width / opened.height
            on_its_side = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{printable(str(file))} cannot be read ({one_line(error)}); name other --photographs"
        ) from error
    return 1 / shape if on_its_side else shape


def background_files(folder: Path | None) -> list[Path]:
    """Return the photographs in a folder; None: ``photos`` of ``LOOKALIKE_DATA``.

    Raises:
        DataError: There is none.
    """
    if folder is None:
        data = os.environ.get("LOOKALIKE_DATA")
        if not data:
            raise DataError(
                "photographs are needed to put faces onto, LOOKALIKE_DATA is not set; name a folder of "
                "photographs without people with --photographs"
            )
        folder = Path(data).expanduser() / "photos"
    files = [folder / path for path in find_images(folder)] if folder.is_dir() else []
    if not files:
        raise DataError(
            f"photographs are needed to put faces onto, {printable(str(folder))} holds none; name a folder "
            "of photographs without people with --photographs"
        )
    return sorted(files)


def _disc() -> Pixels:
    """Return how opaque each pixel of LFW's image is, uint8 (250, 250, 3)."""
    across = np.arange(_SIDE) + 0.5 - _SIDE / 2
    distance = np.hypot(across[:, None], across)
    opaque = ((_RADIUS - distance) / _SOFT).clip(0, 1)
    return np.repeat(np.rint(255 * opaque).astype(np.uint8)[..., None], 3, 2)
