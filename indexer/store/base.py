"""The protocol of a vector store, and what follows from it alone: aliases resolved, collections opened.

It has two implementations, ``lookalike.indexer.embedded.store`` (in a folder, the default) and
``lookalike.indexer.server.store`` (a Qdrant server or cluster). Both give the same answers
(tests/indexer/store/test_contract.py).

Legend: N vectors, Q queries, D dimensions of an embedding, k hits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    InvalidArgumentError,
    StoreBusyError,
    StoreError,
    StoreUnreachableError,
)
from lookalike.indexer.store.filters import Filter
from lookalike.indexer.store.layout import CollectionSpec, Layout, StorageConfig
from lookalike.indexer.store.points import Hit, Payload, Record

NO_ID: Final = "00000000-0000-0000-0000-000000000000"
"""An id that no point has."""


@dataclass(frozen=True, slots=True)
class IndexState:
    """Size, index and layout of a collection.

    Attributes:
        points: Number of points.
        indexed: Vectors in an HNSW graph; those replaced or deleted since it was built still count.
        disk_bytes: Size on disk; None when the store does not report it.
        deferred: Whether no graph is built before :meth:`VectorStore.build_index`.
        layout: Layout in the store; None when it cannot be expressed as a :class:`Layout`.
    """

    points: int
    indexed: int
    disk_bytes: int | None = None
    layout: Layout | None = None
    deferred: bool = False

    @property
    def unindexed(self) -> int:
        """Lower bound of the vectors that every search compares one by one."""
        return max(0, self.points - self.indexed)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ``disk_bytes`` and ``layout`` only when known, ``deferred`` only if it is."""
        values: dict[str, Any] = {
            "index": {"search": "hnsw" if self.indexed else "exact", "indexed": self.indexed}
        }
        if self.deferred:
            values["index"]["deferred"] = True
        if self.disk_bytes is not None:
            values["disk_bytes"] = self.disk_bytes
        if self.layout is not None:
            values["layout"] = self.layout.to_json()
        return values


@dataclass(frozen=True, slots=True)
class ShardCopies:
    """The copies that there are of one shard of a collection in a cluster.

    Attributes:
        shard: Its number.
        states: Peer to the state of the copy there, in Qdrant's words (``Active`` answers and takes writes),
            or ``Silent`` where the peer does not answer.
    """

    shard: int
    states: Mapping[int, str]

    @property
    def active(self) -> list[int]:
        """The peers whose copy answers."""
        return sorted(peer for peer, state in self.states.items() if state == "Active")

    @property
    def dead(self) -> list[int]:
        """The peers whose copy is lost or out of date, and not on its way."""
        return sorted(peer for peer, state in self.states.items() if state == "Dead")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: the shard, and the state on each peer."""
        return {"shard": self.shard, "peers": {str(peer): state for peer, state in self.states.items()}}


class VectorStore(Protocol):
    """A store of named collections; not thread-safe unless an implementation says so.

    Attributes:
        piece: Number of points that are best written together.
        shared: Whether several processes, on any machines, can write to it at the same time.

    Every method that takes ``name`` raises CollectionNotFoundError when there is no such collection (except
    ``create``), and StoreError or a subclass when the store itself fails. Except in ``create`` and
    ``delete_collection``, a name may be an alias, which means its collection at that moment.
    """

    piece: int = 512
    shared: bool = False

    @property
    def address(self) -> str:
        """The folder or URL that opens this store again."""
        ...

    @property
    def warning(self) -> str | None:
        """One line on what may go wrong with this store; None: nothing is known."""
        return None

    def list_collections(self) -> list[str]:
        """Return the names of all lookalike collections, sorted, without aliases."""
        ...

    def aliases(self) -> dict[str, str]:
        """Return all aliases, alias to collection."""
        ...

    def set_alias(self, alias: str, name: str | None) -> None:
        """Point an alias to a collection, atomically; None removes the alias.

        Raises:
            CollectionExistsError: a collection has this name.
            CollectionNotFoundError: there is no such collection, or no such alias to remove.
            InvalidArgumentError: the alias is not allowed by :func:`check_name`.
        """
        ...

    def create(self, name: str, spec: CollectionSpec, storage: StorageConfig | None = None) -> None:
        """Create an empty collection.

        Args:
            name: A name that is not taken.
            spec: What it remembers about itself.
            storage: Storage options; None: the recommended layout.

        Raises:
            CollectionExistsError: the name is taken.
            InvalidArgumentError: the name is not allowed by :func:`check_name`, or the store does not support
                an option.
        """
        ...

    def info(self, name: str) -> CollectionSpec:
        """Return the spec of a collection: what it remembers about itself."""
        ...

    def probe(self, name: str) -> None:
        """Open a collection and read from it, without patience where it does not answer."""
        self.info(name)
        self.get(name, [NO_ID])

    def update_info(self, name: str, spec: CollectionSpec, *, before: CollectionSpec | None = None) -> None:
        """Replace the spec of a collection (new roots); model, dimension and metric must stay.

        Args:
            name: The collection.
            spec: What it remembers from now on.
            before: The spec that it was made from: only what differs is written, so that two runs at once
                lose nothing of each other. None: the one that the collection has now.

        Raises:
            ModelMismatchError: model_id, dimension, crop or metric differ.
            StoreError: another run has given the name of a new root to another folder meanwhile.
        """
        ...

    def delete_collection(self, name: str) -> None:
        """Delete a collection and everything in it.

        Raises:
            StoreError: the name is an alias, or the collection has one.
        """
        ...

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        """Insert or replace N points; once it returns, a crash loses none of them.

        Invalid arguments store nothing. When the store itself fails during the call (disk full, server gone),
        some of the points may be stored: repeating the call completes it, and is harmless otherwise. Of an id
        given twice the last point stays.

        Args:
            name: The collection.
            ids: N UUID strings, with or without dashes; they are returned with dashes.
            vectors: float32 (N, D), finite and not zero; stored at unit length.
            payloads: N payloads; a replaced point keeps nothing of its old payload.

        Raises:
            VectorError: a vector is not finite, is zero, or has another dimension than the collection.
            StoreError: an id is not a UUID, a payload cannot be stored, or the numbers differ.
        """
        ...

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete points; ids that do not exist are no error."""
        ...

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """Return the points that exist among these ids (some thousand at most), by id."""
        ...

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """Return at most k hits for each of Q queries, float32 (Q, D), best first.

        Hits of equal score are ordered by id.

        Raises:
            VectorError: as for :meth:`upsert`.
            InvalidArgumentError: k < 1.
        """
        ...

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """Yield all points that pass the filter, ordered by id, with one page of them in memory."""
        ...

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """Return the exact number of points that pass the filter."""
        ...

    def facet(
        self,
        name: str,  # noqa: ARG002  # for implementations
        field: str,  # noqa: ARG002
        *,
        where: Filter | None = None,  # noqa: ARG002
    ) -> dict[str, int] | None:
        """Count the values of a text field by its index, exactly; None where that does not count them all.

        Args:
            name: The collection.
            field: The field, as a Qdrant path (:func:`json_path`).
            where: Points that count.
        """
        return None

    def index_state(self, name: str) -> IndexState:
        """Return size, index and layout of a collection."""
        ...

    def build_index(self, name: str) -> None:
        """Build the HNSW graph over all vectors of a collection; may take minutes.

        Quantized vectors, if the layout has them, are made with it at the latest. An index is worth it from
        some 100,000 vectors on; for less than a kilobyte of vectors no graph is built. Killed during the
        build, it leaves the collection as it was. What was deferred is not any more.
        """
        ...

    def copies(self, name: str) -> list[ShardCopies]:  # noqa: ARG002  # for implementations
        """Return the copies of each shard of a collection; empty where there is no cluster."""
        return []

    def rebalance(
        self,
        name: str,
        *,
        replicas: int | None = None,  # noqa: ARG002  # for implementations
        log: Callable[[str], object] = lambda _: None,  # noqa: ARG002
    ) -> int:
        """Make the copies that are missing in a cluster, and spread all evenly over its peers.

        Args:
            name: The collection.
            replicas: Copies of each shard, at least, from now on; None: as many as it was made with. Copies
                beyond that stay.
            log: Called with one line before each step.

        Returns:
            How many steps were done.

        Raises:
            InvalidArgumentError: the store is no cluster, or has fewer peers than copies are wanted.
            StoreError: a step failed; what was done before stays, and the next call does the rest.
        """
        raise InvalidArgumentError(
            f"{self.address} is no Qdrant cluster, and {name!r} lies in one place; only a collection of a "
            "cluster can be rebalanced"
        )

    def hold(self, *, served_at: str | None = None) -> None:  # noqa: ARG002  # for implementations
        """Take what only one process can have, until :meth:`close`; nothing where processes share the store.

        Args:
            served_at: URL at which this process answers requests; others are told of it. May be given later,
                by another call.

        Raises:
            StoreBusyError: another process holds a collection.
        """
        return

    def flush(self, name: str) -> None:
        """Return when everything written so far is on disk."""
        ...

    def close(self) -> None:
        """Flush and close. Closing twice is no error; any other call after it raises StoreError."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create_or_open(
    store: VectorStore, name: str, spec: CollectionSpec, storage: StorageConfig | None = None
) -> CollectionSpec:
    """Create a collection and return its spec; where another run has just created it, return that run's.

    Raises:
        StoreError, InvalidArgumentError: as :meth:`VectorStore.create` and :meth:`VectorStore.info` say.
    """
    try:
        store.create(name, spec, storage)
    except CollectionExistsError as error:
        try:
            return store.info(name)
        except CollectionNotFoundError:
            raise error from None
    return spec


def resolve_alias(store: VectorStore, name: str) -> str:
    """Return the collection of an alias, or ``name`` itself when it is not an alias."""
    return store.aliases().get(name, name)


def choose_collection(store: VectorStore, name: str | None) -> str:
    """Return the name that was given, or that of the only collection of a store.

    Raises:
        InvalidArgumentError: none was given, and the store has none or several.
    """
    if name is not None:
        return name
    names = store.list_collections()
    if len(names) == 1:
        return names[0]
    if not names:
        raise InvalidArgumentError(
            f"there is no collection in {store.address}; create one with lookalike index FOLDER "
            "--collection NAME"
        )
    raise InvalidArgumentError(
        f"{store.address} has the collections {', '.join(sorted(names))}; choose one with --collection NAME, "
        "or set LOOKALIKE_COLLECTION"
    )


def alias_conflict(address: str, alias: str, name: str) -> CollectionExistsError:
    """Return the error for a collection name that is taken by an alias."""
    return CollectionExistsError(
        f"{alias!r} on {address} is an alias of collection {name!r}; choose another name for the collection"
    )


def aliased_collection(address: str, alias: str) -> CollectionExistsError:
    """Return the error for an alias that is the name of a collection."""
    return CollectionExistsError(
        f"{alias!r} on {address} is a collection, no alias; choose another alias, or copy the collection to "
        "another name and delete it"
    )


def missing_alias(address: str, alias: str, aliases: dict[str, str]) -> CollectionNotFoundError:
    """Return the error for an alias that does not exist."""
    return CollectionNotFoundError(
        f"no alias {alias!r} on {address}; it has: {', '.join(sorted(aliases)) or 'none'}"
    )


def check_unaliased(address: str, name: str, aliases: dict[str, str]) -> None:
    """Check before deleting a collection that it is not an alias and has none.

    Raises:
        StoreError: it is one or has one.
    """
    if name in aliases:
        raise StoreError(
            f"{name!r} on {address} is an alias of collection {aliases[name]!r}; remove it with "
            f"lookalike collections switch {name} --remove"
        )
    if pointing := sorted(alias for alias, real in aliases.items() if real == name):
        raise StoreError(
            f"collection {name!r} on {address} is what {', '.join(pointing)} stands for; point that on with "
            f"lookalike collections switch {pointing[0]} OTHER, or remove it with --remove"
        )


Closed = Literal["held", "unreachable", "damaged"]
"""Why a collection cannot be opened: another process has it, the server does not answer for it, or else."""


def closed_by(error: StoreError) -> Closed:
    """Return in one word what an error of :func:`opening_error` says."""
    if isinstance(error, StoreBusyError):
        return "held"
    return "unreachable" if isinstance(error, StoreUnreachableError) else "damaged"


def opening_error(store: VectorStore, name: str) -> StoreError | None:
    """Open a collection of the store, read from it, and return why that cannot be done; None when it can.

    A StoreBusyError says that another process holds it; a StoreUnreachableError, that the server answers and
    this collection does not; any other, that it is damaged. One that was deleted meanwhile has none of them.

    Raises:
        StoreUnreachableError: the server itself does not answer.
    """
    try:
        store.probe(name)
    except StoreUnreachableError as error:
        store.aliases()
        return error
    except CollectionNotFoundError:
        return None
    except StoreError as error:
        return error
    return None
