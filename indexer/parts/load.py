"""A folder of parts into a collection, part by part: a part that is stored is not sent again.

The last row of a part is stored when all others are: where it stands as it is, the part is done. No other
mark is needed, and none outlives the collection. So any number of processes may load parts into a server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Final

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.detect import Framing
from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.indexer.open import open_store
from lookalike.indexer.parquet import (
    Entry,
    LatentsFile,
    LatentsOf,
    Loading,
    Rows,
    concatenate,
    is_stored,
    store_rows,
    whole_part,
)
from lookalike.indexer.parts.settings import EmbedSettings, open_part
from lookalike.indexer.store import StorageConfig, VectorStore
from lookalike.indexer.sync import SyncReport, face_id, index_when_large
from lookalike.indexer.units import PLAN, Plan, Run, Shard, finished_parts, read_manifest

_LOOKED_AT_TOGETHER: Final = 256
_SENT_TOGETHER: Final = 16
"""Parts that one of several processes stores at a time."""


@dataclass(slots=True)
class LoadReport:
    """What was loaded.

    Attributes:
        rows: What became of the rows of the parts that were read.
        units: How many units the plan, or this share of it, has.
        parts: How many parts were read and stored.
        done: How many were stored before.
        left: How many units have no part yet.
    """

    rows: SyncReport
    units: int = 0
    parts: int = 0
    done: int = 0
    left: int = 0

    def add(self, other: LoadReport) -> None:
        """Count what another process has stored."""
        self.parts += other.parts
        self.done += other.done
        for name in ("added", "changed", "unchanged"):
            setattr(self.rows, name, getattr(self.rows, name) + getattr(other.rows, name))


def load_parts(
    store: VectorStore,
    collection: str,
    plan: Plan[EmbedSettings],
    *,
    shard: Shard | None = None,
    run: Run | None = None,
    root: Path | None = None,
    root_name: str | None = None,
    bundle: Bundle | None = None,
    crop: Framing | None = None,
    storage: StorageConfig | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
    log: Callable[[str], object] = lambda _: None,
    warn: Callable[[str], object] = lambda _: None,
) -> LoadReport:
    """Bring the rows of a folder of parts into a collection, which is created if there is none.

    Killed and run again, it goes on with the part that it was at. Memory holds some parts.

    Args:
        store: The store.
        collection: Name or alias of the collection.
        plan: The plan of the folder.
        shard: Only the parts of this share; None: all.
        run: Where parts are stored, by several processes at once; None: here.
        root: As in :func:`load_latents`.
        root_name: The same.
        bundle: The same.
        crop: The same.
        storage: Storage options of a new collection; the number of rows is known.
        on_total: Called with the number of units.
        on_progress: Called with the number of units done.
        log: Called with one-line messages, as of the start of building an index.
        warn: Called with one-line warnings.

    Raises:
        ModelMismatchError, InvalidArgumentError, StoreError: as :func:`load_latents` says.
        InvalidArgumentError: several processes are to write to a store that has one writer.
        DataError: a part is damaged; those before it are stored.
    """
    began = time.monotonic()
    if run is not None and not store.shared:
        raise InvalidArgumentError(
            f"parts are loaded by several processes into a Qdrant server, {printable(store.address)} has one "
            "writer at a time; leave --engine out, or name a server with --store http://..."
        )
    storage = storage or StorageConfig()
    finished = read_manifest(plan)
    rows = plan.images if finished is None else finished.rows
    described = LatentsOf(Path(PLAN), plan.settings.spec, rows)
    loading = Loading.checked(
        store, collection, [described], root=root, root_name=root_name, bundle=bundle, crop=crop
    )
    compare = loading.begin(store, storage.with_known(expect=rows), warn)
    report = LoadReport(SyncReport(collection=loading.name), len((shard or Shard()).slice(plan.count)))
    on_total(report.units)
    if storage.defer_index and not store.index_state(loading.name).deferred:
        warn(f"{loading.name} was made before and keeps its search index: --defer-index changes nothing")
    pieces = _present_parts(
        plan, report, shard, on_progress, count=_LOOKED_AT_TOGETHER if run is None else _SENT_TOGETHER
    )
    if run is None:
        load = _Load(
            store_=store, plan=plan, loading=loading, report=report, on_progress=on_progress, compare=compare
        )
        for parts in pieces:
            load.store(parts)
        load.finish()
    else:

        def on_done(some: LoadReport) -> None:
            report.add(some)
            on_progress(some.parts + some.done)

        run(pieces, LoadJob(store.address, plan, loading, compare), on_done)
    store.flush(loading.name)
    report.rows.seconds = time.monotonic() - began
    if shard is None or shard.count == 1:
        index_when_large(store, loading.name, log=log)
    loading.warn_of_foreign_roots(warn)
    return report


def _present_parts(
    plan: Plan[EmbedSettings],
    report: LoadReport,
    shard: Shard | None,
    on_progress: Callable[[int], object],
    *,
    count: int,
) -> Iterator[list[str]]:
    """Yield the parts that are there, some together, and count those that are not."""
    present = finished_parts(plan.folder)
    parts = iter(plan.parts(shard))
    while some := list(islice(parts, count)):
        there = [part for part in some if part in present]
        report.left += len(some) - len(there)
        on_progress(len(some) - len(there))
        if there:
            yield there


@dataclass(frozen=True, slots=True)
class LoadJob:
    """What stores some parts in any process; it can be pickled.

    Attributes:
        address: The store.
        plan: The plan of the folder.
        loading: The collection, which is there.
        compare: Whether rows must be compared with it.
    """

    address: str
    plan: Plan[EmbedSettings]
    loading: Loading
    compare: bool

    def __call__(self, parts: list[str]) -> LoadReport:
        """Store parts, and return what became of them.

        Raises:
            DataError, StoreError: as :func:`load_parts` says.
        """
        report = LoadReport(SyncReport(collection=self.loading.name))
        load = _Load(
            store_=_opened(self.address),
            plan=self.plan,
            loading=self.loading,
            report=report,
            compare=self.compare,
        )
        load.store(parts)
        load.finish()
        return report


@cache
def _opened(address: str) -> VectorStore:
    """Return a store, which stays open as long as the process."""
    return open_store(address)


@dataclass(slots=True, kw_only=True)
class _Load:
    """Parts on their way into a store; ``held`` are small ones that are stored together."""

    store_: VectorStore
    plan: Plan[EmbedSettings]
    loading: Loading
    report: LoadReport
    on_progress: Callable[[int], object] = lambda _: None
    compare: bool
    held: list[Rows] = field(default_factory=list)

    def without_stored(self, parts: list[str]) -> list[str]:
        """Return the parts whose last row is not stored as it is."""
        last: dict[str, Entry] = {}
        for part in parts:
            with self._opened(part) as opened:
                entry = opened.last_entry()
            if entry is not None:
                root = self.loading.root_names[0][entry.root]
                last[part] = entry._replace(root=root)
        ids = {part: face_id(entry.root, entry.path, entry.face) for part, entry in last.items()}
        stored = self.store_.get(self.loading.name, list(ids.values())) if ids else {}
        done = {part for part in parts if part not in last or is_stored(stored.get(ids[part]), last[part])}
        self.report.done += len(done)
        self.on_progress(len(done))
        return [part for part in parts if part not in done]

    def store(self, parts: list[str]) -> None:
        """Store the parts that are not stored yet; small ones may be held."""
        for part in self.without_stored(parts) if self.compare else parts:
            with self._opened(part) as opened:
                self.held.append(whole_part(opened, self.loading.root_names[0]))
            if sum(len(rows.entries) for rows in self.held) >= self.store_.piece:
                self.finish()

    def finish(self) -> None:
        """Store what is held: the last row of each part when all others are stored."""
        for which in (slice(-1), slice(-1, None)):
            pieces = [Rows(rows.entries[which], rows.vectors[which]) for rows in self.held]
            if any(rows.entries for rows in pieces):
                rows, report = concatenate(pieces), self.report.rows
                store_rows(self.store_, self.loading.name, rows, report, compare=self.compare)
        self.report.parts += len(self.held)
        self.on_progress(len(self.held))
        self.held.clear()

    @contextmanager
    def _opened(self, part: str) -> Iterator[LatentsFile]:
        spec, folder = self.plan.settings.spec, self.plan.folder
        with LatentsFile.open(Path(part), open_part(folder, part)) as opened:
            if not opened.spec.same_embedding(spec) or not opened.spec.roots.keys() <= spec.roots.keys():
                raise DataError(
                    f"{printable(folder.join(part))} is of another model, crop or source than {PLAN}; remove "
                    "it and embed again"
                )
            yield opened
