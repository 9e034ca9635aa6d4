"""How well groups of similar images are people: B-cubed precision and recall.

A. Bagga, B. Baldwin: Entity-based cross-document coreferencing using the vector space model. COLING-ACL 1998.

Legend: N images, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.searcher.clusters import cluster_vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class Clustering:
    """How well groups are people.

    Attributes:
        images: N.
        people: In them.
        clusters: Groups of two images or more.
        threshold: Similarity from which two images are near.
        precision: Mean over the images of the share of their group that shows their person, itself included.
        recall: Mean over the images of the share of their person's images that are in their group.
    """

    images: int
    people: int
    clusters: int
    threshold: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "f1": self.f1}


def measure_clusters(
    vectors: NDArray[np.float32],
    people: Sequence[str],
    threshold: float,
    *,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Clustering:
    """Group N unit vectors float32 (N, E), and compare the groups with the people; one in no group is alone.

    Raises:
        InvalidArgumentError: there is no image.
    """
    if not len(vectors):
        raise InvalidArgumentError("clustering needs images of known people, got none; name others by --data")
    found = cluster_vectors(vectors, threshold, on_progress=on_progress)
    alone = np.flatnonzero(found == 0)
    clusters = int(found.max(initial=0))
    found[alone] = clusters + 1 + np.arange(len(alone))
    _, truth = np.unique(np.array(people), return_inverse=True)
    precision, recall = b_cubed(found, truth)
    return Clustering(
        images=len(vectors),
        people=int(truth.max()) + 1,
        clusters=clusters,
        threshold=threshold,
        precision=precision,
        recall=recall,
    )


def b_cubed(found: NDArray[np.int64], truth: NDArray[np.int64]) -> tuple[float, float]:
    """Return B-cubed precision and recall of the groups of N images, int64 (N,) 0 or more, N over 0."""
    _, both, together = np.unique(np.stack([found, truth]), axis=1, return_inverse=True, return_counts=True)
    shared = together[both.ravel()]
    precision = shared / np.bincount(found)[found]
    recall = shared / np.bincount(truth)[truth]
    return float(precision.mean()), float(recall.mean())


def cluster_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of :meth:`Clustering.to_json` records with name and people's group."""
    width = max(4, *(len(row["name"]) for row in records))
    head = (
        f"{'images':>7} {'people':>7} {'groups':>7} {'threshold':>9} {'precision':>9} {'recall':>7} {'F1':>6}"
    )
    lines = [f"{'row':<{width}}  {'of':<10} {head}"]
    lines += [
        f"{row['name']:<{width}}  {row['of']:<10} {row['images']:>7,} {row['people']:>7,} "
        f"{row['clusters']:>7,} {row['threshold']:>9.3f} {row['precision']:>9.3f} {row['recall']:>7.3f} "
        f"{row['f1']:>6.3f}"
        for row in records
    ]
    return "\n".join(lines)
