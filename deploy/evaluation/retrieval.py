"""How often the most similar images show the right person or class, searched through the store.

Mean average precision: E. M. Voorhees, D. K. Harman (eds.): TREC: Experiment and Evaluation in Information
Retrieval. MIT Press, 2005, chapter 3. k nearest neighbors: T. M. Cover, P. E. Hart: Nearest Neighbor Pattern
Classification. IEEE Transactions on Information Theory 13(1), 1967; the most frequent class of the k nearest
counts, of equally frequent ones that of the nearest.

Legend: N vectors, E embedding size, Q queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.evaluation.data import DigitImages, LabeledImages, MnistData
from lookalike.deploy.evaluation.vectors import ImageVectors, Progress, no_progress
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model
from lookalike.indexer.open import open_store
from lookalike.indexer.sources import item_id
from lookalike.indexer.store import CollectionSpec, Hit, Record, VectorStore

Class = TypeVar("Class", int, str)
_SEARCH_BATCH: Final = 64
_COMPARE_BATCH: Final = 512  # queries compared with everything in one product
_EMBED_BATCH: Final = 4096
_NAME: Final = "evaluated"


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Shares in [0, 1] of queries whose person is the first hit, or among the first five.

    Attributes:
        queries: Number of queries.
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
        record: The query image.
        hits: The five most similar other images, best first.
        precision: Average precision over the ranking of all others, in [0, 1].
        best: Rank from 1 of the first image of the same person in that ranking.
        match: That image.
        match_score: Its cosine similarity.
    """

    record: Record
    hits: tuple[Hit, ...]
    precision: float
    best: int
    match: Record
    match_score: float

    @property
    def person(self) -> str:
        """The person in the query image."""
        return str(self.record.payload["person"])

    def found_in_first(self, k: int) -> bool:
        """Whether the same person is among the first k hits, at most five."""
        return any(hit.payload.get("person") == self.person for hit in self.hits[:k])


@dataclass(frozen=True, slots=True)
class Ranking:
    """What every image of a person with two or more images found among all others.

    Attributes:
        name: Of the collection.
        queries: In the order of their ids.
        others: How many images each searched.
    """

    name: str
    queries: tuple[Query, ...]
    others: int

    def metrics(self, people: Collection[str] | None = None) -> Retrieval:
        """Return the metrics of all queries, or of these people's.

        Raises:
            InvalidArgumentError: there is no such query.
        """
        queries = self.queries_of(people)
        if not queries:
            raise InvalidArgumentError(
                f"retrieval needs people with two or more images, collection {self.name!r} has none"
            )
        return Retrieval(
            queries=len(queries),
            recall_at_1=sum(query.found_in_first(1) for query in queries) / len(queries),
            recall_at_5=sum(query.found_in_first(5) for query in queries) / len(queries),
            mean_average_precision=sum(query.precision for query in queries) / len(queries),
            others=self.others,
        )

    def queries_of(self, people: Collection[str] | None = None) -> list[Query]:
        """Return all queries, or these people's."""
        return [query for query in self.queries if people is None or query.person in people]


def rank_all(
    store: VectorStore,
    name: str,
    *,
    people: Collection[str] | None = None,
    progress: Progress = no_progress,
) -> Ranking:
    """Let every image of a person with two or more images query all others.

    The hits, and with them the recall, come from the store's own search. Average precision needs the rank of
    every image of the person: it is computed exactly from the same vectors, read back from the store; equal
    scores count in the order of ids, as in the store.

    Args:
        store: Where the collection is.
        name: Its name.
        people: Only these people's images query; everybody's are searched.
        progress: Shows the progress.
    """
    records = [record for record in store.scroll(name, with_vectors=True) if record.vector is not None]
    labels = [record.payload.get("person") for record in records]
    counts = Counter(labels)
    querying = [
        index
        for index, person in enumerate(labels)
        if person is not None and counts[person] > 1 and (people is None or person in people)
    ]
    if not querying:
        return Ranking(name, (), max(0, len(records) - 1))
    rows = np.stack([record.vector for record in records if record.vector is not None])
    with progress("searching", len(querying)) as advance:
        hits = _search_hits(store, name, [records[index] for index in querying], rows[querying], advance)
        ranks = _exact_ranks(rows, labels, querying)
        queries = tuple(
            Query(records[index], found, precision, best, records[match], score)
            for index, found, (precision, best, match, score) in zip(querying, hits, ranks, strict=True)
        )
    return Ranking(name, queries, len(records) - 1)


@contextmanager
def temporary_collection(
    vectors: ImageVectors, images: LabeledImages, spec: CollectionSpec | None = None
) -> Iterator[tuple[VectorStore, str]]:
    """Give an embedded store that holds these vectors as the indexer would store them, and their collection.

    Args:
        vectors: What is stored.
        images: The images they are of.
        spec: Of the collection; None: of no particular model.
    """
    present = np.flatnonzero(vectors.present)
    if spec is None:
        dimension = vectors.rows.shape[1]
        spec = CollectionSpec(model_id="0" * 64, model_name=vectors.name, dimension=dimension, crop="full")
    payloads = [
        {"path": images.paths[index], "root": images.name}
        | ({} if (person := images.people[index]) is None else {"person": person})
        for index in present
    ]
    with TemporaryDirectory(prefix="lookalike-") as folder, open_store(folder) as store:
        store.create(_NAME, spec)
        ids = [item_id(images.name, images.paths[index]) for index in present]
        store.upsert(_NAME, ids, vectors.rows[present], payloads)
        yield store, _NAME


def _search_hits(
    store: VectorStore,
    name: str,
    records: list[Record],
    rows: NDArray[np.float32],
    advance: Callable[[int], object],
) -> Iterator[tuple[Hit, ...]]:
    """Yield the best five others of each, of queries float32 (Q, E)."""
    for start in range(0, len(records), _SEARCH_BATCH):
        batch = slice(start, start + _SEARCH_BATCH)
        for record, hits in zip(records[batch], store.search(name, rows[batch], k=6), strict=True):
            yield tuple(hit for hit in hits if hit.id != record.id)[:5]
        advance(len(records[batch]))


def _exact_ranks(
    rows: NDArray[np.float32], labels: list[str | None], querying: list[int]
) -> Iterator[tuple[float, int, int, float]]:
    """Yield of each query its average precision, and rank, index and score of the best match."""
    same: dict[str | None, list[int]] = {}
    for index, person in enumerate(labels):
        same.setdefault(person, []).append(index)
    for start in range(0, len(querying), _COMPARE_BATCH):
        batch = querying[start : start + _COMPARE_BATCH]
        for index, scores in zip(batch, rows[batch] @ rows.T, strict=True):
            scores[index] = -np.inf  # itself comes last, behind all others
            matches = np.array([other for other in same[labels[index]] if other != index])
            ranks, matches = _ranks_of(scores, matches)
            precision = float((np.arange(1, len(ranks) + 1) / ranks).mean())
            yield precision, int(ranks[0]), int(matches[0]), float(scores[matches[0]])


def _ranks_of(
    scores: NDArray[np.float32], matches: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ranks from 1 of some indices by falling scores (N,), ascending, and those indices."""
    rising = np.sort(scores)
    above = len(scores) - np.searchsorted(rising, scores[matches], side="right")
    at_least = len(scores) - np.searchsorted(rising, scores[matches], side="left")
    if (at_least - above > 1).any():  # equal scores: those that come first in the order of ids come first
        order = np.argsort(-scores, kind="stable")
        rank = np.empty(len(scores), np.int64)
        rank[order] = np.arange(1, len(scores) + 1)
        ranks = rank[matches]
    else:
        ranks = above + 1
    by_rank = np.argsort(ranks)
    return ranks[by_rank].astype(np.int64), matches[by_rank]


@dataclass(frozen=True, slots=True)
class KnnResult:
    """How often the nearest neighbors of one kind of vector name the right class.

    Attributes:
        name: What the vectors are.
        numbers: E.
        metric: How they are compared.
        through: ``store``, or ``numpy`` for an exact comparison in memory.
        k: Neighbors that vote.
        stored: N.
        queries: Q.
        accuracy: Share of right answers, in [0, 1].
        standard_error: Of it, binomial.
    """

    name: str
    numbers: int
    metric: Literal["cosine", "Euclid"]
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
    model: Model, digits: MnistData, test: DigitImages, *, k: int = 5, progress: Progress = no_progress
) -> KnnResult:
    """Put the training digits into an embedded store, and let each test digit search it.

    Args:
        model: The model.
        digits: The data set with the training digits.
        test: The queries.
        k: Neighbors that vote.
        progress: Shows the progress.

    Raises:
        InvalidArgumentError: k is under 1, or the model takes other images.
    """
    digits.require(model)
    name = model.bundle.name
    rows = _embed_digits(model, digits.train, f"{name}: indexing", progress)
    present = np.asarray(np.isfinite(rows).all(axis=1) & rows.any(axis=1))
    queries = _embed_digits(model, test, f"{name}: embedding", progress)
    votes: list[str | None] = []
    with (
        temporary_collection(ImageVectors(name, rows, present), digits.labeled(digits.train)) as (
            store,
            inside,
        ),
        progress(f"{name}: searching", len(test)) as advance,
    ):
        for start in range(0, len(test), _SEARCH_BATCH):
            found = store.search(inside, queries[start : start + _SEARCH_BATCH], k=k)
            votes += [majority_vote([hit.payload["person"] for hit in hits]) for hits in found]
            advance(len(found))
    right = np.array([digits.classes[label] for label in test.labels.tolist()]) == np.array(votes)
    share = float(right.mean())
    error = float(np.sqrt(share * (1 - share) / len(right)))
    return KnnResult(name, rows.shape[1], "cosine", "store", k, int(present.sum()), len(right), share, error)


def majority_vote(classes: Sequence[Class]) -> Class | None:
    """Return the most frequent class, of equally frequent ones the first; None of an empty sequence."""
    return max(classes, key=classes.count) if classes else None


def _embed_digits(model: Model, digits: DigitImages, task: str, progress: Progress) -> NDArray[np.float32]:
    """Return float32 (N, E)."""
    rows = np.empty((len(digits), model.bundle.spec.embedding), np.float32)
    with progress(task, len(digits)) as advance:
        for start in range(0, len(digits), _EMBED_BATCH):
            batch = digits.images[start : start + _EMBED_BATCH]
            rows[start : start + _EMBED_BATCH] = model.embed(batch)
            advance(len(batch))
    return rows
