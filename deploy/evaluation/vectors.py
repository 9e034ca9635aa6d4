"""ImageVectors for pictures with names, wherever they come from: a model, a collection, a file.

Legend: N images, M given vectors, E embedding size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages, item_path
from lookalike.encoder.embed.pipeline import embed_files
from lookalike.encoder.errors import DataError, VectorError
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.sync.sync import DEGENERATE

__all__ = [
    "ImageVectors",
    "Progress",
    "assign_vectors",
    "embed_images",
    "match_paths",
    "no_progress",
    "stored_vectors",
    "unit_length",
]

Kind = Literal["model", "collection", "vectors", "baseline"]
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Told what begins and how many steps it has; gives what is told of each few that are done."""


def no_progress(_what: str, _total: int) -> AbstractContextManager[Callable[[int], object]]:
    """Show no progress."""
    done: Callable[[int], object] = lambda _: None  # noqa: E731  # typed where it is made
    return nullcontext(done)


@dataclass(frozen=True, eq=False, slots=True)
class ImageVectors:
    """One vector for each of N images: a row of the table.

    Attributes:
        name: Of the row.
        rows: float32 (N, E), unit length; zero where there is none.
        there: Which images have one, bool (N,).
        failures: Why an image has none, a line each, where a picture was at fault.
        kind: Where they come from.
    """

    name: str
    rows: NDArray[np.float32]
    there: NDArray[np.bool_]
    failures: tuple[str, ...] = ()
    kind: Kind = "model"

    def require(self, needed: NDArray[np.bool_], images: LabeledImages) -> None:
        """Do nothing when every image of ``needed``, bool (N,), has a vector.

        Raises:
            DataError: one has none.
        """
        missing = np.flatnonzero(needed & ~self.there)
        if missing.size:
            raise DataError(
                f"{self.name} must have a vector for each of the {int(needed.sum())} pictures of "
                f"{images.name} that are compared, {missing.size} have none, the first is "
                f"{printable(images.paths[missing[0]])}; add them or name the data with --data"
            )


def embed_images(
    model: Model, images: LabeledImages, *, crop: Crop | None = None, steps: Progress = no_progress
) -> ImageVectors:
    """Embed the pictures as the indexer would. One that cannot be read gets no vector and is named.

    Args:
        model: What embeds.
        images: The pictures.
        crop: How they are framed; None: as the model was trained.
        steps: Told of the progress.
    """
    rows = np.zeros((len(images), model.bundle.spec.embedding), np.float32)
    failures: list[str] = []
    with steps(model.bundle.name, len(images)) as advance:
        for batch in embed_files(model, enumerate(images.files), crop=crop):
            good = np.isfinite(batch.embeddings).all(axis=1)
            rows[np.array(batch.keys, np.int64)[good]] = batch.embeddings[good]
            failures += [reason for _, reason in batch.failures]
            advance(len(batch.keys) + len(batch.failures))
            blank: list[bool] = np.logical_not(rows[batch.keys].any(axis=1)).tolist()
            failures += [
                f"{printable(str(images.files[key]))}: {DEGENERATE}"
                for key, nothing in zip(batch.keys, blank, strict=True)
                if nothing
            ]
    return ImageVectors(model.bundle.name, rows, np.asarray(rows.any(axis=1)), tuple(failures))


def stored_vectors(store: VectorStore, name: str, images: LabeledImages) -> ImageVectors:
    """Return the vectors of a collection as they are stored, for the pictures that its paths name.

    Raises:
        CollectionNotFoundError: there is no such collection.
        DataError: two of its items are the same picture.
    """
    spec = store.info(name)
    records = list(store.scroll(name, with_vectors=True))
    rows = [record.vector for record in records if record.vector is not None]
    given = np.stack(rows) if rows else np.zeros((0, spec.dimension), np.float32)
    paths = [item_path(record, spec) for record in records]
    return assign_vectors(name, paths, given, images, kind="collection")


def assign_vectors(
    name: str, paths: Sequence[str], given: NDArray[np.float32], images: LabeledImages, *, kind: Kind
) -> ImageVectors:
    """Give M vectors, float32 (M, E), to the pictures that their paths name; others are left out.

    Raises:
        VectorError: one is not finite, or zero.
        DataError: two are for one picture, or none is for any.
    """
    index = match_paths(paths, images)
    kept = np.flatnonzero(index >= 0)
    if not kept.size:
        first = f", the first is '{printable(paths[0])}'" if paths else ""
        raise DataError(
            f"{name} must name pictures of {images.name} by their paths, as in '{printable(images.paths[0])}'; "
            f"none of its {len(paths)} do{first}"
        )
    (twice, times), *_ = Counter(index[kept].tolist()).most_common(1)
    if times > 1:
        raise DataError(
            f"{name} must have one vector for a picture, it has {times} for {printable(images.paths[twice])}; "
            "leave all but one out"
        )
    rows = np.zeros((len(images), given.shape[1]), np.float32)
    rows[index[kept]] = unit_length(given[kept], name, [paths[place] for place in kept.tolist()])
    there = np.zeros(len(images), np.bool_)
    there[index[kept]] = True
    return ImageVectors(name, rows, there, kind=kind)


def match_paths(paths: Sequence[str], images: LabeledImages) -> NDArray[np.int64]:
    """Return for each of M paths the index of the picture it names, int64 (M,), or -1.

    A path names the picture of the very same path below the data's root; else the only one whose path has the
    same last two parts (``Person/Person_0001.jpg``); else the only one whose file is called the same.
    """
    exact = {path: index for index, path in enumerate(images.paths)}
    endings = [_only(map(last, images.paths)) for last in (_last_two, _last)]
    found = []
    for path in (path.replace("\\", "/") if path not in exact else path for path in paths):
        tries = (exact.get(path), endings[0].get(_last_two(path)), endings[1].get(_last(path)))
        found.append(next((each for each in tries if each is not None), -1))
    return np.array(found, np.int64)


def unit_length(given: NDArray[np.float32], name: str, paths: Sequence[str]) -> NDArray[np.float32]:
    """Return float32 (M, E) scaled to unit length.

    Raises:
        VectorError: one is not finite, or zero.
    """
    bad = np.flatnonzero(~np.isfinite(given).all(axis=1) | ~given.any(axis=1))
    if bad.size:
        raise VectorError(
            f"{name}: vectors must be finite and not zero, that of {printable(paths[int(bad[0])])} "
            f"({bad.size} in all) is not; leave these rows out"
        )
    exact = given.astype(np.float64)
    unit: NDArray[np.float32] = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _last_two(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def _only(names: Iterable[str]) -> dict[str, int]:
    """Return the index of each name that is there once."""
    listed = list(names)
    counts = Counter(listed)
    return {name: index for index, name in enumerate(listed) if counts[name] == 1}
