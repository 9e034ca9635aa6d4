"""A Qdrant server or cluster as the store.

Collections that remember nothing of ours are another program's: they are not listed and not touched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import CollectionExistsError, StoreError
from lookalike.indexer.server.client import CollectionInfo, Server
from lookalike.indexer.server.config import to_qdrant
from lookalike.indexer.server.errors import collection_not_found
from lookalike.indexer.server.upload import STREAMS, last_of_each, retry, upload
from lookalike.indexer.store.aliases import alias_conflict, aliased_collection, check_unaliased, missing_alias
from lookalike.indexer.store.base import IndexState, VectorStore
from lookalike.indexer.store.filters import Condition, Filter
from lookalike.indexer.store.layout import Layout, StorageConfig
from lookalike.indexer.store.points import Hit, Payload, Record, best_hits, check_ids, check_points
from lookalike.indexer.store.spec import CollectionSpec, check_name, is_name

TOGETHER: Final = 1000
POLL_SECONDS: Final = 1


class ServerStore(VectorStore):
    """A :class:`VectorStore` on a Qdrant server. Several threads may share one.

    Args:
        server: The server; closed by :meth:`close`.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._specs: dict[str, tuple[CollectionSpec, Layout | None]] = {}
        self._indexed: set[str] = set()
        self._closed = False

    @classmethod
    def connect(cls, url: str, api_key: str | None = None) -> Self:
        """Open the server at ``url``, once it has answered.

        Args:
            url: ``http(s)://host[:port][/prefix]``; port 6333 when none is given.
            api_key: When None, ``QDRANT_API_KEY`` of the environment. Over plain http it is sent only to this
                machine and private networks.

        Raises:
            StoreUnreachableError: no answer, no Qdrant, one older than 1.16, or the key is refused.
        """
        return cls(Server.connect(url, api_key))

    @property
    def address(self) -> str:
        """The URL."""
        return self._server.address

    def list_collections(self) -> list[str]:
        """See :meth:`VectorStore.list_collections`."""
        self._check_open()
        return sorted(name for name in self._server.list_collections() if self._is_ours(name))

    def aliases(self) -> dict[str, str]:
        """See :meth:`VectorStore.aliases`; only those by which a collection of ours could be called."""
        self._check_open()
        return {alias: name for alias, name in sorted(self._server.aliases().items()) if is_name(alias)}

    def set_alias(self, alias: str, name: str | None) -> None:
        """See :meth:`VectorStore.set_alias`."""
        aliases = self.aliases()
        if check_name(alias) not in aliases and alias in self._server.list_collections():
            raise aliased_collection(self.address, alias)
        if name is None and alias not in aliases:
            raise missing_alias(self.address, alias, aliases)
        real = None if name is None else self._real(name)
        self._server.set_alias(alias, real, exists=alias in aliases)

    def create(self, name: str, spec: CollectionSpec, options: StorageConfig | None = None) -> None:
        """See :meth:`VectorStore.create`. What is to be filtered by is indexed before anything is there."""
        self._check_open()
        if check_name(name) in self._server.list_collections():
            raise CollectionExistsError(
                f"collection {name!r} is on {self.address} already; choose another name or delete it"
            )
        if (real := self.aliases().get(name)) is not None:
            raise alias_conflict(self.address, name, real)
        options = options or StorageConfig()
        layout = options.resolve(spec.dimension, peers=self._server.peers())
        self._server.create(name, to_qdrant(layout, spec.dimension, options), spec.to_json())
        if not self._is_ours(name):
            self._server.delete_collection(name)
            raise StoreError(f"the server at {self.address} keeps no metadata; upgrade Qdrant to 1.16")
        self._index_payload(name, options.numeric_fields)

    def info(self, name: str) -> CollectionSpec:
        """See :meth:`VectorStore.info`.

        Raises:
            StoreError: the collection was not made by lookalike.
        """
        real = self._real(name)
        known = self._known(real)
        where = f"collection {name!r} on {self.address}"
        if known.metadata is None:
            raise StoreError(f"{where} is not a lookalike collection; index into another name")
        spec = CollectionSpec.from_json(known.metadata, where=where)
        self._specs[real] = spec, known.layout
        return spec

    def update_info(self, name: str, spec: CollectionSpec) -> None:
        """See :meth:`VectorStore.update_info`."""
        name = self._real(name)
        self.info(name).check_successor(name, spec)
        self._server.set_metadata(name, spec.to_json())

    def delete_collection(self, name: str) -> None:
        """See :meth:`VectorStore.delete_collection`. Collections that lookalike did not make are refused."""
        check_unaliased(self.address, name, self.aliases())
        if self._known(name).metadata is None:
            raise StoreError(
                f"collection {name!r} on {self.address} is not a lookalike collection; "
                "delete it with Qdrant's own tools"
            )
        self._server.delete_collection(name)
        self._specs.pop(name, None)
        self._indexed.discard(name)

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        """See :meth:`VectorStore.upsert`. Batches go out on several streams; then all are waited for.

        Raises:
            StoreFailingError: the server took a batch at no try; the message names it.
        """
        name = self._real(name)
        keys, rows, fields = check_points(ids, vectors, payloads, dimension=self._dimension(name))
        if not keys:
            return
        self._index_payload(name)
        last = last_of_each(keys)  # streams overtake one another
        keys, rows, fields = [keys[n] for n in last], rows[last], [fields[n] for n in last]

        def put(part: slice) -> None:
            self._server.upsert(name, keys[part], rows[part], fields[part])

        def told(part: slice) -> str:
            return f"points {part.start + 1} to {part.stop} of {len(keys)}, from {keys[part.start]} on,"

        upload(len(keys), put, told, streams=1 if self._server.in_memory else STREAMS)
        for start in range(0, len(keys), TOGETHER):
            some = keys[start : start + TOGETHER]
            retry(lambda some=some: self._server.wait_applied(name, some), "points")  # type: ignore[misc]  # bound now

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """See :meth:`VectorStore.delete`."""
        name = self._real(name)
        self._dimension(name)
        keys = check_ids(ids)
        for start in range(0, len(keys), TOGETHER):
            some = keys[start : start + TOGETHER]
            retry(lambda some=some: self._server.delete(name, some), "deletions")  # type: ignore[misc]  # bound now

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """See :meth:`VectorStore.get`."""
        name = self._real(name)
        self._dimension(name)
        found = self._server.get(name, check_ids(ids), with_vectors=with_vectors)
        return {record.id: record for record in found}

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        name = self._real(name)
        dimension = self._dimension(name)
        layout = self._specs[name][1]

        def ask(asked: list[list[float]], limit: int) -> list[list[Hit]]:
            self._check_open()
            return self._server.query(name, asked, limit=limit, where=where, layout=layout)

        return best_hits(ask, queries, k=k, dimension=dimension)

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """See :meth:`VectorStore.scroll`."""
        name = self._real(name)
        self._dimension(name)
        return self._pages(name, where, with_vectors=with_vectors)

    def _pages(self, name: str, where: Filter | None, *, with_vectors: bool) -> Iterator[Record]:
        offset: Any = None
        while True:
            self._check_open()
            records, offset = self._server.scroll_page(name, offset, where=where, with_vectors=with_vectors)
            yield from records
            if offset is None:
                return

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """See :meth:`VectorStore.count`."""
        name = self._real(name)
        self._dimension(name)
        return self._server.count(name, where)

    def index_state(self, name: str) -> IndexState:
        """See :meth:`VectorStore.index_state`; a server does not tell what it takes on disk."""
        name = self._real(name)
        points, known = self.count(name), self._known(name)
        return IndexState(points, known.indexed, layout=known.layout)

    def build_index(self, name: str) -> None:
        """See :meth:`VectorStore.build_index`: the server is told to index small segments too, and builds."""
        name = self._real(name)
        self._dimension(name)
        self._server.index_all_segments(name)
        while True:
            time.sleep(POLL_SECONDS)  # before the first look too: it begins only after it has answered
            known = self._known(name)
            if known.failed:
                raise StoreError(f"the server at {self.address} could not build {name}; see its log")
            if not known.optimizing:
                return

    def flush(self, name: str) -> None:
        """See :meth:`VectorStore.flush`. The server has acknowledged every write already."""
        self._dimension(self._real(name))

    def close(self) -> None:
        """See :meth:`VectorStore.close`."""
        if not self._closed:
            self._closed = True
            self._server.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"store {self.address} is closed; open it again")

    def _real(self, name: str) -> str:
        """Return the collection that a name or an alias means; of one that was described nobody is asked."""
        self._check_open()
        if name in self._specs:
            return name
        if not is_name(name):
            raise collection_not_found(self.address, name)
        return self.aliases().get(name, name)

    def _known(self, name: str) -> CollectionInfo:
        """Return what the server says of a collection that is there."""
        self._check_open()
        known = self._server.get_info(name) if is_name(name) else None
        if known is None:
            self._specs.pop(name, None)
            raise collection_not_found(self.address, name)
        return known

    def _is_ours(self, name: str) -> bool:
        known = self._server.get_info(name)
        return known is not None and known.metadata is not None

    def _dimension(self, name: str) -> int:
        if name not in self._specs:
            self.info(name)
        return self._specs[name][0].dimension

    def _index_payload(self, name: str, numbers: Sequence[str] = ()) -> None:
        """Have persons and numbers indexed; by every store once, for a create may have been killed."""
        if name not in self._indexed or numbers:
            paths = [Condition(key, ">", 0).path for key in numbers if not set(key) & set('."') and key]
            self._server.create_payload_indexes(name, ["person"], paths)
            self._indexed.add(name)
