"""The embedded store: Qdrant Edge shards in a folder. The one module that names ``qdrant_edge``.

::

    <folder>/<collection>/collection.json   what the collection remembers (CollectionSpec)
    <folder>/<collection>/shard/            vectors, payloads and write-ahead log, written by Qdrant Edge
    <folder>/.making-*  .dropped-*          remains of a create or drop that was killed; swept by the next one

One process at a time holds a collection, from its first use of the vectors until :meth:`EdgeStore.close`.
Searches are exact: no HNSW graph is ever built here (one query over 100,000 x 128 takes some 5 ms).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import qdrant_edge as qe
from numpy.typing import NDArray

from encoder.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    LookalikeError,
    OptionError,
    StoreBusyError,
    StoreError,
)
from indexer.store import (
    CollectionSpec,
    Filter,
    Hit,
    Payload,
    Record,
    check_ids,
    check_name,
    check_points,
    check_vectors,
    is_name,
    rank,
)

__all__ = ["EdgeStore"]

SPEC_FILE: Final = "collection.json"
SPEC_DRAFT: Final = "collection.json.new"
SHARD: Final = "shard"
SHARD_PARTS: Final = {"wal", "segments", "edge_config.json"}
POINTS_PER_UPDATE: Final = 4096  # bounds one entry of the write-ahead log
PAGE: Final = 1000
MOST_DIMENSIONS: Final = 65_536  # the server's limit; Qdrant Edge itself has none
STALE_SECONDS: Final = 3600  # a create takes under a second: an hour later its maker is gone


@dataclass(frozen=True, slots=True)
class _Opened:
    """A shard this store holds, and the dimension D of its vectors."""

    shard: qe.EdgeShard
    dimension: int


class EdgeStore:
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
        with _mapped(self._root):
            if not self._root.exists():
                return []
            return sorted(p.name for p in self._root.iterdir() if is_name(p.name) and _holds_spec(p))

    def create(self, name: str, spec: CollectionSpec) -> None:
        """See :meth:`VectorStore.create`. Killed half-way, it leaves no collection of that name."""
        self._check_open()
        folder = self._root / check_name(name)
        if _holds_spec(folder):
            raise CollectionExistsError(
                f"collection {name!r} is in {self._root} already; choose another name or delete it first"
            )
        if not 1 <= spec.dimension <= MOST_DIMENSIONS:
            raise StoreError(
                f"vectors have 1 to {MOST_DIMENSIONS} dimensions, not {spec.dimension}; use another model"
            )
        with _mapped(folder):
            self._root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            if _is_half_made(folder):
                self._discard(folder)
            making = self._root / f".making-{name}-{secrets.token_hex(4)}"
            try:
                _make_shard(making / SHARD, spec.dimension)
                _write_spec(making, spec)
                _sync_tree(making)
                _move_in(making, folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
            _sync(self._root)

    def describe(self, name: str) -> CollectionSpec:
        """See :meth:`VectorStore.describe`."""
        file = self._folder(name) / SPEC_FILE
        with _mapped(file):
            content = file.read_bytes()
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise StoreError(
                f"{file} is damaged; put it back from a copy, or delete the collection and index again"
            )
        return CollectionSpec.from_json(value, where=str(file))

    def redescribe(self, name: str, spec: CollectionSpec) -> None:
        """See :meth:`VectorStore.redescribe`."""
        self._opened(name)  # nobody else may be writing it
        self.describe(name).check_successor(name, spec)
        folder = self._folder(name)
        with _mapped(folder):
            _write_spec(folder, spec)

    def drop(self, name: str) -> None:
        """See :meth:`VectorStore.drop`; a damaged collection can be dropped too."""
        folder = self._folder(name)
        with self._lock, _mapped(folder):
            opened = self._open.pop(name, None)
            if opened is None:
                _check_idle(folder / SHARD)
            else:
                opened.shard.close()
            self._discard(folder)
            self._sweep()

    def upsert(
        self, name: str, ids: Sequence[str], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        """See :meth:`VectorStore.upsert`."""
        opened = self._opened(name)
        keys, rows, fields = check_points(ids, vectors, payloads, dimension=opened.dimension)
        with _mapped(self._root / name):
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
        with _mapped(self._root / name):
            opened.shard.update(qe.UpdateOperation.delete_points(keys))
            opened.shard.flush()

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        opened = self._opened(name)
        if k < 1:
            raise OptionError(f"k must be at least 1, {k} is not; ask for one hit or more")
        rows = check_vectors(queries, dimension=opened.dimension).tolist()
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
            with _mapped(self._root / name):
                answers = opened.shard.query_batch(qe.QueryBatchRequest(requests))
                return [[Hit(str(p.id), p.score, p.payload or {}) for p in answer] for answer in answers]

        def rest(row: list[float], first: list[Hit]) -> list[Hit]:
            return rank(first, k=k, fetch=lambda limit: ask([row], limit)[0])

        return [rest(row, first) for row, first in zip(rows, ask(rows, k + 1), strict=True)] if rows else []

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
            with _mapped(self._root / name):
                request = qe.ScrollRequest(
                    offset=offset, limit=PAGE, filter=where, with_payload=True, with_vector=with_vectors
                )
                points, offset = opened.shard.scroll(request)
            for point in points:
                vector = np.array(point.vector, dtype=np.float32) if with_vectors else None
                yield Record(str(point.id), point.payload or {}, vector)
            if offset is None:
                return

    def count(self, name: str, *, where: Filter | None = None) -> int:
        """See :meth:`VectorStore.count`."""
        opened = self._opened(name)
        with _mapped(self._root / name):
            return opened.shard.count(qe.CountRequest(exact=True, filter=_filter(where)))

    def flush(self, name: str) -> None:
        """See :meth:`VectorStore.flush`."""
        opened = self._opened(name)
        with _mapped(self._root / name):
            opened.shard.flush()

    def close(self) -> None:
        """See :meth:`VectorStore.close`. Every shard is let go before what went wrong is raised."""
        with self._lock:
            self._closed = True
            failed: list[LookalikeError] = []
            while self._open:
                name, opened = self._open.popitem()
                try:
                    with _mapped(self._root / name):
                        opened.shard.flush()
                        opened.shard.close()
                except LookalikeError as error:
                    failed.append(error)
            if failed:
                raise failed[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"store {self._root} is closed; open it again")

    def _folder(self, name: str) -> Path:
        """Return the folder of a collection that is there."""
        self._check_open()
        if not is_name(name) or not _holds_spec(self._root / name):
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
                with _mapped(folder):
                    self._open[name] = _Opened(qe.EdgeShard.load(str(folder / SHARD)), spec.dimension)
            return self._open[name]

    def _discard(self, folder: Path) -> None:
        # Renamed first: at no moment is there half a collection under its name.
        dropped = self._root / f".dropped-{folder.name}-{secrets.token_hex(4)}"
        folder.rename(dropped)
        _sync(self._root)
        shutil.rmtree(dropped, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed creates and drops left behind."""
        for left in self._root.glob(".dropped-*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in self._root.glob(".making-*"):
            if left.stat().st_mtime < time.time() - STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _mapped(place: Path) -> Iterator[None]:
    """The boundary: whatever Qdrant Edge or the file system raises leaves as a StoreError with ``place``."""
    try:
        yield
    except LookalikeError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"store {place}: {reason}; check that it is a folder you may write to") from error
    except Exception as error:
        # Qdrant Edge raises bare Exception, with the kind in the text only.
        reason = " ".join(str(error).split())[:200]
        if "WouldBlock" in reason:
            raise StoreBusyError(
                f"collection folder {place} is in use by another process; wait until it ends, "
                "or share the collection through a Qdrant server"
            ) from error
        raise StoreError(f"collection folder {place}: {reason}; if it is damaged, index again") from error
    except BaseException as error:
        # A Rust panic is no Exception; its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise StoreError(f"collection folder {place}: {reason}; if it is damaged, index again") from error


def _filter(where: Filter | None) -> qe.Filter | None:
    if where is None:
        return None
    must: list[Any] = []
    must_not: list[Any] = []
    for condition in where.conditions:
        path, value = condition.path, condition.value
        match condition.op:
            case "=" | "!=" as op:
                # Handed a Python bool, the binding matches the integer 0 or 1 instead; a numpy one it takes.
                exact: Any = np.bool_(value) if isinstance(value, bool) else value
                test = qe.FieldCondition(path, match=qe.MatchValue(exact))
                (must if op == "=" else must_not).append(test)
            case "<":
                must.append(qe.FieldCondition(path, range=qe.RangeFloat(lt=float(value))))
            case "<=":
                must.append(qe.FieldCondition(path, range=qe.RangeFloat(lte=float(value))))
            case ">":
                must.append(qe.FieldCondition(path, range=qe.RangeFloat(gt=float(value))))
            case ">=":
                must.append(qe.FieldCondition(path, range=qe.RangeFloat(gte=float(value))))
    if where.not_ids:
        must_not.append(qe.HasIdCondition(set(check_ids(where.not_ids))))
    return qe.Filter(must=must, must_not=must_not)


def _holds_spec(folder: Path) -> bool:
    return (folder / SPEC_FILE).is_file()


def _is_half_made(folder: Path) -> bool:
    """Whether a folder without a spec holds only parts of a collection; a user's files are not ours."""
    if not folder.is_dir():
        return False
    inside = {p.name for p in folder.iterdir()}
    shard = folder / SHARD
    return inside <= {SHARD, SPEC_DRAFT} and (
        not shard.is_dir() or {p.name for p in shard.iterdir()} <= SHARD_PARTS
    )


def _make_shard(path: Path, dimension: int) -> None:
    vectors = qe.EdgeVectorParams(size=dimension, distance=qe.Distance.Cosine)
    path.mkdir(parents=True)
    shard = qe.EdgeShard.create(str(path), qe.EdgeConfig(vectors=vectors, wal_enabled=True))
    shard.update(qe.UpdateOperation.create_field_index("person", qe.PayloadSchemaType.Keyword))
    shard.flush()
    shard.close()


def _move_in(making: Path, folder: Path) -> None:
    try:
        making.rename(folder)
    except OSError:
        if _holds_spec(folder):  # another process was quicker
            raise CollectionExistsError(
                f"collection {folder.name!r} is in {folder.parent} already; choose another name"
            ) from None
        if folder.exists():
            raise StoreError(
                f"{folder} is there and is no lookalike collection; choose another name or store folder"
            ) from None
        raise


def _check_idle(shard: Path) -> None:
    """Raise StoreBusyError when another process holds the shard; one that cannot be opened is idle."""
    try:
        with _mapped(shard.parent):
            qe.EdgeShard.load(str(shard)).close()
    except StoreBusyError:
        raise
    except StoreError:
        return


def _write_spec(folder: Path, spec: CollectionSpec) -> None:
    draft = folder / SPEC_DRAFT
    with draft.open("w", encoding="utf-8") as file:
        json.dump(spec.to_json(), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / SPEC_FILE)
    _sync(folder)


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to disk."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere folders cannot be opened
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
