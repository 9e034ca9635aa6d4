"""Searches with small faces: how much recall is lost where a query has few pixels.

Legend: N images, E embedding size, S side of the model's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import Crop, resize_floats, to_uint8
from lookalike.encoder.runtime import Model
from lookalike.searcher.generation import read_all

_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class SmallQueries:
    """Recall of queries that were reduced to a few pixels.

    Attributes:
        side: Of what the model sees, before it is enlarged again.
        queries: Images of people with two or more.
        recall_at_1: Share of them whose most similar other image shows their person.
    """

    side: int
    queries: int
    recall_at_1: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def measure_small_queries(
    model: Model,
    images: LabeledImages,
    rows: NDArray[np.float32],
    sides: Sequence[int],
    *,
    queries: NDArray[np.bool_],
    crop: Crop | None = None,
    progress: Progress = no_progress,
) -> tuple[SmallQueries, ...]:
    """Reduce what the model sees of each query, enlarge it again (bicubic), and search all other images.

    Args:
        model: What embeds the queries.
        images: N images.
        rows: Their vectors as they are, float32 (N, E) of unit length.
        sides: To which the queries are reduced, from 1 to S pixels.
        queries: Images that search, bool (N,); those of people without another image are left out.
        crop: How they are framed, if otherwise.
        progress: Shows the progress.

    Raises:
        InvalidArgumentError: A side is under 1 or over S, or there is no query.
    """
    full = model.bundle.spec.image.size
    if wrong := [side for side in sides if not 1 <= side <= full]:
        raise InvalidArgumentError(f"queries are reduced to 1 to {full} pixels, not to {wrong[0]}")
    people = np.array(
        [person or f"/{path}" for person, path in zip(images.people, images.paths, strict=True)]
    )
    names, counts = np.unique(people, return_inverse=True, return_counts=True)[1:]
    asking = np.flatnonzero(queries & (counts[names] > 1)).tolist()
    place: dict[Path, int] = {images.files[index]: index for index in asking}
    right = np.zeros((len(sides), 2), np.int64)  # of so many
    with progress(f"{model.bundle.name}: small queries", len(asking)) as advance:
        for start in range(0, len(asking), _BATCH):
            files = [images.files[index] for index in asking[start : start + _BATCH]]
            good, pixels, _ = read_all(model, files, crop=crop)
            own = np.array([place[file] for file in good], np.int64)
            for number, side in enumerate(sides):
                reduced = np.stack([_reduced(image, side) for image in pixels]) if good else pixels
                scores = model.embed(reduced) @ rows.T
                scores[np.arange(len(own)), own] = -np.inf
                right[number] += [(names[scores.argmax(axis=1)] == names[own]).sum(), len(own)]
            advance(len(files))
    if not right[:, 1].all():
        raise InvalidArgumentError("small queries need people with two images or more, there are none")
    return tuple(
        SmallQueries(side, int(count), float(found / count))
        for side, (found, count) in zip(sides, right, strict=True)
    )


def _reduced(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return uint8 (S, S, C) with the detail of side x side pixels."""
    floats = image.astype(np.float32) / np.float32(255)
    small = to_uint8(resize_floats(floats, side, side))
    back = resize_floats(small.astype(np.float32) / np.float32(255), *image.shape[:2])
    return to_uint8(back)
