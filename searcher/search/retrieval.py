"""From query vectors to hits in any store: without the query's own copies, or the best hit of each group.

Legend: Q queries, E embedding size, k hits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.store import Condition, Filter, Hit, VectorStore

_FACTOR: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchParams:
    """Which hits a search returns.

    Attributes:
        k: Most hits of each query.
        where: Filter that hits must pass.
        exclude_self: Leave out items with exactly a query's bytes.
        group_by: Payload field: only the best hit of each of its values; items without it form no group.
    """

    k: int = 10
    where: Filter | None = None
    exclude_self: bool = False
    group_by: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgumentError: k is under 1, or no payload field can have this name.
        """
        if self.group_by is not None:
            Condition(self.group_by, "=", "")
        if self.k < 1:
            raise InvalidArgumentError(f"k must be at least 1, {self.k} is not; ask for one hit or more")

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
    if params.group_by is not None:
        return [
            _best_of_groups(
                store,
                collection,
                vector[None],
                params,
                params.where_excluding(own if params.exclude_self else ()),
            )
            for vector, own in zip(vectors, digests, strict=True)
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


def _best_of_groups(
    store: VectorStore,
    collection: str,
    vector: NDArray[np.float32],
    params: SearchParams,
    where: Filter | None,
) -> list[Hit]:
    """Return the best hit of each of k groups, exactly: more hits are fetched until there are k groups."""
    limit = _FACTOR * params.k
    while True:
        (hits,) = store.search(collection, vector, k=limit, where=where)
        best: dict[str, Hit] = {}
        for hit in hits:
            best.setdefault(_group(hit, params.group_by or ""), hit)
        if len(best) >= params.k or len(hits) < limit:
            return list(best.values())[: params.k]
        limit *= _FACTOR


def _group(hit: Hit, field: str) -> str:
    value: Any = hit.payload
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return hit.id if value is None else json.dumps(value, sort_keys=True)
