"""Searches whose answer is known: what the probability of a hit is fitted to, and measured on.

A gallery of some size is drawn for each query: without the query's person, with one image of them, or with
all. The scores of pairs say too little about hits: the first of 10,000 is the largest of 10,000 scores, and
the few images that resemble everybody come first again and again (docs/experiments.md).

Legend: N labeled images, M images of nobody in particular, E embedding size, Q searches, k hits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import DEFAULT_PRESENCE, SearchCalibration, presence_odds
from lookalike.encoder.errors import CalibrationError
from lookalike.trainer.fitting.regression import logistic_regression

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
Mates = Literal["none", "one", "all", "every"]
"""Images of the query's person in a gallery, the query left out: "all" fill at most half of it;
"every" are as many as there are, or none."""

SIZES: Final = (100, 1000, 10_000)
"""Of the galleries, as far as there are images."""
HITS: Final = 10
"""That are looked at."""
_SHARES: Final[dict[Mates, float]] = {"none": 0.5, "one": 0.25, "all": 0.25, "every": 1.0}
_FIRST: Final = 0.5
"""Weight of the first hit, of 1 for all of a search: it decides what people believe."""
_MAX_PER_PERSON: Final = 10
"""Queries: a person with hundreds of images does not outweigh everybody else."""
_MAX_QUERIES: Final = 2000
_MIN_GALLERY: Final = 20
_BATCH: Final = 256
_LEAST_DECLINE: Final = 0.5


@dataclass(frozen=True, eq=False, slots=True)
class Searches:
    """The first hits of searches.

    Attributes:
        scores: Cosine similarity, float64 (Q, k), falling.
        right: Whether a hit shows the query's person, bool (Q, k).
        sizes: Images in each gallery, float64 (Q,).
        wanted: The size that was asked for, int64 (Q,); a gallery is smaller where there are too few images.
        present: Whether the gallery holds the query's person, bool (Q,).
        weights: float64 (Q,).
        queries: Images whose person was in some gallery.
    """

    scores: Reals
    right: NDArray[np.bool_]
    sizes: Reals
    wanted: NDArray[np.int64]
    present: NDArray[np.bool_]
    weights: Reals
    queries: int

    def where(self, chosen: NDArray[np.bool_]) -> Searches:
        """Return these searches, bool (Q,)."""
        return Searches(
            self.scores[chosen], self.right[chosen], self.sizes[chosen], self.wanted[chosen],
            self.present[chosen], self.weights[chosen], self.queries,
        )  # fmt: skip


def draw_searches(
    embeddings: Floats,
    people: Sequence[str | None],
    others: Floats | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    mates: Sequence[Mates] = ("none", "one", "all"),
    queries: NDArray[np.bool_] | None = None,
    seed: int = 0,
    most: int | None = _MAX_PER_PERSON,
) -> Searches:
    """Search drawn galleries.

    Half of the weight is that of searches without the person, where both kinds are drawn. A person with a
    single image is only searched for in galleries without them.

    Args:
        embeddings: float32 (N, E) of unit length.
        people: N names; images of unknown people (None) only fill galleries.
        others: float32 (M, E): images of other people, who fill galleries too.
        sizes: Of the galleries; more than there are images means all of them.
        mates: Which galleries are drawn of each size.
        queries: bool (N,): only these images query; None: all with a name.
        seed: Of the choice.
        most: Queries of each person, and no more than 2,000; None: all images query.

    Raises:
        CalibrationError: There are fewer than 20 images to search, or no query.
    """
    rng = np.random.default_rng(seed)
    pool = embeddings if others is None else np.concatenate([embeddings, others])
    labels = _labels(people, len(pool))
    usable = np.isfinite(pool).all(axis=1) & pool.any(axis=1)  # what has a direction
    asks = np.ones(len(people), np.bool_) if queries is None else queries
    asks = np.append(asks, np.zeros(len(pool) - len(people), np.bool_))[usable]
    pool, labels = pool[usable], labels[usable]
    limit = len(pool) - 1
    if limit < _MIN_GALLERY:
        raise CalibrationError(
            f"calibration needs {_MIN_GALLERY + 1} images to search, there are {len(pool)}; give more"
        )
    chosen, counts = _choose(labels, np.flatnonzero(asks & (labels >= 0)), most, rng)
    drawn = _Drawn()
    for query, scores in _all_scores(pool, chosen):
        own = labels == labels[query]
        own[query] = False
        friends = rng.permutation(np.flatnonzero(own))
        strangers = rng.permutation(np.flatnonzero(labels != labels[query]))
        for size in sorted({min(size, limit) for size in sizes}):
            for kind in mates:
                if kind in ("one", "all") and not len(friends):
                    continue
                some = friends[: _count(kind, len(friends), size)]
                gallery = np.concatenate([some, strangers[: size - len(some)]])
                drawn.add(scores[gallery], own[gallery], (size, kind), 1 / counts[labels[query]])
    return drawn.searches(int(sum((labels == labels[query]).sum() > 1 for query in chosen)))


def fit_search_calibration(searches: Searches) -> SearchCalibration:
    """Fit it by logistic regression, the first hit of a search counting as much as all others.

    Half of the searches, by weight, are without their person: a prior of :data:`DEFAULT_PRESENCE`. How fast
    the odds fall with the size of a gallery is fitted where there are several sizes; else, or where the fit
    leaves what is plausible, they fall as in theory.

    Raises:
        CalibrationError: No search found its person, or right hits score no higher than wrong ones.
    """
    hits = searches.scores.shape[1]
    seen = np.isfinite(searches.scores)
    weights = searches.weights[:, None] * np.r_[_FIRST, np.full(hits - 1, (1 - _FIRST) / max(hits - 1, 1))]
    right, scores = searches.right[seen], searches.scores[seen]
    sizes = np.broadcast_to(np.log(searches.sizes)[:, None], seen.shape)[seen]
    n, m = int(right.sum()), int((~right).sum())
    if not n or not m:
        raise CalibrationError("calibration needs searches with right and wrong hits; give more people")
    # Smoothed as in Platt's method, so that the slope stays finite where right and wrong do not overlap.
    targets = np.where(right, (n + 1) / (n + 2), 1 / (m + 2))
    decline = 1.0
    line = np.stack([scores, np.ones_like(scores)], axis=1)
    if len(np.unique(searches.wanted)) > 1:
        plane = np.concatenate([line, -sizes[:, None]], axis=1)
        free = float(logistic_regression(plane, targets, weights[seen])[2])
        decline = free if _LEAST_DECLINE <= free <= 1 else 1.0
    slope, intercept = logistic_regression(line, targets, weights[seen], offset=-decline * sizes)
    if slope <= 0:
        raise CalibrationError(
            f"right hits must score higher than wrong ones, their mean scores are {scores[right].mean():.3f} "
            f"and {scores[~right].mean():.3f}; this model does not tell these people apart"
        )
    return SearchCalibration(
        slope=float(slope),
        intercept=float(intercept) - presence_odds(DEFAULT_PRESENCE),
        decline=decline,
        searches=searches.queries,
    )


class _Drawn:
    """Collects searches."""

    def __init__(self) -> None:
        self._rows: list[tuple[Reals, NDArray[np.bool_], int, tuple[int, Mates], float, bool]] = []

    def add(self, scores: Floats, right: NDArray[np.bool_], wanted: tuple[int, Mates], weight: float) -> None:
        """Add the best hits of a gallery of this size and kind; of fewer than ten the rest is -inf."""
        count = min(HITS, len(scores))
        best = np.argpartition(-scores, count - 1)[:count]
        best = best[np.argsort(-scores[best], kind="stable")]
        padded, true = np.full(HITS, -np.inf), np.zeros(HITS, np.bool_)
        padded[:count], true[:count] = scores[best], right[best]
        self._rows.append((padded, true, len(scores), wanted, weight, bool(right.any())))

    def searches(self, queries: int) -> Searches:
        """Return what was collected; each kind has its share of the weight of each size.

        Raises:
            CalibrationError: Nothing was collected.
        """
        if not self._rows:
            raise CalibrationError("calibration needs images with a name to search with; give some")
        totals: dict[tuple[int, Mates], float] = {}
        for _, _, _, wanted, weight, _ in self._rows:
            totals[wanted] = totals.get(wanted, 0.0) + weight
        weights = [
            weight * _SHARES[kind] / totals[size, kind] for _, _, _, (size, kind), weight, _ in self._rows
        ]
        scores, right, sizes, asked, _, present = zip(*self._rows, strict=True)
        return Searches(
            np.stack(scores),
            np.stack(right),
            np.array(sizes, np.float64),
            np.array([size for size, _ in asked]),
            np.array(present),
            np.array(weights),
            queries,
        )


def _all_scores(pool: Floats, queries: NDArray[np.int64]) -> Iterator[tuple[int, Floats]]:
    """Yield each query and its scores with all images, float32 (N,)."""
    for start in range(0, len(queries), _BATCH):
        batch = queries[start : start + _BATCH]
        yield from zip(batch.tolist(), pool[batch] @ pool.T, strict=True)


def _labels(people: Sequence[str | None], count: int) -> NDArray[np.int64]:
    """Return a number for each person, int64 (count,); a different negative one for each unknown."""
    labels = -1 - np.arange(count)
    ids: dict[str, int] = {}
    for place, name in enumerate(people):
        if name is not None:
            labels[place] = ids.setdefault(name, len(ids))
    return labels


def _choose(
    labels: NDArray[np.int64], asking: NDArray[np.int64], most: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the images that query, and how many queries count as one: those of a person, if not all do."""
    if most is None:
        return asking, np.ones(int(labels.max(initial=0)) + 1, np.int64)
    taken: dict[int, int] = {}
    chosen = []
    for place in rng.permutation(asking).tolist():
        person = int(labels[place])
        if taken.get(person, 0) < most:
            taken[person] = taken.get(person, 0) + 1
            chosen.append(place)
    kept = np.array(chosen[:_MAX_QUERIES], np.int64)
    return kept, np.bincount(labels[kept], minlength=int(labels.max(initial=0)) + 1)


def _count(kind: Mates, friends: int, size: int) -> int:
    """Return how many images of the query's person are put into a gallery."""
    return {"none": 0, "one": 1, "all": min(friends, size // 2), "every": friends}[kind]
