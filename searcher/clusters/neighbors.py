"""The nearest neighbors of every vector among all others, without a matrix of all pairs.

Few vectors are all compared. Many are first divided into cells (an inverted file: J. Sivic, A. Zisserman:
Video Google. ICCV 2003), and each is compared with those of the cells it is nearest to, by products of
matrices.

Legend: N vectors, E embedding size, k neighbors, C cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Indices = NDArray[np.int32]

EXACT_UP_TO: Final = 40_000
"""Up to this many vectors all are compared with all."""
_CELL: Final = 1_000
"""Vectors in a cell, about."""
_PROBES: Final = 16
"""Cells that a vector is compared with."""
_SAMPLE: Final = 40
"""Vectors for each cell that the cells are fitted to."""
_ROUNDS: Final = 6
_BLOCK: Final = 1 << 24
"""Numbers in one product of matrices, 64 MB."""


def nearest(
    vectors: Vectors,
    k: int,
    *,
    exact_up_to: int = EXACT_UP_TO,
    on_progress: Callable[[int], object] = lambda _: None,
) -> tuple[Indices, Vectors]:
    """Return for each of N unit vectors its most similar others, int32 (N, k), and their cosines (N, k).

    In no particular order; where there are fewer than k, the index is -1 and the cosine -2. Beside the result
    some 100 MB are needed. With more vectors than ``exact_up_to``, a neighbor that lies in a cell farther
    away is missed.

    Args:
        vectors: float32 (N, E), in memory or mapped from a file.
        k: Neighbors, at least 1.
        exact_up_to: Largest N for which all are compared with all.
        on_progress: Called with the number of vectors that were compared with a cell, divided by the cells
            that each is compared with: N in all, about.
    """
    count = len(vectors)
    index, score = np.full((count, k), -1, np.int32), np.full((count, k), -2, np.float32)
    if count <= exact_up_to:
        everything = np.arange(count, dtype=np.int32)
        _compare(vectors, everything, everything, index, score, on_progress)
        return index, score
    centers = _centers(vectors, max(_PROBES, count // _CELL))
    probes = _assign(vectors, centers, _PROBES)
    order = np.argsort(probes.ravel(), kind="stable")
    order //= _PROBES
    starts = [0, *np.cumsum(np.bincount(probes.ravel(), minlength=len(centers))).tolist()]
    left = 0
    for cell in range(len(centers)):
        queries = order[starts[cell] : starts[cell + 1]].astype(np.int32)
        members = queries[probes[queries, 0] == cell]
        _compare(vectors, queries, members, index, score, lambda _: None)
        left += len(queries)
        on_progress(left // _PROBES)
        left %= _PROBES
    return index, score


def _compare(
    vectors: Vectors,
    queries: Indices,
    members: Indices,
    index: Indices,
    score: Vectors,
    on_progress: Callable[[int], object],
) -> None:
    """Compare vectors with others, both given by index, and keep the k nearest in ``index`` and ``score``."""
    if not len(members):
        return
    k = index.shape[1]
    others = vectors[members]
    rows = max(1, _BLOCK // max(len(members), vectors.shape[1]))
    for start in range(0, len(queries), rows):
        some = queries[start : start + rows]
        cosines = vectors[some] @ others.T
        # A vector is no neighbor of itself.
        place = np.searchsorted(members, some).clip(max=len(members) - 1)
        own = np.flatnonzero(members[place] == some)
        cosines[own, place[own]] = -2
        if len(members) > k:
            best = np.argpartition(cosines, len(members) - k, axis=1)[:, -k:]
            found, near = members[best], np.take_along_axis(cosines, best, axis=1)
        else:
            found, near = np.broadcast_to(members, cosines.shape), cosines
        found = np.concatenate([index[some], np.where(near > -2, found, -1)], axis=1)
        near = np.concatenate([score[some], near], axis=1)
        best = np.argpartition(near, near.shape[1] - k, axis=1)[:, -k:]
        index[some] = np.take_along_axis(found, best, axis=1)
        score[some] = np.take_along_axis(near, best, axis=1)
        on_progress(len(some))


def _centers(vectors: Vectors, cells: int) -> Vectors:
    """Return the centers of C cells, float32 (C, E) of unit length: k-means on the sphere, of a sample."""
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.choice(len(vectors), min(len(vectors), _SAMPLE * cells), replace=False))]
    centers = sample[rng.choice(len(sample), cells, replace=False)]
    for _ in range(_ROUNDS):
        of = _assign(sample, centers, 1)[:, 0]
        order = np.argsort(of, kind="stable")
        taken, first = np.unique(of[order], return_index=True)
        sums = np.add.reduceat(sample[order], first, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centers[taken] = sums / np.maximum(lengths, 1e-6)
    return centers


def _assign(vectors: Vectors, centers: Vectors, probes: int) -> Indices:
    """Return the nearest cells of each vector, int32 (N, probes), the nearest one first."""
    cells = np.empty((len(vectors), probes), np.int32)
    rows = max(1, _BLOCK // max(centers.shape))
    for start in range(0, len(vectors), rows):
        cosines = vectors[start : start + rows] @ centers.T
        best = np.argpartition(cosines, len(centers) - probes, axis=1)[:, -probes:]
        near = np.take_along_axis(cosines, best, axis=1)
        cells[start : start + rows] = np.take_along_axis(best, np.argsort(-near, axis=1), axis=1)
    return cells
