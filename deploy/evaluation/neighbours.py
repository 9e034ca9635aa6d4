"""How often the nearest neighbours of a picture say what it shows: of latents in a store, and baselines.

T. M. Cover, P. E. Hart: Nearest Neighbor Pattern Classification. IEEE Transactions on Information Theory
13(1), 1967. The most frequent class among the k nearest counts; of equally frequent ones that of the nearest.

Legend: N training pictures, M test pictures, E numbers of a vector, P pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.handwriting import DigitImages, MnistData
from lookalike.deploy.evaluation.retrieval import temporary_collection
from lookalike.deploy.evaluation.vectors import ImageVectors, Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime.model import Model

__all__ = ["KnnResult", "baseline_knn", "nearest", "stored_knn", "vote"]

Floats = NDArray[np.float32]
Metric = Literal["cosine", "Euclid"]
Class = TypeVar("Class", int, str)
_AT_ONCE: Final = 200  # queries compared with everything in one product
_TOGETHER: Final = 64  # queries of one search
_EMBEDDED: Final = 4096  # pictures embedded between two reports


@dataclass(frozen=True, slots=True)
class KnnResult:
    """One row: a kind of vector, and how often its neighbours are right.

    Attributes:
        name: What the vectors are.
        numbers: E.
        metric: How they are compared.
        through: ``store``, or ``numpy`` for what is compared here, exactly.
        k: KnnResult that vote.
        stored: N.
        queries: M.
        accuracy: Share of right answers, in [0, 1].
        standard_error: Of it, binomial.
    """

    name: str
    numbers: int
    metric: Metric
    through: Literal["store", "numpy"]
    k: int
    stored: int
    queries: int
    accuracy: float
    standard_error: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def stored_knn(
    model: Model, digits: MnistData, test: DigitImages, *, k: int = 5, steps: Progress = no_progress
) -> KnnResult:
    """Put the training pictures into an embedded store, and let each test one search it.

    Args:
        model: What embeds.
        digits: The training pictures are its.
        test: What is asked.
        k: KnnResult that vote.
        steps: Told of the progress.

    Raises:
        InvalidArgumentError: k is under 1, or the model takes other pictures.
    """
    digits.require(model)
    rows = _embedded(model, digits.train, f"{model.bundle.name}: indexing", steps)
    there = np.asarray(np.isfinite(rows).all(axis=1) & rows.any(axis=1))
    vectors = ImageVectors(model.bundle.name, rows, there)
    queries = _embedded(model, test, f"{model.bundle.name}: embedding", steps)
    said: list[str | None] = []
    with (
        temporary_collection(vectors, digits.labelled(digits.train)) as (store, name),
        steps(f"{model.bundle.name}: searching", len(test)) as advance,
    ):
        for start in range(0, len(test), _TOGETHER):
            found = store.search(name, queries[start : start + _TOGETHER], k=k)
            said += [vote([hit.payload["person"] for hit in hits]) for hits in found]
            advance(len(found))
    right = np.array([digits.classes[label] for label in test.labels.tolist()]) == np.array(said)
    return _row(model.bundle.name, rows.shape[1], "cosine", "store", k, int(there.sum()), right)


def baseline_knn(
    digits: MnistData, test: DigitImages, numbers: Sequence[int], *, k: int = 5, steps: Progress = no_progress
) -> list[KnnResult]:
    """Measure raw pixels, and PCA fitted to the training pictures, each by Euclidean distance and by cosine.

    Cosine of PCA is that of centred vectors; of raw pixels it is that of the pixels as they are.

    Args:
        digits: The training pictures are its.
        test: What is asked.
        numbers: Sizes of the PCAs; sizes over P are left out.
        k: KnnResult that vote.
        steps: Told of the progress.
    """
    stored, asked = _flat(digits.train), _flat(test)
    mean = stored.mean(axis=0)
    found: list[KnnResult] = []
    sizes = sorted({each for each in numbers if each <= stored.shape[1]})
    axes = _axes(stored - mean) if sizes else np.zeros((0, 0), np.float32)
    kinds: list[tuple[str, Floats, Floats]] = [("raw pixels", stored, asked)]
    kinds += [
        (f"PCA-{size}", (stored - mean) @ axes[:, :size], (asked - mean) @ axes[:, :size]) for size in sizes
    ]
    for name, rows, queries in kinds:
        for metric in ("Euclid", "cosine"):
            with steps(f"{name}, {metric}", len(test)) as advance:
                said: list[int | None] = []
                for near in nearest(rows, queries, k=k, metric=metric):
                    said += [vote(each) for each in digits.train.labels[near].tolist()]
                    advance(len(near))
            right = test.labels == np.array(said)
            found.append(_row(name, rows.shape[1], metric, "numpy", k, len(rows), right))
    return found


def nearest(rows: Floats, queries: Floats, *, k: int, metric: Metric) -> Iterator[NDArray[np.int64]]:
    """Yield for some queries at a time the indices (some, k) of their nearest rows, nearest first.

    Args:
        rows: float32 (N, E).
        queries: float32 (M, E).
        k: From 1 to N.
        metric: By which they are near.

    Raises:
        InvalidArgumentError: k cannot be.
    """
    if not 1 <= k <= len(rows):
        raise InvalidArgumentError(f"neighbours are 1 to {len(rows)}, got k = {k}")
    if metric == "cosine":
        rows, queries = _unit(rows), _unit(queries)  # of equal length: what is nearer is turned less
    # Of one query, |r|² / 2 - r·q rises as the distance does; for unit vectors as the cosine falls.
    half: Floats = np.einsum("ij,ij->i", rows, rows) / np.float32(2)
    for start in range(0, len(queries), _AT_ONCE):
        far = half - queries[start : start + _AT_ONCE] @ rows.T
        near = np.argpartition(far, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(far, near, axis=1), axis=1, kind="stable")
        yield np.take_along_axis(near, order, axis=1)


def vote(classes: Sequence[Class]) -> Class | None:
    """Return the most frequent class, of equally frequent ones the first; None of nothing."""
    return max(classes, key=classes.count) if classes else None


def _row(
    name: str,
    numbers: int,
    metric: Metric,
    through: Literal["store", "numpy"],
    k: int,
    stored: int,
    right: NDArray[np.bool_],
) -> KnnResult:
    share = float(right.mean())
    error = float(np.sqrt(share * (1 - share) / len(right)))
    return KnnResult(name, numbers, metric, through, k, stored, len(right), share, error)


def _embedded(model: Model, pictures: DigitImages, what: str, steps: Progress) -> Floats:
    """Return float32 (N, E)."""
    rows = np.empty((len(pictures), model.bundle.spec.embedding), np.float32)
    with steps(what, len(pictures)) as advance:
        for start in range(0, len(pictures), _EMBEDDED):
            some = pictures.images[start : start + _EMBEDDED]
            rows[start : start + _EMBEDDED] = model.embed(some)
            advance(len(some))
    return rows


def _flat(pictures: DigitImages) -> Floats:
    """Return float32 (N, P) in [0, 1]."""
    flat: Floats = pictures.images.reshape(len(pictures), -1).astype(np.float32) / np.float32(255)
    return flat


def _axes(centred: Floats) -> Floats:
    """Return the principal axes as columns, float32 (P, P), that of the largest variance first."""
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    axes: Floats = vectors[:, ::-1].astype(np.float32)
    return axes


def _unit(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
