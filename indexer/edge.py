"""The embedded store: Qdrant Edge shards in a folder. The one module that names ``qdrant_edge``.

One process at a time holds a collection, from its first use of the vectors until :meth:`EdgeStore.close`.
Searches are exact: no HNSW graph is ever built here (one query over 100,000 x 128 takes some 5 ms).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import qdrant_edge as qe
from numpy.typing import NDArray

from encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    LookalikeError,
    StoreBusyError,
    StoreError,
)
from indexer.disk import (
    SHARD,
    create_collection,
    drop_collection,
    holds_collection,
    list_collections,
    mapped,
    read_spec,
    replace_spec,
)
from indexer.filters import Filter
from indexer.points import Hit, Payload, Record, best_hits, check_ids, check_points
from indexer.spec import CollectionSpec, check_name, is_name
from indexer.store import VectorStore

__all__ = ["EdgeStore"]

POINTS_PER_UPDATE: Final = 4096  # bounds one entry of the write-ahead log
PAGE: Final = 1000
MOST_DIMENSIONS: Final = 65_536  # the server's limit; Qdrant Edge itself has none


@dataclass(frozen=True, slots=True)
class _Opened:
    """A shard this store holds, and the dimension D of its vectors."""

    shard: qe.EdgeShard
    dimension: int


class EdgeStore(VectorStore):
    """A :class:`~indexer.store.VectorStore` in a folder. Several threads may share one.

    Args:
        address: The folder. Reading never makes it, :meth:`create` does.

    Raises:
        StoreBusyError: (any method that needs the vectors) another process, or another EdgeStore of this one,
            holds the collection.
    """

    def __init__(self, address: str) -> None:
        self._root = Path(address).absolute()
        self._open: dict[str, _Opened] = {}
        self._lock = threading.RLock()
        self._closed = False

    @property
    def address(self) -> str:
        """The folder, absolute."""
        return str(self._root)

    def names(self) -> list[str]:
        """See :meth:`VectorStore.names`; a missing folder holds none."""
        self._check_open()
        return list_collections(self._root)

    def create(self, name: str, spec: CollectionSpec) -> None:
        """See :meth:`VectorStore.create`. Killed half-way, it leaves no collection of that name."""
        self._check_open()
        folder = self._root / check_name(name)
        if holds_collection(folder):
            raise CollectionExistsError(
                f"collection {name!r} is in {self._root} already; choose another name or delete it first"
            )
        if not 1 <= spec.dimension <= MOST_DIMENSIONS:
            raise StoreError(
                f"vectors have 1 to {MOST_DIMENSIONS} dimensions, not {spec.dimension}; use another model"
            )
        create_collection(folder, spec, make_shard=lambda path: _make_shard(path, spec.dimension))

    def describe(self, name: str) -> CollectionSpec:
        """See :meth:`VectorStore.describe`."""
        return read_spec(self._folder(name))

    def redescribe(self, name: str, spec: CollectionSpec) -> None:
        """See :meth:`VectorStore.redescribe`."""
        self._opened(name)  # nobody else may be writing it
        self.describe(name).check_successor(name, spec)
        replace_spec(self._folder(name), spec)

    def drop(self, name: str) -> None:
        """See :meth:`VectorStore.drop`; a damaged collection can be dropped too."""
        folder = self._folder(name)
        with self._lock, mapped(folder):
            opened = self._open.pop(name, None)
            if opened is None:
                _check_idle(folder / SHARD)
            else:
                opened.shard.close()
            drop_collection(folder)

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        """See :meth:`VectorStore.upsert`."""
        opened = self._opened(name)
        keys, rows, fields = check_points(ids, vectors, payloads, dimension=opened.dimension)
        with mapped(self._root / name):
            for start in range(0, len(keys), POINTS_PER_UPDATE):
                part = slice(start, start + POINTS_PER_UPDATE)
                points = [
                    qe.Point(*each)
                    for each in zip(keys[part], rows[part].tolist(), fields[part], strict=True)
                ]
                opened.shard.update(qe.UpdateOperation.upsert_points(points))
            opened.shard.flush()

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """See :meth:`VectorStore.delete`."""
        opened = self._opened(name)
        keys: list[Any] = list(check_ids(ids))
        with mapped(self._root / name):
            opened.shard.update(qe.UpdateOperation.delete_points(keys))
            opened.shard.flush()

    def fetch(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """See :meth:`VectorStore.fetch`."""
        opened = self._opened(name)
        keys: list[Any] = list(check_ids(ids))
        with mapped(self._root / name):
            points = opened.shard.retrieve(keys, with_payload=True, with_vector=with_vectors)
        return {str(point.id): _record(point, with_vectors=with_vectors) for point in points}

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        opened = self._opened(name)
        condition = _filter(where)

        def ask(asked: list[list[float]], limit: int) -> list[list[Hit]]:
            requests = [
                qe.QueryRequest(
                    limit=limit,
                    query=qe.Query.Nearest(row),
                    filter=condition,
                    with_payload=True,
                    params=qe.SearchParams(exact=True),
                )
                for row in asked
            ]
            with mapped(self._root / name):
                answers = opened.shard.query_batch(qe.QueryBatchRequest(requests))
                return [[Hit(str(p.id), p.score, p.payload or {}) for p in answer] for answer in answers]

        return best_hits(ask, queries, k=k, dimension=opened.dimension)

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """See :meth:`VectorStore.scroll`."""
        opened = self._opened(name)
        return self._pages(name, opened, _filter(where), with_vectors=with_vectors)

    def _pages(
        self, name: str, opened: _Opened, where: qe.Filter | None, *, with_vectors: bool
    ) -> Iterator[Record]:
        offset = None
        while True:
            self._check_open()
            with mapped(self._root / name):
                request = qe.ScrollRequest(
                    offset=offset, limit=PAGE, filter=where, with_payload=True, with_vector=with_vectors
                )
                points, offset = opened.shard.scroll(request)
            yield from (_record(point, with_vectors=with_vectors) for point in points)
            if offset is None:
                return

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """See :meth:`VectorStore.count`."""
        opened = self._opened(name)
        with mapped(self._root / name):
            return opened.shard.count(qe.CountRequest(exact=True, filter=_filter(where)))

    def flush(self, name: str) -> None:
        """See :meth:`VectorStore.flush`."""
        opened = self._opened(name)
        with mapped(self._root / name):
            opened.shard.flush()

    def close(self) -> None:
        """See :meth:`VectorStore.close`. Every shard is let go before what went wrong is raised."""
        with self._lock:
            self._closed = True
            failed: list[LookalikeError] = []
            while self._open:
                name, opened = self._open.popitem()
                try:
                    with mapped(self._root / name):
                        opened.shard.flush()
                        opened.shard.close()
                except LookalikeError as error:
                    failed.append(error)
            if failed:
                raise failed[0]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"store {self._root} is closed; open it again")

    def _folder(self, name: str) -> Path:
        """Return the folder of a collection that is there."""
        self._check_open()
        if not is_name(name) or not holds_collection(self._root / name):
            raise CollectionNotFoundError(
                f"no collection {name!r} in {self._root}; it has: {', '.join(self.names()) or 'none'}"
            )
        return self._root / name

    def _opened(self, name: str) -> _Opened:
        """Return the shard of a collection, opened on first use and kept."""
        with self._lock:
            self._check_open()
            if name not in self._open:
                folder = self._folder(name)
                spec = self.describe(name)
                with mapped(folder):
                    self._open[name] = _Opened(qe.EdgeShard.load(str(folder / SHARD)), spec.dimension)
            return self._open[name]


def _record(point: qe.Record, *, with_vectors: bool) -> Record:
    vector = np.array(point.vector, dtype=np.float32) if with_vectors else None
    return Record(str(point.id), point.payload or {}, vector)


def _filter(where: Filter | None) -> qe.Filter | None:
    if where is None:
        return None
    must: list[Any] = []
    must_not: list[Any] = []
    for condition in where.conditions:
        path, value = condition.path, condition.value
        if condition.bound is not None:
            limit = qe.RangeFloat(**{condition.bound: float(value)})
            must.append(qe.FieldCondition(path, range=limit))
        else:
            # Handed a Python bool, the binding matches the integer 0 or 1 instead; a numpy one it takes.
            exact: Any = np.bool_(value) if isinstance(value, bool) else value
            test = qe.FieldCondition(path, match=qe.MatchValue(exact))
            (must if condition.op == "=" else must_not).append(test)
    if where.not_ids:
        must_not.append(qe.HasIdCondition(set(check_ids(where.not_ids))))
    return qe.Filter(must=must, must_not=must_not)


def _make_shard(path: Path, dimension: int) -> None:
    vectors = qe.EdgeVectorParams(size=dimension, distance=qe.Distance.Cosine)
    path.mkdir(parents=True)
    shard = qe.EdgeShard.create(str(path), qe.EdgeConfig(vectors=vectors, wal_enabled=True))
    shard.update(qe.UpdateOperation.create_field_index("person", qe.PayloadSchemaType.Keyword))
    shard.flush()
    shard.close()


def _check_idle(shard: Path) -> None:
    """Raise StoreBusyError when another process holds the shard; one that cannot be opened is idle."""
    try:
        with mapped(shard.parent):
            qe.EdgeShard.load(str(shard)).close()
    except StoreBusyError:
        raise
    except StoreError:
        return
