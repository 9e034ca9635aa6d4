"""A Qdrant server or cluster as the store.

Collections without our metadata belong to other programs: they are not listed and not changed.
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
from lookalike.indexer.store import (
    CollectionSpec,
    Condition,
    Filter,
    Hit,
    IndexState,
    Layout,
    Payload,
    Record,
    StorageConfig,
    VectorStore,
    alias_conflict,
    aliased_collection,
    best_hits,
    check_ids,
    check_name,
    check_points,
    check_unaliased,
    is_name,
    missing_alias,
    scroll_pages,
)

CHUNK: Final = 1000
POLL_SECONDS: Final = 1


class ServerStore(VectorStore):
    """A :class:`VectorStore` on a Qdrant server; thread-safe.

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
        """Connect to the server at ``url`` and check that it answers.

        Args:
            url: ``http(s)://host[:port][/prefix]``; the default port is 6333.
            api_key: When None, ``QDRANT_API_KEY`` of the environment. Over plain http it is sent only to this
                machine and private networks.

        Raises:
            StoreUnreachableError: no answer, not Qdrant, older than 1.16, or the key is refused.
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
        """See :meth:`VectorStore.aliases`; only those that are allowed as collection names."""
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

    def create(self, name: str, spec: CollectionSpec, storage: StorageConfig | None = None) -> None:
        """See :meth:`VectorStore.create`. Payload fields to filter by are indexed before the upload."""
        self._check_open()
        if check_name(name) in self._server.list_collections():
            raise CollectionExistsError(
                f"collection {name!r} already exists on {self.address}; choose another name or delete it"
            )
        if (real := self.aliases().get(name)) is not None:
            raise alias_conflict(self.address, name, real)
        storage = storage or StorageConfig()
        layout = storage.resolve(spec.dimension, peers=self._server.peers())
        self._server.create(name, to_qdrant(layout, spec.dimension, storage), spec.to_json())
        if not self._is_ours(name):
            self._server.delete_collection(name)
            raise StoreError(f"the server at {self.address} stores no metadata; upgrade Qdrant to 1.16")
        self._index_payload(name, storage.numeric_fields)

    def info(self, name: str) -> CollectionSpec:
        """See :meth:`VectorStore.info`.

        Raises:
            StoreError: the collection was not made by lookalike.
        """
        real = self._real(name)
        state = self._state(real)
        where = f"collection {name!r} on {self.address}"
        if state.metadata is None:
            raise StoreError(f"{where} is not a lookalike collection; index into another name")
        spec = CollectionSpec.from_json(state.metadata, where=where)
        self._specs[real] = spec, state.layout
        return spec

    def update_info(self, name: str, spec: CollectionSpec) -> None:
        """See :meth:`VectorStore.update_info`."""
        name = self._real(name)
        self.info(name).check_successor(name, spec)
        self._server.set_metadata(name, spec.to_json())

    def delete_collection(self, name: str) -> None:
        """See :meth:`VectorStore.delete_collection`. Collections that lookalike did not make are refused."""
        check_unaliased(self.address, name, self.aliases())
        if self._state(name).metadata is None:
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
        """See :meth:`VectorStore.upsert`. Batches are sent by several threads; then all are waited for.

        Raises:
            StoreUnavailableError: the server accepted a batch in no try; the message names it.
        """
        name = self._real(name)
        keys, rows, fields = check_points(ids, vectors, payloads, dimension=self._dimension(name))
        if not keys:
            return
        self._index_payload(name)
        last = last_of_each(keys)  # threads overtake one another
        keys, rows, fields = [keys[n] for n in last], rows[last], [fields[n] for n in last]

        def send(part: slice) -> None:
            self._server.upsert(name, keys[part], rows[part], fields[part])

        def describe(part: slice) -> str:
            return f"points {part.start + 1} to {part.stop} of {len(keys)}, from {keys[part.start]} on,"

        upload(len(keys), send, describe, streams=1 if self._server.in_memory else STREAMS)
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            retry(lambda chunk=chunk: self._server.wait_applied(name, chunk), "points")  # type: ignore[misc]  # bound now

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """See :meth:`VectorStore.delete`."""
        name = self._real(name)
        self._dimension(name)
        keys = check_ids(ids)
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            retry(lambda chunk=chunk: self._server.delete(name, chunk), "deletions")  # type: ignore[misc]  # bound now

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """See :meth:`VectorStore.get`."""
        name = self._real(name)
        self._dimension(name)
        records = self._server.get(name, check_ids(ids), with_vectors=with_vectors)
        return {record.id: record for record in records}

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        name = self._real(name)
        dimension = self._dimension(name)
        layout = self._specs[name][1]

        def query(rows: list[list[float]], limit: int) -> list[list[Hit]]:
            self._check_open()
            return self._server.query(name, rows, limit=limit, where=where, layout=layout)

        return best_hits(query, queries, k=k, dimension=dimension)

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """See :meth:`VectorStore.scroll`."""
        name = self._real(name)
        self._dimension(name)

        def get_page(offset: Any) -> tuple[list[Record], Any]:
            self._check_open()
            return self._server.scroll_page(name, offset, where=where, with_vectors=with_vectors)

        return scroll_pages(get_page)

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """See :meth:`VectorStore.count`."""
        name = self._real(name)
        self._dimension(name)
        return self._server.count(name, where)

    def index_state(self, name: str) -> IndexState:
        """See :meth:`VectorStore.index_state`; a server does not report its size on disk."""
        name = self._real(name)
        points, state = self.count(name), self._state(name)
        return IndexState(points, state.indexed, layout=state.layout)

    def build_index(self, name: str) -> None:
        """See :meth:`VectorStore.build_index`; the server is configured to index small segments too."""
        name = self._real(name)
        self._dimension(name)
        self._server.index_all_segments(name)
        while True:
            time.sleep(POLL_SECONDS)  # also before the first look: the server begins after its answer
            state = self._state(name)
            if state.failed:
                raise StoreError(f"the server at {self.address} could not build {name}; see its log")
            if not state.optimizing:
                return

    def flush(self, name: str) -> None:
        """See :meth:`VectorStore.flush`; the server has acknowledged every write already."""
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
        """Resolve a name or alias; the server is not asked about a collection whose spec is cached."""
        self._check_open()
        if name in self._specs:
            return name
        if not is_name(name):
            raise collection_not_found(self.address, name)
        return self.aliases().get(name, name)

    def _state(self, name: str) -> CollectionInfo:
        """Return the state of an existing collection."""
        self._check_open()
        state = self._server.get_info(name) if is_name(name) else None
        if state is None:
            self._specs.pop(name, None)
            raise collection_not_found(self.address, name)
        return state

    def _is_ours(self, name: str) -> bool:
        state = self._server.get_info(name)
        return state is not None and state.metadata is not None

    def _dimension(self, name: str) -> int:
        if name not in self._specs:
            self.info(name)
        return self._specs[name][0].dimension

    def _index_payload(self, name: str, numbers: Sequence[str] = ()) -> None:
        """Index persons and numbers; once per store object, as a create may have been killed before."""
        if name not in self._indexed or numbers:
            paths = [Condition(key, ">", 0).path for key in numbers if not set(key) & set('."') and key]
            self._server.create_payload_indexes(name, ["person"], paths)
            self._indexed.add(name)
