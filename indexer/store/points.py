"""Points of a collection: checks before they are stored, and the order of search results.

Legend: N vectors, Q queries, D dimensions of an embedding, k hits.
"""

from __future__ import annotations

import math
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError, StoreError, VectorError

QUERIES: Final = 64
_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1
_FLOAT_MOST: Final = sys.float_info.max
_FLOAT_LEAST: Final = -_FLOAT_MOST
_CANONICAL: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Payload = Mapping[str, Any]
"""The data stored with a vector: JSON values under string keys (path, person, sha256, ...).

Strings, integers and booleans come back unchanged. A float may come back from Qdrant Edge changed in its last
place (1 part in 10^15), so compare floats with a tolerance.
"""

MAX_DEPTH: Final = 32
"""Lists and objects within one another in a payload field; Qdrant cannot read back more than some hundred."""
MOVED_TO: Final = "moved_to"
"""Payload field of the old point of a moved item, while the move is written: the id of the new one."""
_CHECKSUM: Final = "vector_checksum"
"""Payload field, in the store only: a weighted sum of the vector's values."""
_CHECKSUM_TOLERANCE: Final = 1e-5
"""Stores normalize vectors again, which changes last places; this is far above that, and a value that is off
by less changes no search."""
FACE: Final = "face"
"""Payload field of a face: number and count in its picture, box, landmarks, score, width."""
RESERVED: Final = frozenset({"root", "path", "sha256", "size", "mtime_ns", FACE, MOVED_TO, _CHECKSUM})
"""Payload fields that the index fills itself: the first five of every item."""
CLUSTER: Final = "cluster"
"""Payload field, the number of the group of similar items that an item is in."""
CLUSTER_NAME: Final = "cluster_name"
"""Payload field, the name that people gave this group."""
PREDICTED: Final = "predicted"
"""Payload field that lists the fields predicted by a model; all others are known."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result: id, cosine similarity in [-1, 1] (higher is more similar), payload."""

    id: str
    score: float
    payload: Payload

    @classmethod
    def from_point(cls, point: Any) -> Self:
        """Convert a scored point of either client, which has ``id``, ``score`` and ``payload``."""
        payload = point.payload or {}
        payload.pop(_CHECKSUM, None)
        return cls(str(point.id), point.score, payload)


@dataclass(frozen=True, slots=True)
class Record:
    """One stored point.

    Attributes:
        id: Its id.
        payload: What is stored with the vector.
        vector: float32 (D,) when it was requested.
        damaged: Whether the vector is not as it was stored, by its checksum; False where none is known.
    """

    id: str
    payload: Payload
    vector: NDArray[np.float32] | None = None
    damaged: bool = False

    @classmethod
    def from_point(cls, point: Any, *, with_vector: bool) -> Self:
        """Convert a point of either client, which has ``id``, ``payload`` and ``vector``."""
        payload = point.payload or {}
        expected = payload.pop(_CHECKSUM, None)
        if not with_vector:
            return cls(str(point.id), payload)
        vector = np.array(point.vector, dtype=np.float32)
        return cls(str(point.id), payload, vector, _is_damaged(vector, expected))

    def undamaged_vector(self) -> NDArray[np.float32]:
        """Return the vector, to be stored again.

        Raises:
            StoreError: it was not requested, or is damaged.
        """
        if self.vector is None or self.damaged:
            raise StoreError(
                f"the vector of {self.payload.get('path', self.id)} is not as it was stored; "
                "embed it again with lookalike index --checksum"
            )
        return self.vector


@cache
def _weights(dimension: int) -> NDArray[np.float64]:
    """Return weights from 0.5 to 1.5 (D,), the same everywhere: multiplicative hashing (Knuth)."""
    places = np.arange(1, dimension + 1, dtype=np.uint64)
    weights: NDArray[np.float64] = places * 2_654_435_761 % 2**32 / 2**32 + 0.5
    return weights


def _checksums(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a checksum (N,) of each row, float32 (N, D)."""
    sums: NDArray[np.float64] = vectors.astype(np.float64) @ _weights(vectors.shape[1])
    return sums


def _is_damaged(vector: NDArray[np.float32], expected: object) -> bool:
    """Whether a vector (D,) is not as it was stored; False where no checksum was stored with it."""
    if not isinstance(expected, int | float):
        return False
    return not abs(float(_checksums(vector[None])[0]) - expected) <= _CHECKSUM_TOLERANCE


def known_payload(payload: Payload) -> dict[str, Any]:
    """Return a payload without predicted fields."""
    predicted = payload.get(PREDICTED)
    if not isinstance(predicted, list):
        return dict(payload)
    return {key: value for key, value in payload.items() if key != PREDICTED and key not in predicted}


def group_payload(payload: Payload) -> dict[str, Any]:
    """Return what a payload says of an item's group of similar items; tables of metadata do not change it."""
    return {key: payload[key] for key in (CLUSTER, CLUSTER_NAME) if key in payload}


def scroll_pages(get_page: Callable[[Any], tuple[list[Record], Any]]) -> Iterator[Record]:
    """Yield the records of all pages; ``get_page`` takes an offset and returns a page and the next offset."""
    offset: Any = None
    while True:
        records, offset = get_page(offset)
        yield from records
        if offset is None:
            return


def check_vectors(vectors: NDArray[np.float32], *, dimension: int) -> NDArray[np.float32]:
    """Return ``vectors`` at unit length, contiguous float32 (N, D), ready to store.

    Raises:
        VectorError: wrong shape, or a row that contains NaN or infinity or is zero.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise VectorError(
            f"vectors must have shape (N, {dimension}) like the collection's, these have {rows.shape}; "
            "use the model that made the collection"
        )
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1) | ~rows.any(axis=1))
    if bad.size:
        raise VectorError(
            f"vectors must be finite and not zero, row {bad[0]} ({bad.size} in all) is not; "
            "leave these rows out"
        )
    # In float64: the square of a very short or long row leaves the range of float32, in which Qdrant divides.
    exact = rows.astype(np.float64)
    unit: NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return np.ascontiguousarray(unit, dtype=np.float32)


def check_points(
    ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload], *, dimension: int
) -> tuple[list[str], NDArray[np.float32], list[dict[str, Any]]]:
    """Return the arguments of :meth:`VectorStore.upsert` checked, in the form that stores write.

    Raises:
        VectorError, StoreError: as :meth:`VectorStore.upsert` says.
    """
    rows = check_vectors(vectors, dimension=dimension)
    if not len(ids) == len(rows) == len(payloads):
        raise StoreError(
            f"each point has an id, a vector and a payload; got {len(ids)}, {len(rows)} and {len(payloads)} "
            "of them; pass as many of each"
        )
    for payload in payloads:
        _check_payload(payload)
    checked = [
        {**payload, _CHECKSUM: checksum}
        for payload, checksum in zip(payloads, _checksums(rows).tolist(), strict=True)
    ]
    return check_ids(ids), rows, checked


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return ``ids`` as lower-case UUIDs with dashes.

    Raises:
        StoreError: one is not a UUID.
    """
    return [_canonical(each) for each in ids]


def _canonical(text: str) -> str:
    try:  # nearly all are canonical already; the check is ten times as fast as parsing
        return text if _CANONICAL.fullmatch(text) else str(uuid.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise StoreError(f"point ids are UUID strings, {text!r} is not; derive one with uuid.uuid5") from None


def _check_payload(payload: Payload) -> None:
    """Check that every store can hold a payload.

    Raises:
        StoreError: as :func:`payload_fault` says; the message names the key.
    """
    if (fault := payload_fault(payload)) is not None:
        raise StoreError(f"a payload cannot be stored: {fault}; convert, flatten or escape it")


def payload_fault(payload: Payload) -> str | None:
    """Return why a payload cannot be stored, with the field; None when it can.

    Its values are JSON (no NaN, bytes or numpy scalars, no numbers beyond 64 bits), text is valid Unicode,
    and at most :data:`MAX_DEPTH` lists and objects are within one another.
    """
    for key, value in payload.items():
        # A shortcut for plain text and numbers, the usual case: half the time.
        kind = type(value)
        if kind is str:
            plain = value.isascii()
        elif kind is float:
            plain = _FLOAT_LEAST <= value <= _FLOAT_MOST
        else:
            plain = kind is int and _LEAST <= value <= _MOST
        if plain and key.isascii():
            continue
        if _is_deep(value, MAX_DEPTH):
            return f"field {key!r} is nested more than {MAX_DEPTH} lists or objects deep"
        if not (is_text(key) and _is_json(value)):
            return f"field {key!r} is not a JSON value of valid Unicode text and finite 64-bit numbers"
    return None


def _is_deep(value: object, most: int) -> bool:
    """Whether more than ``most`` lists and objects are within one another."""
    inner = list(value.values()) if isinstance(value, dict) else value
    return isinstance(inner, list) and (most == 0 or any(_is_deep(each, most - 1) for each in inner))


def is_text(value: object) -> bool:
    """Whether it is a string that UTF-8 can encode (a path with undecodable bytes has lone surrogates)."""
    if not isinstance(value, str):
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_json(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return is_text(value)
    if type(value) is int:
        return _LEAST <= value <= _MOST
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(_is_json(each) for each in value)
    return type(value) is dict and all(is_text(key) and _is_json(each) for key, each in value.items())


def best_hits(
    query: Callable[[list[list[float]], int], list[list[Hit]]],
    queries: NDArray[np.float32],
    *,
    k: int,
    dimension: int,
) -> list[list[Hit]]:
    """Return the k best hits of Q queries, float32 (Q, D), hits of equal score ordered by id.

    Qdrant orders equal scores arbitrarily, also across the k-th place; so a run of equal scores that reaches
    the end of what was fetched is fetched completely.

    Args:
        query: Returns for unit vectors their n best hits each (fewer when there are no more), best first.
        queries: The queries.
        k: Hits per query.
        dimension: D of the collection.

    Raises:
        InvalidArgumentError, VectorError: as :meth:`VectorStore.search` says.
    """
    if k < 1:
        raise InvalidArgumentError(f"k must be at least 1, {k} is not; ask for one hit or more")
    rows = check_vectors(queries, dimension=dimension).tolist()
    answers: list[list[Hit]] = []
    for start in range(0, len(rows), QUERIES):
        part = rows[start : start + QUERIES]
        for row, hits in zip(part, query(part, k + 1), strict=True):
            limit = k + 1
            while len(hits) >= limit and hits[k - 1].score == hits[-1].score:
                limit *= 2
                (hits,) = query([row], limit)
            answers.append(sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k])
    return answers
