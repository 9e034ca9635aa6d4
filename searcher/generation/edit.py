"""Edit attributes of images: decode latents that were moved along edit directions.

Legend: N images, S steps, H = W pixels, C channels, D latent size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Attributes
from lookalike.encoder.detect import ChosenFace
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.images import to_uint8
from lookalike.encoder.runtime import Model
from lookalike.searcher.generation.inputs import OnFace, cut_face, read_image

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

_MAX_STEPS = 200


def attributes_of(model: Model) -> Attributes:
    """Return the model's attributes.

    Raises:
        InvalidArgumentError: it has none.
    """
    attributes = model.bundle.attributes
    if attributes is None:
        raise InvalidArgumentError(
            f"model {printable(model.bundle.name)} has no attributes; run lookalike attributes fit"
        )
    return attributes


def editing_attributes(model: Model) -> Attributes:
    """Return the attributes of a model that can edit.

    Raises:
        InvalidArgumentError: it has none, or no decoder.
    """
    if not model.has_decoder:
        raise InvalidArgumentError(
            f"model {printable(model.bundle.name)} has no decoder, so it can search, not edit; faces can edit"
        )
    return attributes_of(model)


def edit(model: Model, pixels: Pixels, strengths: Mapping[str, float], *, keep_detail: bool = True) -> Pixels:
    """Return edited images: uint8 (N, H, W, C) of uint8 (N, H, W, C).

    Args:
        model: With a decoder and attributes.
        pixels: The images.
        strengths: Attribute to standard deviations of its reading; under 0 removes it.
        keep_detail: Add the residual of the reconstruction, so that strength 0 gives back the same image.

    Raises:
        InvalidArgumentError: the model has no decoder or no such attribute, or a strength is not finite.
    """
    return edit_steps(model, pixels, strengths, (1.0,), keep_detail=keep_detail)[:, 0]


def edit_steps(
    model: Model,
    pixels: Pixels,
    strengths: Mapping[str, float],
    steps: Sequence[float],
    *,
    keep_detail: bool = True,
) -> Pixels:
    """Return each image at each step, uint8 (N, S, H, W, C): strengths times each step.

    Arguments and errors are those of :func:`edit`.
    """
    change = editing_attributes(model).change(strengths)
    latents = model.encode(pixels)  # (N, D)
    shape = (len(pixels), len(steps), *pixels.shape[1:])
    moved = latents[:, None] + np.asarray(steps, np.float32)[:, None] * change  # (N, S, D)
    decoded = model.decode(moved.reshape(-1, latents.shape[1])).reshape(shape)
    if keep_detail:
        decoded += (pixels / np.float32(255) - model.decode(latents))[:, None]
    return to_uint8(decoded.reshape(-1, *pixels.shape[1:])).reshape(shape)


def edit_photograph(
    model: Model,
    file: Path,
    strengths: Mapping[str, float],
    steps: Sequence[float] = (1.0,),
    *,
    face: ChosenFace,
    keep_detail: bool = True,
    max_pixels: int | None = None,
    on_face: OnFace = lambda *_: None,
) -> Iterator[Pixels]:
    """Return a whole photograph at each step, uint8 (height, width, 3), one of its faces edited.

    The change of the face is put back where the face was, see :meth:`CutFace.paste`; the rest is as it was.

    Args:
        model: With a decoder and attributes, and for faces.
        file: The photograph.
        strengths: As for :func:`edit`.
        steps: Multiples of the strengths.
        face: Which face.
        keep_detail: As for :func:`edit`; without it the face is replaced by what the model makes of it.
        max_pixels: Larger photographs are refused; None: the default limit.
        on_face: Called with the file and the face that was cut out of it.

    Raises:
        ImageError: the file cannot be read, or has no such face.
        InvalidArgumentError: as :func:`edit`, or the model does not say where faces lie in its input.
        MissingExtraError: the extra ``faces`` is not installed.
    """
    cut = cut_face(model, read_image(file), face, max_pixels=max_pixels, name=str(file))
    on_face(file, cut)
    (row,) = edit_steps(model, cut.pixels[None], strengths, steps, keep_detail=keep_detail)
    return map(cut.paste, row)


def parse_strengths(texts: Sequence[str]) -> dict[str, float]:
    """Parse ``Smiling=1.5`` and so on; ``Smiling`` alone is ``Smiling=1``.

    Raises:
        InvalidArgumentError: one is malformed, or an attribute is named twice.
    """
    strengths: dict[str, float] = {}
    for text in texts:
        name, given, number = text.partition("=")
        name = name.strip()
        try:
            strength = float(number) if given else 1.0
        except ValueError:
            strength = np.nan
        if not name or not np.isfinite(strength):
            raise InvalidArgumentError(
                f"an edit is NAME=STRENGTH such as Smiling=1.5, '{printable(text)}' is not"
            )
        if name in strengths:
            raise InvalidArgumentError(
                f"an attribute is added once, {printable(name)} is given twice; give their sum"
            )
        strengths[name] = strength
    return strengths


def parse_steps(text: str) -> list[float]:
    """Parse ``-2:2:9``: nine steps from -2 to 2.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    try:
        first, last, count = text.split(":")
        ends, number = (float(first), float(last)), int(count)
    except ValueError:
        number, ends = 0, (0.0, 0.0)
    if not 2 <= number <= _MAX_STEPS or not np.isfinite(ends).all():
        raise InvalidArgumentError(
            f"steps are FIRST:LAST:N such as -2:2:9, N of 2 to {_MAX_STEPS}; '{printable(text)}' is not"
        )
    return [round(step, 6) + 0.0 for step in np.linspace(*ends, number).tolist()]
