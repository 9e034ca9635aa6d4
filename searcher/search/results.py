"""From query vectors to hits: without the query's own copies, or the best of each group; results.

Legend: Q queries, E embedding size, k hits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError, LookalikeError
from lookalike.indexer.store import CLUSTER_NAME, Condition, Filter, Hit, VectorStore
from lookalike.searcher.search.query_denoiser import DenoiseInfo
from lookalike.searcher.search.query_images import QueryFace, same_picture

Verdict = Literal["same file", "match", "possible"]


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One image that was found.

    Attributes:
        rank: From 1.
        score: Cosine similarity in [-1, 1]; higher is more similar. It is not a probability.
        id: Of the item.
        payload: The stored metadata: root, path, sha256, size, mtime_ns, person.
        probability: That it shows the query's person, in (0, 1); None where the model is not calibrated, or
            the query is unlike what it was trained on.
        match: Whether the two are taken for one person, see :class:`~.matches.MatchScorer`; None where the
            model is not calibrated.
        same_file: Whether the item has the query's exact bytes and, where items are faces, is the same face.
    """

    rank: int
    score: float
    id: str
    payload: dict[str, Any]
    probability: float | None = None
    match: bool | None = None
    same_file: bool = False

    @property
    def verdict(self) -> Verdict | None:
        """What the result is, in a word; None where the model is not calibrated and it is another file."""
        if self.same_file:
            return "same file"
        return None if self.match is None else "match" if self.match else "possible"

    @property
    def path(self) -> str:
        """Relative to the item's root."""
        return str(self.payload["path"])

    @property
    def person(self) -> str | None:
        """The person in the image, where known."""
        person = self.payload.get("person")
        return None if person is None else str(person)

    @property
    def name(self) -> str | None:
        """The name of the group of similar images that it is in, else the person."""
        named = self.payload.get(CLUSTER_NAME)
        return self.person if named is None else str(named)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: rank, score, probability, match, same_file, path, person, payload."""
        return {
            "rank": self.rank,
            "score": round(self.score, 6),
            "probability": None if self.probability is None else float(f"{self.probability:.4g}"),
            "match": self.match,
            "same_file": self.same_file,
            "path": self.path,
            "person": self.person,
            "payload": self.payload,
        }


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The hits of one query, or the error that it ended with.

    Attributes:
        query: The query's file, as it was given; the path of a stored item.
        model_id: Of the model that embedded it.
        took_ms: Reading, embedding and searching; each one's share of queries that run together.
        results: Best first; empty when the query failed.
        error: Why it failed; None when it did not.
        match: Whether any hit is a match; None where the model is not calibrated or the query failed.
        warning: Why the hits mean little, in one line; None where nothing is known against them.
        denoise_info: How the query was denoised; None where denoising was not requested.
        face: The face of the query that was compared; None where whole pictures are.
        examples: ``like`` and ``unlike``: the files of a query of several images; empty for a single image.
        example_faces: The face of each of these files that was compared, where faces are.
    """

    query: str
    model_id: str
    took_ms: float
    results: tuple[SearchHit, ...]
    error: LookalikeError | None = None
    match: bool | None = None
    warning: str | None = None
    denoise_info: DenoiseInfo | None = None
    face: QueryFace | None = None
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    example_faces: Mapping[str, QueryFace] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: query, model_id, took_ms, match, warning, results.

        Also face where faces are compared, treatment where denoising was requested, like and unlike for a
        query of several images, and error when it failed.
        """
        values: dict[str, Any] = {
            "query": self.query,
            **{side: list(files) for side, files in self.examples.items()},
            "model_id": self.model_id,
            "took_ms": round(self.took_ms, 3),
            "match": self.match,
            "warning": self.warning,
            "results": [result.to_json() for result in self.results],
        }
        if self.face is not None:
            values["face"] = self.face.to_json()
        if self.denoise_info is not None:
            values["treatment"] = self.denoise_info.to_json()
        return values if self.error is None else values | {"error": str(self.error)}


NEAR_COPY: Final = 0.8
"""Cosine similarity from which two images count as copies."""
_FACTOR: Final = 4
_COMPARED: Final = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchParams:
    """Which hits a search returns.

    Attributes:
        k: Most hits of each query.
        offset: Leave out so many of the best hits: those of the pages before.
        where: Filter that hits must pass.
        exclude_self: Leave out items with exactly a query's bytes.
        group_by: Payload field: only the best hit of each of its values; items without it form no group.
        fold_copies: Of hits that are copies of one another, directly or by others, only the best.
    """

    k: int = 10
    offset: int = 0
    where: Filter | None = None
    exclude_self: bool = False
    group_by: str | None = None
    fold_copies: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgumentError: k is under 1, the offset under 0, or no payload field can have this name; or
                both groups and copies are to be folded.
        """
        if self.fold_copies and self.group_by is not None:
            raise InvalidArgumentError(
                "hits are folded by copies or by the values of a field, not by both; leave out "
                "--fold-duplicates or --group-by"
            )
        if self.group_by is not None:
            Condition(self.group_by, "=", "")
        if self.k < 1:
            raise InvalidArgumentError(f"k must be at least 1, {self.k} is not; ask for one hit or more")
        if self.offset < 0:
            raise InvalidArgumentError(f"offset must be 0 or more, not {self.offset}")

    def where_excluding(self, digests: Sequence[str]) -> Filter | None:
        """Return the filter that also leaves out files with these SHA-256 digests (hex)."""
        base = Filter() if self.where is None else self.where
        excluded = tuple(Condition("sha256", "!=", digest) for digest in dict.fromkeys(digests))
        return replace(base, conditions=(*base.conditions, *excluded)) if excluded else self.where


def retrieve(
    store: VectorStore,
    collection: str,
    vectors: NDArray[np.float32],
    digests: Sequence[Sequence[str]],
    params: SearchParams,
) -> list[list[Hit]]:
    """Return hits for each of Q queries, float32 (Q, E), best first.

    Args:
        store: Where the collection is.
        collection: Its name.
        vectors: The queries.
        digests: For each query the SHA-256 of its images.
        params: Which hits.
    """
    if params.offset:
        most = replace(params, k=params.k + params.offset, offset=0)
        pages = retrieve(store, collection, vectors, digests, most)
        return [hits[params.offset :] for hits in pages]
    if params.group_by is not None or params.fold_copies:
        folded = (
            partial(_without_copies, store, collection) if params.fold_copies else _best_of_groups(params)
        )
        wheres = [params.where_excluding(own if params.exclude_self else ()) for own in digests]
        return [
            _first(store, collection, vector[None], params.k, where, folded)
            for vector, where in zip(vectors, wheres, strict=True)
        ]
    if not params.exclude_self:
        return store.search(collection, vectors, k=params.k, where=params.where)
    found = store.search(collection, vectors, k=params.k + max(map(len, digests)), where=params.where)
    results = []
    for vector, own, hits in zip(vectors, digests, found, strict=True):
        others = [hit for hit in hits if hit.payload["sha256"] not in own]
        if len(others) < params.k < len(hits):  # many copies of the query: search again without them
            (others,) = store.search(collection, vector[None], k=params.k, where=params.where_excluding(own))
        results.append(others[: params.k])
    return results


def combine_examples(like: NDArray[np.float32], unlike: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one query, float32 (1, E), from positive examples, float32 (n, E), and negative ones, (m, E).

    The mean of the positive examples, moved as far again from the mean of the negative ones: Qdrant's
    recommendation strategy "average_vector". m may be 0.
    """
    mean: NDArray[np.float32] = like.mean(axis=0, keepdims=True)
    if not len(unlike):
        return mean
    moved: NDArray[np.float32] = mean + mean - unlike.mean(axis=0, keepdims=True)
    return moved


def _first(
    store: VectorStore,
    collection: str,
    vector: NDArray[np.float32],
    k: int,
    where: Filter | None,
    folded: Callable[[list[Hit]], list[Hit]],
) -> list[Hit]:
    """Return the k best hits that ``folded`` leaves, exactly: more are fetched until there are so many."""
    limit = _FACTOR * k
    while True:
        (hits,) = store.search(collection, vector, k=limit, where=where)
        left = folded(hits)
        if len(left) >= k or len(hits) < limit:
            return left[:k]
        limit *= _FACTOR


def _best_of_groups(params: SearchParams) -> Callable[[list[Hit]], list[Hit]]:
    """Return what leaves the best hit of each group."""
    field = params.group_by or ""

    def fold(hits: list[Hit]) -> list[Hit]:
        best: dict[str, Hit] = {}
        for hit in hits:
            best.setdefault(_group(hit, field), hit)
        return list(best.values())

    return fold


def _without_copies(store: VectorStore, collection: str, hits: list[Hit]) -> list[Hit]:
    """Return the hits that are no copies of better ones; without those that were deleted meanwhile."""
    kept: list[Hit] = []
    before: list[Hit] = []
    vectors: list[NDArray[np.float32]] = []
    for start in range(0, len(hits), _COMPARED):
        part = hits[start : start + _COMPARED]
        records = store.get(collection, [hit.id for hit in part], with_vectors=True)
        part = [hit for hit in part if hit.id in records]
        if not part:
            continue
        rows = np.stack([records[hit.id].undamaged_vector() for hit in part])
        vectors.append(rows)
        near = rows @ np.concatenate(vectors).T >= NEAR_COPY  # (part, before and part)
        for hit, copies in zip(part, near, strict=True):
            better = np.flatnonzero(copies[: len(before)])
            if all(same_picture(hit.payload, before[each].payload) for each in better.tolist()):
                kept.append(hit)
            before.append(hit)
    return kept


def _group(hit: Hit, field: str) -> str:
    value: Any = hit.payload
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return hit.id if value is None else json.dumps(value, sort_keys=True)


def format_probability(probability: float) -> str:
    """Return a probability as short text: 42 %, <1 %, >99 %."""
    return "<1 %" if probability < 0.01 else ">99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def format_score(hit: SearchHit) -> str:
    """Return score and verdict of a hit as short lines: ``score 0.523``, ``possible, 11 %``."""
    lines = [f"score {hit.score:.3f}"]
    if hit.verdict is not None:
        chance = "" if hit.same_file or hit.probability is None else format_probability(hit.probability)
        lines.append(", ".join(filter(None, [hit.verdict, chance])))
    return "\n".join(lines)
