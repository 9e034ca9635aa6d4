"""Does a search treat groups of people alike? Recall and false matches of each group.

A false match rate within a group: P. Grother, M. Ngan, K. Hanaoka: Face Recognition Vendor Test Part 3:
Demographic Effects, NISTIR 8280 (2019).

Legend: N images, E embedding size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.vectors import Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.searcher.generation import read_all

Floats = NDArray[np.float32]
Chosen = NDArray[np.bool_]

BRIGHTNESS: Final = "brightness"
"""Of the face, as the model sees it: three groups of equal size."""
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """How a group of images is searched for.

    Attributes:
        group: Its name.
        images: Of the group, by people whom nothing was fitted to.
        queries: Those of people with two images or more.
        recall_at_1: Share of these whose most similar other image shows their person; None without a query.
        within: Share of pairs of two people of the group that count as a match, at the threshold.
        with_all: The same of pairs of one of the group and anyone else.
    """

    group: str
    images: int
    queries: int
    recall_at_1: float | None
    within: float
    with_all: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def measure_groups(
    rows: Floats, people: Sequence[str], groups: Mapping[str, Chosen], *, queries: Chosen, threshold: float
) -> tuple[GroupFigures, ...]:
    """Measure each group: its images search all others.

    Args:
        rows: float32 (N, E) of unit length.
        people: N names.
        groups: Name to the images that belong to it, bool (N,).
        queries: Images of people whom nothing was fitted to, bool (N,): they search everything.
        threshold: Score that a match exceeds.
    """
    names, counts = np.unique(people, return_inverse=True, return_counts=True)[1:]
    asking = np.flatnonzero(queries)
    right = np.zeros(len(rows), np.bool_)
    everyone = np.ones(len(rows), np.bool_)
    inside = np.stack([*groups.values(), everyone], axis=1).astype(np.float32)  # (N, groups + 1), to count
    above = np.zeros((len(rows), inside.shape[1]))
    pairs = np.zeros_like(above)
    for start in range(0, len(asking), _BATCH):
        batch = asking[start : start + _BATCH]
        scores = rows[batch] @ rows.T
        scores[np.arange(len(batch)), batch] = -np.inf  # itself
        same = names[batch][:, None] == names
        right[batch] = names[scores.argmax(axis=1)] == names[batch]
        above[batch] = ((scores > threshold) & ~same).astype(np.float32) @ inside
        pairs[batch] = (~same).astype(np.float32) @ inside
    several = counts[names] > 1
    figures = []
    for place, (name, chosen) in enumerate(groups.items()):
        own = queries & chosen
        asked = own & several
        figures.append(
            GroupFigures(
                name,
                int(own.sum()),
                int(asked.sum()),
                float(right[asked].mean()) if asked.any() else None,
                float(above[own, place].sum() / max(pairs[own, place].sum(), 1)),
                float(above[own, -1].sum() / max(pairs[own, -1].sum(), 1)),
            )
        )
    return tuple(figures)


def attribute_groups(scores: Mapping[str, NDArray[np.float64]], name: str) -> dict[str, Chosen]:
    """Return images with and without an attribute, of scores float64 (N,) over and under 0, NaN unknown.

    Raises:
        InvalidArgumentError: There is no such attribute.
    """
    if name not in scores:
        raise InvalidArgumentError(
            f"no attribute '{printable(name)}' to compare groups by; there are {BRIGHTNESS}, "
            f"{', '.join(sorted(scores))}"
        )
    return {name: scores[name] > 0, f"not {name}": scores[name] < 0}


def brightness_groups(
    model: Model, images: LabeledImages, *, crop: Crop | None = None, progress: Progress = no_progress
) -> dict[str, Chosen]:
    """Return the darkest, middle and brightest third of images, by the mean of what the model sees.

    Images that cannot be read are in none.

    Args:
        model: Whose framing counts.
        images: N images.
        crop: How they are framed, if otherwise.
        progress: Shows the progress.
    """
    means = np.full(len(images), np.nan)
    place: dict[Path, int] = {file: number for number, file in enumerate(images.files)}
    with progress("reading", len(images)) as advance:
        for start in range(0, len(images), _BATCH):
            files = images.files[start : start + _BATCH]
            good, pixels, _ = read_all(model, files, crop=crop)
            means[[place[file] for file in good]] = pixels.mean(axis=(1, 2, 3))
            advance(len(files))
    low, high = np.nanquantile(means, [1 / 3, 2 / 3])
    return {"dark": means <= low, "middling": (means > low) & (means < high), "bright": means >= high}
