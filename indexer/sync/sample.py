"""A look at some of the images before all are read: are they of the kind that the model was trained on?

Legend: N images, S side of a model's input, C channels.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import FaceFinder, Framing, face_finder
from lookalike.encoder.embed import Readable, read_source
from lookalike.encoder.errors import ImageError, MissingExtraError, printable
from lookalike.encoder.images import Crop, ImageSpec, read_pixels
from lookalike.encoder.runtime import Model

AHEAD: Final = 2048
"""The sample is spread over so many of the first images."""
_SAMPLE: Final = 64
_LEAST: Final = 16
_SECONDS: Final = 1.0
"""After so long a smaller sample is enough."""
_BATCH: Final = 8
_AROUND: Final = ImageSpec(size=192, crop=Crop())
"""How a picture is looked at for a face in its middle."""
Source: TypeAlias = str | Path | Readable


def unlike_training(
    model: Model, files: Sequence[Source], framing: Framing, *, max_pixels: int | None = None
) -> str | None:
    """Return a line where most of a sample of the images are unlike what the model was trained on, else None.

    An image is, where :meth:`Model.why_unlike` says so or, for a model of faces and its own crop, where the
    crop holds no face. Images that cannot be read do not count. It takes about a second at most.

    Args:
        model: The model.
        files: Images that are going to be embedded.
        framing: How they are framed; of faces that are found nothing is checked.
        max_pixels: Larger images do not count; None: the default limit.
    """
    if not isinstance(framing, Crop):
        return None
    spec = model.bundle.spec
    own = spec.frame is not None and framing == spec.image.crop and framing.window is None
    finder = _finder() if own else None
    if finder is None and not model.can_judge():
        return None
    chosen = random.Random(0).sample(range(len(files)), min(_SAMPLE, len(files)))  # noqa: S311  # no secret
    began, looked, unlike, faceless = time.monotonic(), 0, 0, 0
    for start in range(0, len(chosen), _BATCH):
        batch = [files[place] for place in chosen[start : start + _BATCH]]
        pixels, has_face = _read(batch, spec.image, framing, finder, max_pixels)
        reasons = model.why_unlike(pixels)
        looked += len(reasons)
        unlike += sum(reason is not None or not face for reason, face in zip(reasons, has_face, strict=True))
        faceless += has_face.count(False)
        if looked >= _LEAST and time.monotonic() - began > _SECONDS:
            break
    if 2 * unlike <= looked:
        return None
    return _line(model, framing, looked, unlike, faceless)


def _finder() -> FaceFinder | None:
    """Return what finds faces, where it is installed."""
    try:
        return face_finder()
    except MissingExtraError:
        return None


def _read(
    files: Sequence[Source], spec: ImageSpec, crop: Crop, finder: FaceFinder | None, max_pixels: int | None
) -> tuple[NDArray[np.uint8], list[bool]]:
    """Return the images that can be read, uint8 (N, S, S, C), and whether each has a face where it should."""
    images: list[NDArray[np.uint8]] = []
    has_face: list[bool] = []
    for file in files:
        try:
            data, name = read_source(file)[0], str(file)
            images.append(read_pixels(data, spec, crop=crop, max_pixels=max_pixels, name=name))
            has_face.append(finder is None or _shows_face(finder, data, crop, max_pixels, name))
        except (ImageError, OSError):  # it is reported when it is embedded
            del images[len(has_face) :]
    return np.array(images, np.uint8).reshape(-1, *spec.shape), has_face


def _shows_face(finder: FaceFinder, data: bytes, crop: Crop, max_pixels: int | None, name: str) -> bool:
    """Whether a face fills the part of an image that the model sees."""
    return finder.fills(read_pixels(data, _AROUND, max_pixels=max_pixels, name=name), crop.fraction)


def _line(model: Model, crop: Crop, looked: int, unlike: int, faceless: int) -> str:
    """Return the warning, with the way out."""
    bundle, what = model.bundle, ""
    if faceless:
        what = f", {faceless} without a face in the part that it sees (--crop {crop})"
    ways = ["for pictures of other things use a general model (lookalike models add)"]
    if crop != Crop():
        ways.insert(0, "to compare whole pictures use --crop full")
    if bundle.spec.frame is not None:
        ways.insert(0, "for faces anywhere in photographs use --faces")
    return (
        f"warning: {unlike} of {looked} pictures looked at are unlike what model {printable(bundle.name)} "
        f"was trained on{what}: results will mean little, and no probability of one person is given; "
        f"{'; '.join(ways)}"
    )
