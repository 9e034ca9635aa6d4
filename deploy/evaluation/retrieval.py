"""How well people find themselves, through the store, by the names that pictures bear.

Mean average precision: E. M. Voorhees, D. K. Harman (eds.): TREC: Experiment and Evaluation in Information
Retrieval. MIT Press, 2005, chapter 3.

Legend: N vectors, E embedding size, Q queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import LabeledImages
from lookalike.deploy.evaluation.vectors import ImageVectors, Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.open import open_store
from lookalike.indexer.sources.source import item_id
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.points import Hit, Record
from lookalike.indexer.store.spec import CollectionSpec

__all__ = ["Query", "Ranking", "Retrieval", "rank_all", "retrieval", "temporary_collection"]

_TOGETHER: Final = 64
_AT_ONCE: Final = 512  # queries compared with everything in one product
_NAME: Final = "evaluated"


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Shares in [0, 1] of queries whose person is the first hit, or among the first five.

    Attributes:
        queries: How many there were.
        recall_at_1: Share with the same person first.
        recall_at_5: Share with the same person among the first five.
        mean_average_precision: Mean over the queries of the average precision of the ranking of all others.
        others: How many images each query searched, itself left out.
    """

    queries: int
    recall_at_1: float
    recall_at_5: float
    mean_average_precision: float
    others: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Query:
    """What one image found.

    Attributes:
        record: The image that asked.
        hits: Its best five others, best first.
        precision: Average precision over the ranking of all others, in [0, 1].
        best: Place from 1 of the first image of the same person in that ranking.
        right: That image.
        right_score: Its likeness, the cosine.
    """

    record: Record
    hits: tuple[Hit, ...]
    precision: float
    best: int
    right: Record
    right_score: float

    @property
    def person(self) -> str:
        """Who is on the image that asked."""
        return str(self.record.payload["person"])

    def among(self, k: int) -> bool:
        """Whether the same person is among the first k, at most five."""
        return any(hit.payload.get("person") == self.person for hit in self.hits[:k])


@dataclass(frozen=True, slots=True)
class Ranking:
    """What every image of a person with two or more images found among all others.

    Attributes:
        name: Of the collection.
        queries: Of the images, in the order of their ids.
        others: How many images each searched.
    """

    name: str
    queries: tuple[Query, ...]
    others: int

    def of(self, people: Collection[str] | None = None) -> Retrieval:
        """Return the figures of all queries, or of these people's.

        Raises:
            InvalidArgumentError: there is no such query.
        """
        asked = self.asked(people)
        if not asked:
            raise InvalidArgumentError(
                f"retrieval needs people with two or more images, collection {self.name!r} has none"
            )
        return Retrieval(
            queries=len(asked),
            recall_at_1=sum(query.among(1) for query in asked) / len(asked),
            recall_at_5=sum(query.among(5) for query in asked) / len(asked),
            mean_average_precision=sum(query.precision for query in asked) / len(asked),
            others=self.others,
        )

    def asked(self, people: Collection[str] | None = None) -> list[Query]:
        """Return all queries, or these people's."""
        return [query for query in self.queries if people is None or query.person in people]


def retrieval(
    store: VectorStore,
    name: str,
    *,
    people: Collection[str] | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Retrieval:
    """Let every image of a person with two or more images query all others, through the store.

    Args:
        store: Where the collection is.
        name: Its name.
        people: Only these people's queries count; everybody's images are searched.
        on_total: Told how many queries there will be.
        on_progress: Told of each batch.

    Raises:
        InvalidArgumentError: nobody has two images.
    """

    @contextmanager
    def steps(_what: str, total: int) -> Iterator[Callable[[int], object]]:
        on_total(total)
        yield on_progress

    return rank_all(store, name, people=people, steps=steps).of(people)


def rank_all(
    store: VectorStore,
    name: str,
    *,
    people: Collection[str] | None = None,
    steps: Progress = no_progress,
) -> Ranking:
    """Let every image of a person with two or more images query all others.

    The hits, and with them the recall, come from the store's own search. Average precision needs the place of
    every right image: it is computed exactly from the same vectors, read back from the store, by comparing
    each query with all of them; equal likeness counts in the order of ids, as in the store.

    Args:
        store: Where the collection is.
        name: Its name.
        people: Only these people's images query; everybody's are searched.
        steps: Told of the progress.
    """
    records = [record for record in store.scroll(name, with_vectors=True) if record.vector is not None]
    counts = Counter(record.payload.get("person") for record in records)
    asking = [
        index
        for index, record in enumerate(records)
        if (person := record.payload.get("person")) is not None
        and counts[person] > 1
        and (people is None or person in people)
    ]
    if not asking:
        return Ranking(name, (), max(0, len(records) - 1))
    rows = np.stack([record.vector for record in records if record.vector is not None])
    with steps("searching", len(asking)) as advance:
        hits = _hits(store, name, [records[index] for index in asking], rows[asking], advance)
        places = _places(rows, [record.payload.get("person") for record in records], asking)
        queries = tuple(
            Query(records[index], found, precision, best, records[right], score)
            for index, found, (precision, best, right, score) in zip(asking, hits, places, strict=True)
        )
    return Ranking(name, queries, len(records) - 1)


@contextmanager
def temporary_collection(vectors: ImageVectors, images: LabeledImages) -> Iterator[tuple[VectorStore, str]]:
    """Give an embedded store that holds these vectors as the indexer would store them, and a name in it."""
    there = np.flatnonzero(vectors.there)
    spec = CollectionSpec(
        model_id="0" * 64, model_name=vectors.name, dimension=vectors.rows.shape[1], crop="full"
    )
    payloads = [
        {"path": images.paths[index]} | ({} if (who := images.people[index]) is None else {"person": who})
        for index in there
    ]
    with TemporaryDirectory(prefix="lookalike-") as folder, open_store(folder) as store:
        store.create(_NAME, spec)
        ids = [item_id(images.name, images.paths[index]) for index in there]
        store.upsert(_NAME, ids, vectors.rows[there], payloads)
        yield store, _NAME


def _hits(
    store: VectorStore,
    name: str,
    asking: list[Record],
    rows: NDArray[np.float32],
    advance: Callable[[int], object],
) -> Iterator[tuple[Hit, ...]]:
    """Yield the best five others of each, of queries float32 (Q, E)."""
    for start in range(0, len(asking), _TOGETHER):
        batch = asking[start : start + _TOGETHER]
        for record, found in zip(
            batch, store.search(name, rows[start : start + _TOGETHER], k=6), strict=True
        ):
            yield tuple(hit for hit in found if hit.id != record.id)[:5]
        advance(len(batch))


def _places(
    rows: NDArray[np.float32], people: list[str | None], asking: list[int]
) -> Iterator[tuple[float, int, int, float]]:
    """Yield of each query its average precision, and place, index and likeness of the best right image."""
    same: dict[str | None, list[int]] = {}
    for index, person in enumerate(people):
        same.setdefault(person, []).append(index)
    for start in range(0, len(asking), _AT_ONCE):
        batch = asking[start : start + _AT_ONCE]
        for index, scores in zip(batch, rows[batch] @ rows.T, strict=True):
            scores[index] = -np.inf  # itself comes last, behind all others
            right = np.array([each for each in same[people[index]] if each != index])
            places, right = _places_of(scores, right)
            precision = float((np.arange(1, len(places) + 1) / places).mean())
            yield precision, int(places[0]), int(right[0]), float(scores[right[0]])


def _places_of(
    scores: NDArray[np.float32], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places from 1 of some indices when scores (N,) fall, and those indices in that order."""
    rising = np.sort(scores)
    above = len(scores) - np.searchsorted(rising, scores[right], side="right")
    at_least = len(scores) - np.searchsorted(rising, scores[right], side="left")
    if (at_least - above > 1).any():  # equals: those that come first in the order of ids come first
        order = np.argsort(-scores, kind="stable")
        place = np.empty(len(scores), np.int64)
        place[order] = np.arange(1, len(scores) + 1)
        places = place[right]
    else:
        places = above + 1
    by_place = np.argsort(places)
    return places[by_place].astype(np.int64), right[by_place]
