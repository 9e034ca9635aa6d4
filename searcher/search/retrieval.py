"""From vectors to hits, in any store alike: without the queries themselves, or the best of each group.

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
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.filters import Condition, Filter
from lookalike.indexer.store.points import Hit

__all__ = ["SearchParams", "combine_examples", "retrieve"]

_FACTOR: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchParams:
    """Which hits.

    Attributes:
        k: Most of each query.
        where: What they must pass.
        exclude_self: Leave out items with exactly a query's bytes.
        group_by: Payload field, of whose every value only the best hit counts; what has none stands alone.
    """

    k: int = 10
    where: Filter | None = None
    exclude_self: bool = False
    group_by: str | None = None

    def __post_init__(self) -> None:
        """Check that there is such a field.

        Raises:
            InvalidArgumentError: there can be none.
        """
        if self.group_by is not None:
            Condition(self.group_by, "=", "")
        if self.k < 1:
            raise InvalidArgumentError(f"k must be at least 1, {self.k} is not; ask for one hit or more")

    def without(self, digests: Sequence[str]) -> Filter | None:
        """Return what hits must pass that are none of these bytes (SHA-256, hex)."""
        given = Filter() if self.where is None else self.where
        others = tuple(Condition("sha256", "!=", digest) for digest in dict.fromkeys(digests))
        return replace(given, conditions=(*given.conditions, *others)) if others else self.where


def retrieve(
    store: VectorStore,
    collection: str,
    rows: NDArray[np.float32],
    digests: Sequence[Sequence[str]],
    wanted: SearchParams,
) -> list[list[Hit]]:
    """Return hits for each of Q queries, float32 (Q, E), best first.

    Args:
        store: Where.
        collection: In what.
        rows: The queries.
        digests: Q times the SHA-256 of the pictures that ask.
        wanted: Which.
    """
    if wanted.group_by is not None:
        return [
            _grouped(store, collection, row[None], wanted, wanted.without(of if wanted.exclude_self else ()))
            for row, of in zip(rows, digests, strict=True)
        ]
    if not wanted.exclude_self:
        return store.search(collection, rows, k=wanted.k, where=wanted.where)
    found = store.search(collection, rows, k=wanted.k + max(map(len, digests)), where=wanted.where)
    answers = []
    for row, of, hits in zip(rows, digests, found, strict=True):
        others = [hit for hit in hits if hit.payload["sha256"] not in of]
        if len(others) < wanted.k < len(hits):  # copies crowd: ask again
            (others,) = store.search(collection, row[None], k=wanted.k, where=wanted.without(of))
        answers.append(others[: wanted.k])
    return answers


def combine_examples(like: NDArray[np.float32], unlike: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one query, float32 (1, E), for pictures like some, float32 (n, E), and unlike others, (m, E).

    The mean of those liked, moved as far again from the mean of the others: what Qdrant's recommendation
    "average_vector" searches for. m may be 0.
    """
    mean: NDArray[np.float32] = like.mean(axis=0, keepdims=True)
    if not len(unlike):
        return mean
    away: NDArray[np.float32] = mean + mean - unlike.mean(axis=0, keepdims=True)
    return away


def _grouped(
    store: VectorStore, collection: str, row: NDArray[np.float32], wanted: SearchParams, where: Filter | None
) -> list[Hit]:
    """Return the best hit of each of k groups: exactly, for more is asked until there are as many."""
    limit = _FACTOR * wanted.k
    while True:
        (hits,) = store.search(collection, row, k=limit, where=where)
        best: dict[str, Hit] = {}
        for hit in hits:
            best.setdefault(_group(hit, wanted.group_by or ""), hit)
        if len(best) >= wanted.k or len(hits) < limit:
            return list(best.values())[: wanted.k]
        limit *= _FACTOR


def _group(hit: Hit, field: str) -> str:
    value: Any = hit.payload
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return hit.id if value is None else json.dumps(value, sort_keys=True)
