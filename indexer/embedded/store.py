"""The embedded store: Qdrant Edge shards in a folder.

Only one process can have a collection open, from its first use of the vectors until :meth:`EdgeStore.close`.
Searches are exact until :meth:`EdgeStore.build_index` is called, which is worth it from some 100,000 vectors
(one query over 100,000 x 128 takes some 5 ms). Vectors added later are compared one by one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    LookalikeError,
    StoreBusyError,
    StoreError,
)
from lookalike.indexer.embedded.files import (
    check_disk_space,
    create_collection,
    delete_collection,
    is_collection,
    list_collections,
    map_errors,
    read_alias,
    read_aliases,
    read_spec,
    replace_spec,
    set_alias,
)
from lookalike.indexer.embedded.hnsw import build_in_subprocess
from lookalike.indexer.embedded.holder import remove_holder, write_holder
from lookalike.indexer.embedded.shard import (
    Shard,
    bytes_on_disk,
    check_idle,
    copy_shard,
    make_shard,
    open_shard,
    remove_stale_shards,
    replace_shard,
)
from lookalike.indexer.store import (
    CollectionSpec,
    Filter,
    Hit,
    IndexState,
    Payload,
    Record,
    StorageConfig,
    VectorStore,
    alias_conflict,
    best_hits,
    check_ids,
    check_name,
    check_points,
    check_unaliased,
    is_name,
    scroll_pages,
)

MAX_DIMENSIONS: Final = 65_536  # the limit of the server; Qdrant Edge itself has none


@dataclass(frozen=True, slots=True)
class _OpenShard:
    """An open shard, and the dimension D of its vectors."""

    shard: Shard
    dimension: int


class EdgeStore(VectorStore):
    """A :class:`VectorStore` in a folder; thread-safe.

    Args:
        address: The folder; :meth:`create` creates it, reading does not.

    Raises:
        StoreBusyError: (any method that needs the vectors) another process, or another EdgeStore of this
            process, has the collection open.
    """

    def __init__(self, address: str) -> None:
        self._root = Path(address).absolute()
        self._open: dict[str, _OpenShard] = {}
        self._lock = threading.RLock()
        self._writers: dict[str, threading.RLock] = {}
        self._closed = False
        self._served_at: str | None = None

    @property
    def address(self) -> str:
        """The folder, absolute."""
        return str(self._root)

    def list_collections(self) -> list[str]:
        """See :meth:`VectorStore.list_collections`; a missing folder has none."""
        self._check_open()
        return list_collections(self._root)

    def aliases(self) -> dict[str, str]:
        """See :meth:`VectorStore.aliases`."""
        self._check_open()
        return read_aliases(self._root)

    def set_alias(self, alias: str, name: str | None) -> None:
        """See :meth:`VectorStore.set_alias`. Processes that have the store open see it too."""
        self._check_open()
        set_alias(self._root, check_name(alias), None if name is None else self._real(name))

    def create(self, name: str, spec: CollectionSpec, storage: StorageConfig | None = None) -> None:
        """See :meth:`VectorStore.create`. Killed halfway, it leaves no collection of that name.

        Raises:
            InvalidArgumentError: also when shards or replicas are requested.
        """
        self._check_open()
        folder = self._root / check_name(name)
        if is_collection(folder):
            raise CollectionExistsError(
                f"collection {name!r} already exists in {self._root}; choose another name or delete it first"
            )
        if (real := read_alias(self._root, name)) is not None:
            raise alias_conflict(self.address, name, real)
        if not 1 <= spec.dimension <= MAX_DIMENSIONS:
            raise StoreError(
                f"vectors have 1 to {MAX_DIMENSIONS} dimensions, not {spec.dimension}; use another model"
            )
        layout = (storage or StorageConfig()).resolve(spec.dimension)
        create_collection(
            folder, spec, layout, make_shard=lambda path: make_shard(path, spec.dimension, layout)
        )

    def info(self, name: str) -> CollectionSpec:
        """See :meth:`VectorStore.info`."""
        return read_spec(self._folder(name))

    def update_info(self, name: str, spec: CollectionSpec, *, before: CollectionSpec | None = None) -> None:
        """See :meth:`VectorStore.update_info`."""
        name = self._real(name)
        self._opened(name)  # no other process may be writing it
        with self._lock:
            current = self.info(name)
            current.check_successor(name, spec)
            replace_spec(self._root / name, current.with_changes(name, before or current, spec))

    def delete_collection(self, name: str) -> None:
        """See :meth:`VectorStore.delete_collection`; a damaged collection can be deleted too."""
        check_unaliased(self.address, name, self.aliases())
        folder = self._folder(name)
        with self._writer(name), self._lock, map_errors(folder):
            opened = self._open.pop(name, None)
            if opened is None:
                check_idle(folder)
            else:
                opened.shard.close()
            delete_collection(folder)

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        """See :meth:`VectorStore.upsert`. Waits while an index is being built."""
        name = self._real(name)
        points = check_points(ids, vectors, payloads, dimension=self._opened(name).dimension)
        size = points[1].nbytes + len(json.dumps(points[2]))
        with self._writer(name), self._using(name) as shard:
            check_disk_space(self._root / name, size)
            shard.upsert(*points)

    def delete(self, name: str, ids: Sequence[str]) -> None:
        """See :meth:`VectorStore.delete`. Waits while an index is being built."""
        name = self._real(name)
        self._opened(name)
        keys = check_ids(ids)
        with self._writer(name), self._using(name) as shard:
            check_disk_space(self._root / name)
            shard.delete(keys)

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, Record]:
        """See :meth:`VectorStore.get`."""
        name = self._real(name)
        self._opened(name)
        keys = check_ids(ids)
        with self._using(name) as shard:
            return {record.id: record for record in shard.get(keys, with_vectors=with_vectors)}

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        name = self._real(name)

        def query(rows: list[list[float]], limit: int) -> list[list[Hit]]:
            with self._using(name) as shard:
                return shard.query(rows, limit=limit, where=where)

        return best_hits(query, queries, k=k, dimension=self._opened(name).dimension)

    def scroll(
        self, name: str, *, where: Filter | None = None, with_vectors: bool = False
    ) -> Iterator[Record]:
        """See :meth:`VectorStore.scroll`."""
        name = self._real(name)
        self._opened(name)

        def get_page(offset: Any) -> tuple[list[Record], Any]:
            with self._using(name) as shard:
                return shard.scroll_page(offset, where=where, with_vectors=with_vectors)

        return scroll_pages(get_page)

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """See :meth:`VectorStore.count`."""
        with self._using(name) as shard:
            return shard.count(where)

    def facet(self, name: str, field: str, *, where: Filter | None = None) -> dict[str, int] | None:
        """See :meth:`VectorStore.facet`."""
        with self._using(name) as shard:
            return shard.facet(field, where)

    def index_state(self, name: str) -> IndexState:
        """See :meth:`VectorStore.index_state`."""
        with self._using(name) as shard:
            disk = bytes_on_disk(self._folder(name))
            return IndexState(shard.count(), shard.indexed(), disk, shard.layout)

    def build_index(self, name: str) -> None:
        """See :meth:`VectorStore.build_index`. Needs disk space for a second copy.

        A child process builds the graph in the copy, which then replaces the shard: this process goes on
        answering, and killed at any moment it leaves the old state or the new one.
        """
        name = self._real(name)
        folder = self._root / name
        with self._writer(name), map_errors(folder):
            with self._using(name) as shard:
                shard.flush()
                points, dimension, layout = shard.count(), self._open[name].dimension, shard.layout
            with copy_shard(folder) as indexed:
                build_in_subprocess(indexed, dimension, layout)
                self._replace_shard(name, indexed, points)

    def _replace_shard(self, name: str, indexed: Path, points: int) -> None:
        """Replace the shard by one that holds the same points."""
        folder = self._root / name
        with self._using(name) as old:  # other threads wait; raises when the store was closed meanwhile
            opened = self._open.pop(name)  # whatever fails, the next call opens the current shard on disk
            with closing(old), ExitStack() as undo:
                check_disk_space(folder)
                new = undo.enter_context(closing(Shard.load(indexed, old.layout)))
                if new.count() != points:
                    raise StoreError(
                        f"collection {name!r} has {points} points, its new index {new.count()}; "
                        "nothing was changed, build it again"
                    )
                replace_shard(folder, indexed)
                undo.pop_all()
                self._open[name] = _OpenShard(new, opened.dimension)
            remove_stale_shards(folder)

    def hold(self, *, served_at: str | None = None) -> None:
        """See :meth:`VectorStore.hold`: each collection is opened."""
        self._served_at = served_at
        for name in self.list_collections():
            try:
                self._opened(name)
            except StoreBusyError:
                raise
            except StoreError:  # it is damaged, or was deleted meanwhile: the others can be held
                continue
            write_holder(self._root / name, served_at=served_at)

    def flush(self, name: str) -> None:
        """See :meth:`VectorStore.flush`."""
        with self._using(name) as shard:
            shard.flush()

    def close(self) -> None:
        """See :meth:`VectorStore.close`. All shards are closed before an error is raised."""
        with self._lock:
            self._closed = True
            errors: list[LookalikeError] = []
            while self._open:
                name, opened = self._open.popitem()
                remove_holder(self._root / name)
                try:
                    with map_errors(self._root / name):
                        opened.shard.flush()
                        opened.shard.close()
                except LookalikeError as error:
                    errors.append(error)
            if errors:
                raise errors[0]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"store {self._root} is closed; open it again")

    def _folder(self, name: str) -> Path:
        """Return the folder of an existing collection, by its name or an alias."""
        self._check_open()
        if name in self._open:  # a shortcut: no alias has to be read
            return self._root / name
        if is_name(name):
            for real in (name, read_alias(self._root, name)):
                if real is not None and is_collection(self._root / real):
                    return self._root / real
        raise CollectionNotFoundError(f"no collection {name!r} in {self._root}; it has: {self._all_names()}")

    def _real(self, name: str) -> str:
        """Resolve a name or alias once, so that all steps of a call use the same collection."""
        return self._folder(name).name

    def _all_names(self) -> str:
        return ", ".join([*self.list_collections(), *self.aliases()]) or "none"

    def _opened(self, name: str) -> _OpenShard:
        """Return the shard of a collection, opened at first use and kept open."""
        with self._lock:
            folder = self._folder(name)
            if folder.name not in self._open:
                spec = read_spec(folder)
                self._open[folder.name] = _OpenShard(open_shard(folder), spec.dimension)
                write_holder(folder, served_at=self._served_at)
            return self._open[folder.name]

    @contextmanager
    def _using(self, name: str) -> Iterator[Shard]:
        """Yield the shard for one call; it is not replaced meanwhile.

        Serializing calls costs nothing, because Qdrant Edge never releases the GIL.
        """
        with self._lock:
            opened = self._opened(name)
            with map_errors(self._folder(name)):
                yield opened.shard

    def _writer(self, name: str) -> threading.RLock:
        """Return the lock of a collection's writers; acquired before ``_lock``, never after."""
        return self._writers.setdefault(name, threading.RLock())
