"""A Qdrant server or cluster as the store.

Collections without our metadata belong to other programs: they are not listed and not changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import CollectionExistsError, StoreError, StoreUnavailableError
from lookalike.indexer.server.client import CollectionInfo, Server
from lookalike.indexer.server.config import DEFERRED, Limits, deferred_graph, to_qdrant
from lookalike.indexer.server.errors import (
    SubstringRefusedError,
    UnindexedFieldError,
    collection_not_found,
    made_anew,
    too_few_peers,
)
from lookalike.indexer.server.hnsw import build_graphs
from lookalike.indexer.server.metadata import metadata_changes, spec_values, to_metadata
from lookalike.indexer.server.payload_indexes import PayloadIndexes
from lookalike.indexer.server.replicas import answering_peers, next_step, rebalance, with_silent
from lookalike.indexer.server.substring import page_here, query_here
from lookalike.indexer.server.upload import STREAMS, Patience, last_of_each, retry, upload
from lookalike.indexer.store import (
    NO_ID,
    CollectionSpec,
    Filter,
    Hit,
    IndexState,
    Layout,
    Payload,
    Record,
    ShardCopies,
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
PIECE: Final = 8192
"""Points that are written together: 1.3 to 1.5 times as fast as 1,024, as all are waited for once."""
SPEC_SECONDS: Final = 1.0
"""How long a spec is taken for current before the server is asked again."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Known:
    """A collection as it was when it was looked at last."""

    spec: CollectionSpec
    layout: Layout | None
    limits: Limits
    seconds: float


class ServerStore(VectorStore):
    """A :class:`VectorStore` on a Qdrant server; thread-safe.

    Args:
        server: The server; closed by :meth:`close`.
    """

    def __init__(self, server: Server) -> None:
        self.piece, self.shared = PIECE, True
        self._server = server
        self._specs: dict[str, _Known] = {}
        self._indexes = PayloadIndexes(server)
        self._prepared: set[str] = set()
        self._no_substrings: set[str] = set()  # collections in strict mode
        self._patience = Patience()
        self._closed = False

    @classmethod
    def connect(cls, url: str, api_key: str | None = None) -> Self:
        """Connect to the server at ``url`` and check that it answers.

        Args:
            url: ``http(s)://host[:port][/prefix]``; the default port is 6333. Several peers of a cluster are
                separated by commas: where one does not answer, the next is asked.
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

    @property
    def warning(self) -> str | None:
        """Whether server and client are of versions that Qdrant does not test together."""
        return self._server.warning

    def list_collections(self) -> list[str]:
        """See :meth:`VectorStore.list_collections`."""
        self._check_open()
        return sorted(name for name in self._all_names() if self._is_ours(name))

    def _all_names(self) -> list[str]:
        return self._patience.read("", self._server.list_collections)

    def aliases(self) -> dict[str, str]:
        """See :meth:`VectorStore.aliases`; only those that are allowed as collection names."""
        self._check_open()
        aliases = self._patience.read("", self._server.aliases)
        return {alias: name for alias, name in sorted(aliases.items()) if is_name(alias)}

    def set_alias(self, alias: str, name: str | None) -> None:
        """See :meth:`VectorStore.set_alias`."""
        aliases = self.aliases()
        if check_name(alias) not in aliases and alias in self._all_names():
            raise aliased_collection(self.address, alias)
        if name is None and alias not in aliases:
            raise missing_alias(self.address, alias, aliases)
        real = None if name is None else self._real(name)
        if real is not None:
            self._state(real)  # raises where there is none

        def point() -> None:
            now = self._server.aliases()
            if now.get(alias) != real:
                self._server.set_alias(alias, real, exists=alias in now)

        retry(point, f"changes of alias {alias!r}")

    def create(self, name: str, spec: CollectionSpec, storage: StorageConfig | None = None) -> None:
        """See :meth:`VectorStore.create`. Payload fields to filter by are indexed before the upload."""
        self._check_open()
        if check_name(name) in self._all_names():
            raise CollectionExistsError(
                f"collection {name!r} already exists on {self.address}; choose another name or delete it"
            )
        if (real := self.aliases().get(name)) is not None:
            raise alias_conflict(self.address, name, real)
        storage = storage or StorageConfig()
        peers = len(retry(self._server.peers, "questions after the peers") or (1,))
        layout = storage.resolve(spec.dimension, peers=peers)
        config = to_qdrant(layout, spec.dimension, storage)
        metadata = to_metadata(spec) | deferred_graph(layout, storage)

        def make() -> None:
            try:
                self._server.create(name, config, metadata)
            except CollectionExistsError:
                state = self._server.get_info(name)
                if state is None or state.metadata != metadata:
                    raise  # another run made it; else an earlier try or peer did, whose answer was lost

        def made() -> CollectionInfo:
            state = self._server.get_info(name)
            if state is None:  # another peer answers, and has not heard of it yet
                raise StoreUnavailableError(f"{self.address} does not know the new collection {name!r} yet")
            return state

        retry(make, "collections")
        state = retry(made, "questions after a new collection")
        if spec_values(state.metadata) is None:
            self._server.delete_collection(name)
            raise StoreError(f"the server at {self.address} stores no metadata; upgrade Qdrant to 1.16")
        if state.layout is not None and state.layout.replicas > peers and not self._server.in_memory:
            self._server.delete_collection(name)
            raise too_few_peers(state.layout.replicas, peers)
        self._specs.pop(name, None)
        self._prepare_indexes(name, storage.numeric_fields)

    def info(self, name: str) -> CollectionSpec:
        """See :meth:`VectorStore.info`.

        Raises:
            StoreError: the collection was not made by lookalike.
        """
        real = self._real(name)
        state = self._patience.read(real, lambda: self._state(real))
        spec = self._spec_of(real, state)
        self._remember(real, spec, state)
        return spec

    def probe(self, name: str) -> None:
        """See :meth:`VectorStore.probe`."""
        self._spec_of(name, self._state(name))
        self._server.get(name, [NO_ID], with_vectors=False)

    def _remember(self, name: str, spec: CollectionSpec, state: CollectionInfo) -> None:
        self._specs[name] = _Known(spec, state.layout, state.limits, time.monotonic())
        self._indexes.note(name, state.fields)

    def _spec_of(self, name: str, state: CollectionInfo) -> CollectionSpec:
        where = f"collection {name!r} on {self.address}"
        if (values := spec_values(state.metadata)) is None:
            raise StoreError(f"{where} is not a lookalike collection; index into another name")
        return CollectionSpec.from_json(values, where=where)

    def update_info(self, name: str, spec: CollectionSpec, *, before: CollectionSpec | None = None) -> None:
        """See :meth:`VectorStore.update_info`. Each root is stored under a key of its own."""
        name = self._real(name)

        def update() -> None:
            state = self._state(name)
            current = self._spec_of(name, state)
            current.check_successor(name, spec)
            new = current.with_changes(name, before or current, spec)
            if changes := metadata_changes(state.metadata, current, new):
                self._server.merge_metadata(name, changes)

        retry(update, f"changes of collection {name!r}")
        self._specs.pop(name, None)

    def delete_collection(self, name: str) -> None:
        """See :meth:`VectorStore.delete_collection`. Collections that lookalike did not make are refused.

        One whose shards do not answer is deleted, too, although nobody can say then who made it.
        """
        check_unaliased(self.address, name, self.aliases())
        try:
            if spec_values(self._state(name).metadata) is None:
                raise StoreError(
                    f"collection {name!r} on {self.address} is not a lookalike collection; "
                    "delete it with Qdrant's own tools"
                )
        except StoreUnavailableError:
            if name not in self._server.list_collections():
                raise collection_not_found(self.address, name) from None

        def remove() -> None:
            if name in self._server.list_collections():  # else an earlier try did it, whose answer was lost
                self._server.delete_collection(name)

        retry(remove, f"changes of collection {name!r}")
        self._specs.pop(name, None)
        self._prepared.discard(name)
        self._no_substrings.discard(name)
        self._indexes.forget(name)

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
        if name not in self._prepared:  # by another object, or a run that was killed
            self._prepare_indexes(name)
        retry(lambda: self._indexes.add_new(name, fields), "payload indexes")
        last = last_of_each(keys)  # threads overtake one another
        keys, rows, fields = [keys[n] for n in last], rows[last], [fields[n] for n in last]

        def send(part: slice) -> None:
            self._server.upsert(name, keys[part], rows[part], fields[part])

        def describe(part: slice) -> str:
            return f"points {part.start + 1} to {part.stop} of {len(keys)}, from {keys[part.start]} on,"

        limits, streams = self._specs[name].limits, 1 if self._server.in_memory else STREAMS
        upload(len(keys), send, describe, streams=streams, batch=limits.upsert)
        retry(lambda: self._server.wait_applied(name), "points")
        for start in range(0, len(keys), limits.condition):
            retry(partial(self._server.check_stored, name, keys[start : start + limits.condition]), "points")

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """See :meth:`VectorStore.delete`."""
        name, keys = self._checked(name), check_ids(ids)
        for start in range(0, len(keys), CHUNK):
            retry(partial(self._server.delete, name, keys[start : start + CHUNK]), "deletions")

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """See :meth:`VectorStore.get`."""
        name, keys = self._checked(name), check_ids(ids)
        records = self._patience.read(name, lambda: self._server.get(name, keys, with_vectors=with_vectors))
        return {record.id: record for record in records}

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        name = self._real(name)
        dimension = self._dimension(name)
        layout, limits = self._specs[name].layout, self._specs[name].limits

        def query(rows: list[list[float]], limit: int, where: Filter | None) -> list[list[Hit]]:
            self._check_open()
            most = max(k, min(limit, limits.hits))  # more than k are asked for where scores are equal
            return self._server.query(name, rows, limit=most, where=where, layout=layout, limits=limits)

        def best(ask: Callable[[list[list[float]], int], list[list[Hit]]]) -> list[list[Hit]]:
            return best_hits(ask, queries, k=k, dimension=dimension)

        ask = partial(best, partial(query, where=where))
        return self._filtered(name, where, ask, lambda: best(query_here(query, where)))

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """See :meth:`VectorStore.scroll`."""
        name = self._checked(name)
        most = self._specs[name].limits.hits

        def page(offset: Any, where: Filter | None) -> tuple[list[Record], Any]:
            self._check_open()
            how: dict[str, Any] = {"where": where, "with_vectors": with_vectors, "most": most}
            return self._server.scroll_page(name, offset, **how)

        here = page_here(page, where)
        return scroll_pages(
            lambda offset: self._filtered(name, where, lambda: page(offset, where), lambda: here(offset))
        )

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """See :meth:`VectorStore.count`."""
        name = self._checked(name)
        ask = partial(self._server.count, name, where)
        return self._filtered(name, where, ask, lambda: sum(1 for _ in self.scroll(name, where=where)))

    def facet(self, name: str, field: str, *, where: Filter | None = None) -> dict[str, int] | None:
        """See :meth:`VectorStore.facet`."""
        name = self._checked(name)
        state = self._patience.read(name, lambda: self._state(name))
        if field not in state.texts and not self._server.in_memory:
            return None
        ask = partial(self._server.facet, name, field, where, most=state.limits.hits)
        return self._filtered(name, where, ask, lambda: None)

    def index_state(self, name: str) -> IndexState:
        """See :meth:`VectorStore.index_state`; a server does not report its size on disk."""
        name = self._real(name)
        points, state = self.count(name), self._patience.read(name, lambda: self._state(name))
        return IndexState(points, state.indexed, layout=state.layout, deferred=state.deferred is not None)

    def build_index(self, name: str) -> None:
        """See :meth:`VectorStore.build_index`; meanwhile the server indexes small segments too."""
        name = self._real(name)
        if (graph := self._state(name).deferred) is not None:
            changes = f"changes of collection {name!r}"
            retry(lambda: self._server.set_graph(name, graph), changes)
            retry(lambda: self._server.merge_metadata(name, {DEFERRED: None}), changes)
        build_graphs(
            lambda kilobytes: self._server.set_threshold(name, kilobytes),
            lambda: self._state(name),
            dimension=self._dimension(name),
            collection=f"collection {name!r} on {self.address}",
        )

    def copies(self, name: str) -> list[ShardCopies]:
        """See :meth:`VectorStore.copies`."""
        name = self._real(name)
        self._state(name)
        peers = self._server.peers()
        return [] if peers is None else with_silent(self._server.copies(name)[0], answering_peers(peers))

    def rebalance(
        self, name: str, *, replicas: int | None = None, log: Callable[[str], object] = lambda _: None
    ) -> int:
        """See :meth:`VectorStore.rebalance`. Each step is waited for, however long a shard takes."""
        name = self._real(name)
        state, peers = self._state(name), self._server.peers()
        self._spec_of(name, state)
        if peers is None:
            return super().rebalance(name)
        wanted = replicas or (1 if state.layout is None else state.layout.replicas)
        answering = answering_peers(peers)
        next_step(self._server.copies(name)[0], answering, wanted)  # raises what cannot be done
        if replicas is not None and (state.layout is None or state.layout.replicas != replicas):
            retry(lambda: self._server.set_replicas(name, replicas), f"changes of collection {name!r}")
        return rebalance(self._server, name, answering, wanted, log)

    def flush(self, name: str) -> None:
        """See :meth:`VectorStore.flush`; the server has acknowledged every write already."""
        self._checked(name)

    def close(self) -> None:
        """See :meth:`VectorStore.close`."""
        if not self._closed:
            self._closed = True
            self._server.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"store {self.address} is closed; open it again")

    def _real(self, name: str) -> str:
        """Resolve a name or alias; the server is not asked about a collection that was just looked at."""
        self._check_open()
        known = self._specs.get(name)
        if known is not None and time.monotonic() - known.seconds < SPEC_SECONDS:
            return name
        if not is_name(name):
            raise collection_not_found(self.address, name)
        return self.aliases().get(name, name)

    def _checked(self, name: str) -> str:
        """Resolve the name of a collection that is there and still has the model that it had."""
        name = self._real(name)
        self._dimension(name)
        return name

    def _state(self, name: str) -> CollectionInfo:
        """Return the state of an existing collection."""
        self._check_open()
        state = self._server.get_info(name) if is_name(name) else None
        if state is None:
            self._specs.pop(name, None)
            raise collection_not_found(self.address, name)
        return state

    def _is_ours(self, name: str) -> bool:
        """Whether lookalike made a collection; yes where it does not answer, so that it is seen."""
        try:
            state = self._server.get_info(name)
        except StoreUnavailableError:
            return True
        return state is not None and spec_values(state.metadata) is not None

    def _dimension(self, name: str) -> int:
        """Return the dimension of a collection.

        Raises:
            ModelMismatchError: it was made anew, for another model, since :meth:`info` was called.
        """
        known = self._specs.get(name)
        if known is None:
            return self.info(name).dimension
        if time.monotonic() - known.seconds >= SPEC_SECONDS:
            try:
                state = self._state(name)
            except StoreUnavailableError:  # what follows says it, or is tried again
                return known.spec.dimension
            spec = self._spec_of(name, state)
            if not spec.same_embedding(known.spec):
                raise made_anew(self.address, name, known.spec, spec)
            self._remember(name, spec, state)
        return known.spec.dimension

    def _filtered(self, name: str, where: Filter | None, there: Callable[[], T], here: Callable[[], T]) -> T:
        """Return what a filter finds on the server, or here what the server does not filter by.

        Fields that are not indexed yet, as in a collection that an earlier release filled, are.
        """
        ask = there
        if where is not None and where.has_substring:
            ask = there if self._server.has_substrings and name not in self._no_substrings else here
        while True:
            try:
                return self._patience.read(name, ask)
            except SubstringRefusedError:
                if ask is here:
                    raise
                self._no_substrings.add(name)
                ask = here
            except UnindexedFieldError:
                try:
                    made = self._index_what_is_there(name)
                except StoreError:  # a key that may only read
                    made = False
                if not made:
                    raise

    def _prepare_indexes(self, name: str, numbers: Sequence[str] = ()) -> bool:
        """Index what every item has; return whether any of it was not."""
        state = self._patience.read(name, lambda: self._state(name))
        self._indexes.note(name, state.fields)
        spec = self._spec_of(name, state)
        made = retry(lambda: self._indexes.add_standard(name, spec, numbers), "payload indexes")
        self._prepared.add(name)
        return made

    def _index_what_is_there(self, name: str) -> bool:
        """Index the fields that the first thousand items have; return whether any was not."""
        made = self._prepare_indexes(name)
        most = self._specs[name].limits.hits
        records, _ = self._server.scroll_page(name, None, where=None, with_vectors=False, most=most)
        payloads = [record.payload for record in records]
        return retry(lambda: self._indexes.add_new(name, payloads), "payload indexes") or made
