"""What a vector store must do, and how one is opened.

Two real implementations stand behind :class:`VectorStore`: ``lookalike.indexer.embedded.store`` (embedded, the default) and
``lookalike.indexer.server.store`` (a Qdrant server or cluster). Both answer the same (tests/indexer/store/test_contract.py).

Legend: N vectors, Q queries, D dimensions of an embedding, k hits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import CollectionNotFoundError
from lookalike.indexer.store.filters import Filter
from lookalike.indexer.store.layout import Layout, StorageConfig, differing_options
from lookalike.indexer.store.points import Hit, Payload, Record
from lookalike.indexer.store.spec import CollectionSpec


@dataclass(frozen=True, slots=True)
class IndexState:
    """How a collection is searched, and what it takes.

    Attributes:
        points: How many there are.
        indexed: Vectors in an HNSW graph; those replaced or deleted since it was built still count.
        disk_bytes: What it takes on disk; None when the store does not tell.
        layout: How it lies there; None when that is none of ours.
    """

    points: int
    indexed: int
    disk_bytes: int | None = None
    layout: Layout | None = None

    @property
    def unindexed(self) -> int:
        """At least so many vectors are compared one by one in every search."""
        return max(0, self.points - self.indexed)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ``disk_bytes`` and ``layout`` only where they are known."""
        told: dict[str, Any] = {
            "index": {"search": "hnsw" if self.indexed else "exact", "indexed": self.indexed}
        }
        if self.disk_bytes is not None:
            told["disk_bytes"] = self.disk_bytes
        if self.layout is not None:
            told["layout"] = self.layout.to_json()
        return told


class VectorStore(Protocol):
    """A store of named collections. Not for use by several threads unless an implementation says so.

    Every method that takes ``name`` raises CollectionNotFoundError when there is no such collection
    (``create`` excepted), and StoreError or a child of it when the store itself fails. An alias will do for a
    name, but in ``create`` and ``drop``, and means the collection that it stands for at that moment.
    """

    @property
    def address(self) -> str:
        """The folder or URL that opens this store again."""
        ...

    def list_collections(self) -> list[str]:
        """Names of all lookalike collections, sorted, without aliases."""
        ...

    def aliases(self) -> dict[str, str]:
        """Return the aliases, each with the name of the collection that it stands for."""
        ...

    def set_alias(self, alias: str, name: str | None) -> None:
        """Have an alias stand for a collection from now on, in one step; None removes it.

        Raises:
            CollectionExistsError: a collection is called so.
            CollectionNotFoundError: there is no such collection, or no such alias to remove.
            OptionError: the alias breaks the rule of :func:`check_name`.
        """
        ...

    def create(self, name: str, spec: CollectionSpec, options: StorageConfig | None = None) -> None:
        """Make an empty collection.

        Args:
            name: Of a collection that is not there.
            spec: What it remembers.
            options: How it is to lie in the store; None: as :func:`layout_for` says.

        Raises:
            CollectionExistsError: the name is taken.
            OptionError: the name breaks the rule of :func:`check_name`, or this store has no such layout.
        """
        ...

    def info(self, name: str) -> CollectionSpec:
        """Return what the collection remembers about itself."""
        ...

    def update_info(self, name: str, spec: CollectionSpec) -> None:
        """Replace what it remembers (new roots); model, dimension and metric must stay.

        Raises:
            ModelMismatchError: model_id, dimension, crop or metric differ.
        """
        ...

    def delete_collection(self, name: str) -> None:
        """Delete the collection and everything in it.

        Raises:
            StoreError: an alias stands for it, or is meant.
        """
        ...

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        """Insert or replace N points; once it returns, a crash loses none of them.

        Arguments that are refused store nothing. When the store itself fails on the way (disk full, server
        gone), some of the points may be there: the same call again completes it, and again changes nothing.
        Of an id given twice the last stays.

        Args:
            name: The collection.
            ids: N UUID strings, with dashes or without; they come back with dashes.
            vectors: float32 (N, D), finite, of non-zero length; stored at unit length.
            payloads: N payloads; a replaced point keeps nothing of its old one.

        Raises:
            VectorError: a vector is not finite, is zero, or is not of the collection's dimension.
            StoreError: an id is no UUID, a payload cannot be stored, or there are not N of each.
        """
        ...

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete these points; ids that are not there are no error."""
        ...

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """Return those of these points, some thousand at most, that are there, by id."""
        ...

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """Return for each of Q queries, float32 (Q, D), at most k hits, best first.

        Equal scores come in the order of their ids.

        Raises:
            VectorError: as for :meth:`upsert`.
            OptionError: k < 1.
        """
        ...

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """Yield every point that passes, in the order of ids, holding only a page of them in memory."""
        ...

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """Return exactly how many points pass."""
        ...

    def index_state(self, name: str) -> IndexState:
        """Return how it is searched."""
        ...

    def build_index(self, name: str) -> None:
        """Put all of its vectors into an HNSW graph, and return when that is done: it may take minutes.

        Quantized copies, where the layout wants them, are made with it at the latest.
        From some 100,000 vectors on this is worth it; of less than a kilobyte of them no graph is made.
        Killed on the way, it leaves the collection as it was.
        """
        ...

    def flush(self, name: str) -> None:
        """Return once everything written so far is on disk."""
        ...

    def close(self) -> None:
        """Flush and let go. Closing twice is no error; any other call after it raises StoreError."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ignored_options_warning(store: VectorStore, name: str, options: StorageConfig) -> str | None:
    """Return a line about options that would change a collection that is there, if any: it stays as it is."""
    if not options.explicit:
        return None
    try:
        layout = store.index_state(name).layout
    except CollectionNotFoundError:
        return None
    if layout is None or not (other := differing_options(options, layout)):
        return None
    return (
        f"{name} was made with {', '.join(other.values())} and stays so; for {', '.join(other)} copy it "
        "(lookalike collections copy), or index into a new one"
    )
