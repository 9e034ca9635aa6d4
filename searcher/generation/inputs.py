"""Images as a model sees them: framed, or one face of each, turned upright.

Legend: N images, S side of a model's input, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import ChosenFace, CutFace, Face, read_face
from lookalike.encoder.errors import ImageError, printable
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import Crop, read_pixels
from lookalike.encoder.runtime import Model

Pixels = NDArray[np.uint8]
InputFraming: TypeAlias = Crop | ChosenFace | Face | None
"""How an image is framed, or which face of it is cut out; None: as the model does."""
OnFace = Callable[[Path, CutFace], object]


def cut_face(
    model: Model, data: bytes, chosen: ChosenFace | Face, *, max_pixels: int | None = None, name: str
) -> CutFace:
    """Return a face of an image file as the model sees it, which can be put back when it was changed.

    Raises:
        InvalidArgumentError: the model does not say where faces lie in its input.
        ImageError, MissingExtraError: as :func:`lookalike.encoder.detect.read_face`.
    """
    bundle = model.bundle
    return read_face(data, bundle.spec.image, bundle.face_frame, chosen, max_pixels=max_pixels, name=name)


def read_input(
    model: Model, data: bytes, framing: InputFraming = None, *, max_pixels: int | None = None, name: str
) -> Pixels:
    """Return an image file as the model sees it, uint8 (S, S, C).

    Raises:
        ImageError: the bytes are not a readable image, it is too large, or it has no such face.
        InvalidArgumentError, MissingExtraError: as :func:`cut_face`, where a face is asked for.
    """
    if isinstance(framing, ChosenFace | Face):
        return cut_face(model, data, framing, max_pixels=max_pixels, name=name).pixels
    return read_pixels(data, model.bundle.spec.image, crop=framing, max_pixels=max_pixels, name=name)


def read_image(file: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        return read_bounded(file, pipe=True)
    except OSError as error:
        raise ImageError(f"{printable(str(file))}: cannot be read ({error.strerror})") from error


def read_all(
    model: Model,
    files: Sequence[Path],
    *,
    crop: InputFraming = None,
    max_pixels: int | None = None,
    on_face: OnFace = lambda *_: None,
) -> tuple[list[Path], Pixels, list[str]]:
    """Read images as the model sees them.

    Args:
        model: The model.
        files: The images.
        crop: How they are framed, or which face of each is cut out.
        max_pixels: Larger images are refused; None: the default limit.
        on_face: Called with each file and the face that was cut out of it.

    Returns:
        The files that could be read, their pixels uint8 (N, S, S, C), and a one-line reason for each other.

    Raises:
        InvalidArgumentError, MissingExtraError: as :func:`cut_face`, where faces are asked for.
    """
    good: list[Path] = []
    pixels: list[Pixels] = []
    failed: list[str] = []
    for file in files:
        try:
            data = read_image(file)
            if isinstance(crop, ChosenFace):
                cut = cut_face(model, data, crop, max_pixels=max_pixels, name=str(file))
                on_face(file, cut)
                pixels.append(cut.pixels)
            else:
                pixels.append(read_input(model, data, crop, max_pixels=max_pixels, name=str(file)))
            good.append(file)
        except ImageError as error:
            failed.append(str(error))
    return good, np.array(pixels, np.uint8).reshape(-1, *model.bundle.spec.image.shape), failed
