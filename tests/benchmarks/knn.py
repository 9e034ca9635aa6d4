"""k nearest neighbors of digits by raw pixels and PCA, the baselines of the README's table of digits.

Legend: N training digits, M test digits, E dimensions of a vector, P pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from lookalike.deploy.evaluation import MnistData
from lookalike.deploy.evaluation.data import DigitImages
from lookalike.deploy.evaluation.retrieval import KnnResult, majority_vote
from lookalike.deploy.evaluation.vectors import Progress, no_progress

Floats = NDArray[np.float32]
Metric = Literal["cosine", "Euclid"]
_BATCH = 1000


def baseline_knn(
    digits: MnistData,
    test: DigitImages,
    dimensions: Sequence[int],
    *,
    k: int = 5,
    progress: Progress = no_progress,
) -> list[KnnResult]:
    """Measure raw pixels, and PCA fitted to the training digits, each by Euclidean distance and by cosine.

    Cosine of PCA is that of centered vectors; of raw pixels it is that of the pixels as they are.

    Args:
        digits: The data set with the training digits.
        test: The queries.
        dimensions: Sizes of the PCAs; sizes over P are left out.
        k: Neighbors that vote.
        progress: Shows the progress.
    """
    stored, queries = _flat(digits.train), _flat(test)
    mean = stored.mean(axis=0)
    sizes = sorted({size for size in dimensions if size <= stored.shape[1]})
    axes = _axes(stored - mean) if sizes else np.zeros((0, 0), np.float32)
    kinds: list[tuple[str, Floats, Floats]] = [("raw pixels", stored, queries)]
    kinds += [
        (f"PCA-{size}", (stored - mean) @ axes[:, :size], (queries - mean) @ axes[:, :size]) for size in sizes
    ]
    results: list[KnnResult] = []
    metrics: tuple[Metric, ...] = ("Euclid", "cosine")
    for name, rows, asked in kinds:
        for metric in metrics:
            votes: list[int | None] = []
            with progress(f"{name}, {metric}", len(test)) as advance:
                for near in nearest(rows, asked, k=k, metric=metric):
                    votes += [majority_vote(labels) for labels in digits.train.labels[near].tolist()]
                    advance(len(near))
            share = float((test.labels == np.array(votes)).mean())
            error = float(np.sqrt(share * (1 - share) / len(test)))
            results.append(
                KnnResult(name, rows.shape[1], metric, "numpy", k, len(rows), len(test), share, error)
            )
    return results


def nearest(rows: Floats, queries: Floats, *, k: int, metric: Metric) -> Iterator[NDArray[np.int64]]:
    """Yield for a batch of queries at a time the indices (n, k) of their nearest rows, nearest first.

    Args:
        rows: float32 (N, E).
        queries: float32 (M, E).
        k: From 1 to N.
        metric: How they are compared.
    """
    search = NearestNeighbors(
        n_neighbors=k, algorithm="brute", metric="cosine" if metric == "cosine" else "euclidean"
    ).fit(rows)
    for start in range(0, len(queries), _BATCH):
        yield search.kneighbors(queries[start : start + _BATCH], return_distance=False)


def _flat(digits: DigitImages) -> Floats:
    """Return float32 (N, P) in [0, 1]."""
    flat: Floats = digits.images.reshape(len(digits), -1).astype(np.float32) / np.float32(255)
    return flat


def _axes(centered: Floats) -> Floats:
    """Return the principal axes as columns, float32 (P, P), that of the largest variance first."""
    _, vectors = np.linalg.eigh((centered.T @ centered).astype(np.float64))
    axes: Floats = vectors[:, ::-1].astype(np.float32)
    return axes
