"""Groups of similar vectors: averaged with their near neighbors, they take the label of what is then near.

Averaging is a step of mean shift (K. Fukunaga, L. D. Hostetler: The estimation of the gradient of a density
function. IEEE Transactions on Information Theory 21, 1975): images of one person move towards each other. The
groups are found by propagation of labels in the graph of neighbors (Chinese Whispers: C. Biemann, TextGraphs
2006), so that one image that is similar to two people does not make one group of them. docs/experiments.md
compares other ways.

Legend: N vectors, E embedding size, k neighbors, L links.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from tempfile import TemporaryFile
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.searcher.clusters.neighbors import EXACT_UP_TO, nearest

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]
Indices = NDArray[np.int32]

NEIGHBORS: Final = 16
_ROUNDS: Final = 100
_SHARE: Final = 0.5
"""Of the vectors that would change their label, so many do in a round."""
_TIE: Final = 1e-6
"""What a vector's own label is worth more than another that is as strong."""
_ROWS: Final = 4096
_LINKS: Final = 1 << 18
"""Links that are looked at together."""


def cluster_vectors(
    vectors: Vectors,
    threshold: float,
    *,
    known: Labels | None = None,
    min_size: int = 2,
    exact_up_to: int = EXACT_UP_TO,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Labels:
    """Return the group of each of N unit vectors, int64 (N,); 0: in none.

    New groups are numbered after the known ones, the largest first. A known group keeps its vectors and its
    number: others join it, and no two known groups become one.

    Args:
        vectors: float32 (N, E), in memory or mapped from a file.
        threshold: Cosine similarity from which two vectors are near, above 0 and at most 1.
        known: Groups from 1 that are there already, int64 (N,); 0: in none. None: there are none.
        min_size: Vectors that a new group has at least.
        exact_up_to: As for :func:`~.neighbors.nearest`.
        on_progress: Called with numbers of vectors that are done: N in all, about.
    """
    known = np.zeros(len(vectors), np.int64) if known is None else known
    if len(vectors) < 2:
        return known.copy()
    index, cosines = nearest(vectors, NEIGHBORS, exact_up_to=exact_up_to, on_progress=on_progress)
    with TemporaryFile() as file:
        averaged = _average(vectors, index, cosines, threshold, file)
        one, other, strength = _links(averaged, index, threshold)
        del averaged, index, cosines
    return _numbered(_propagate(one, other, strength, known), known, min_size)


def mapped(file: IO[bytes], shape: tuple[int, int]) -> Vectors:
    """Return an array float32 of this shape in a file that is open: the disk holds it, not the memory."""
    if 0 in shape:
        return np.zeros(shape, np.float32)
    array: Vectors = np.memmap(file, np.float32, "w+", shape=shape)
    return array


def _average(
    vectors: Vectors, index: NDArray[np.int32], cosines: Vectors, threshold: float, file: IO[bytes]
) -> Vectors:
    """Return the mean of each vector and its near neighbors, weighted by their cosines, of unit length."""
    averaged = mapped(file, (len(vectors), vectors.shape[1]))
    for start in range(0, len(vectors), _ROWS):
        part = slice(start, start + _ROWS)
        rows = np.array(vectors[part])
        weights = np.where(cosines[part] >= threshold, cosines[part], 0)
        for column in range(index.shape[1]):
            near = np.flatnonzero(weights[:, column])
            rows[near] += weights[near, column, None] * vectors[index[part][near, column]]
        averaged[part] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return averaged


def _links(
    averaged: Vectors, index: Indices, threshold: float
) -> tuple[Indices, Indices, NDArray[np.float32]]:
    """Return the pairs of neighbors whose averages are near: int32 (L,) twice, and their cosines (L,)."""
    found: list[tuple[Labels, NDArray[np.float32]]] = []
    count = len(averaged)
    for start in range(0, count, _ROWS):
        rows, near = averaged[start : start + _ROWS], index[start : start + _ROWS].astype(np.int64)
        for column in range(index.shape[1]):
            strength = np.einsum("ne,ne->n", rows, averaged[near[:, column]])
            linked = np.flatnonzero((strength >= threshold) & (near[:, column] >= 0))
            one, other = linked + start, near[linked, column]
            # Two that are neighbors of each other are one pair.
            found.append((np.minimum(one, other) * count + np.maximum(one, other), strength[linked]))
    pairs, first = np.unique(np.concatenate([pair for pair, _ in found]), return_index=True)
    strengths = np.concatenate([strength for _, strength in found])[first]
    return (pairs // count).astype(np.int32), (pairs % count).astype(np.int32), strengths


def _propagate(one: Indices, other: Indices, strength: NDArray[np.float32], known: Labels) -> Labels:
    """Let each vector take the label that is strongest among those it is linked to, until none changes.

    Half of those that would change do so at a time, at random: else two could swap their labels for ever.

    Returns:
        int64 (N,): the index of a vector of the known group that it has joined, or of any vector.
    """
    count = len(known)
    label = np.arange(count)
    grouped = np.flatnonzero(known)
    _, first, group = np.unique(known[grouped], return_index=True, return_inverse=True)
    label[grouped] = grouped[first][group]
    item, linked = np.concatenate([one, other]), np.concatenate([other, one])
    weight = np.concatenate([strength, strength])
    free = known[item] == 0
    item, linked, weight = item[free], linked[free], weight[free]
    order = np.argsort(item, kind="stable")
    item, linked, weight = item[order], linked[order], weight[order]
    del order, free
    # All links of a vector are in one part.
    parts = list(pairwise([*np.unique(np.searchsorted(item, item[::_LINKS])).tolist(), len(item)]))
    rng = np.random.default_rng(0)
    active = np.ones(count, np.bool_)
    for _ in range(_ROUNDS):
        found = [
            _strongest(item[start:end], linked[start:end], weight[start:end], label, active)
            for start, end in parts
        ]
        items = np.concatenate([np.zeros(0, np.int64), *(each for each, _ in found)])
        labels = np.concatenate([np.zeros(0, np.int64), *(each for _, each in found)])
        if not len(items):
            break
        now = rng.random(len(items)) < _SHARE
        changed = np.zeros(count, np.bool_)
        changed[items[now]] = True
        label[items[now]] = labels[now]
        active[:] = False
        active[items[~now]] = True
        for start, end in parts:
            active[item[start:end][changed[linked[start:end]]]] = True
    return label


def _strongest(
    item: Indices, linked: Indices, weight: NDArray[np.float32], label: Labels, active: NDArray[np.bool_]
) -> tuple[Labels, Labels]:
    """Return the active vectors for which another label is stronger than their own, and that label.

    Args:
        item: The vectors of links, int32 (L,): all links of a vector, or none.
        linked: What they lead to, int32 (L,).
        weight: Their cosines, float32 (L,).
        label: Of all vectors, int64 (N,).
        active: Those that are asked, bool (N,).
    """
    asked = active[item]
    vectors, offered = item[asked].astype(np.int64), label[linked[asked]]
    if not len(vectors):
        return vectors, offered
    key = vectors * len(label) + offered
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    sums = np.add.reduceat(weight[asked][order].astype(np.float64), starts)
    vectors, offered = vectors[order][starts], offered[order][starts]
    sums += _TIE * (offered == label[vectors])
    order = np.lexsort((-offered, sums, vectors))
    best = order[np.flatnonzero(np.diff(vectors[order], append=-1))]
    best = best[offered[best] != label[vectors[best]]]
    return vectors[best], offered[best]


def _numbered(label: Labels, known: Labels, min_size: int) -> Labels:
    """Return the number of each vector's group, from the labels of :func:`_propagate`."""
    joined = known[label]
    sizes = np.bincount(label[joined == 0], minlength=len(label))
    roots = np.flatnonzero(sizes >= min_size)
    roots = roots[np.argsort(-sizes[roots], kind="stable")]
    numbers = np.zeros(len(label), np.int64)
    numbers[roots] = int(known.max(initial=0)) + 1 + np.arange(len(roots))
    return np.where(joined == 0, numbers[label], joined)
