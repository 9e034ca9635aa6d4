"""A folder of parts into a collection, part by part: a part that is stored is not sent again.

The last row of a part is stored when all others are: where it stands as it is, the part is done. No other
mark is needed, and none outlives the collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.detect import Framing
from lookalike.encoder.errors import DataError, printable
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
from lookalike.indexer.units import PLAN, Plan, Shard, finished_parts, read_manifest

_LOOKED_AT_TOGETHER: Final = 256


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


def load_parts(
    store: VectorStore,
    collection: str,
    plan: Plan[EmbedSettings],
    *,
    shard: Shard | None = None,
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
        DataError: a part is damaged; those before it are stored.
    """
    began = time.monotonic()
    finished = read_manifest(plan)
    rows = plan.images if finished is None else finished.rows
    described = LatentsOf(Path(PLAN), plan.settings.spec, rows)
    loading = Loading.checked(
        store, collection, [described], root=root, root_name=root_name, bundle=bundle, crop=crop
    )
    compare = loading.begin(store, (storage or StorageConfig()).with_known(expect=rows), warn)
    report = LoadReport(SyncReport(collection=loading.name), len((shard or Shard()).slice(plan.count)))
    on_total(report.units)
    load = _Load(store, plan, loading, report, on_progress, compare=compare)
    present = finished_parts(plan.folder)
    parts = iter(plan.parts(shard))
    while some := list(islice(parts, _LOOKED_AT_TOGETHER)):
        there = [part for part in some if part in present]
        report.left += len(some) - len(there)
        on_progress(len(some) - len(there))
        load.store(load.without_stored(there) if compare else there)
    load.finish()
    store.flush(loading.name)
    report.rows.seconds = time.monotonic() - began
    if shard is None or shard.count == 1:
        index_when_large(store, loading.name, log=log)
    loading.warn_of_foreign_roots(warn)
    return report


@dataclass(slots=True)
class _Load:
    """One call of :func:`load_parts`; ``held`` are small parts that are stored together."""

    store_: VectorStore
    plan: Plan[EmbedSettings]
    loading: Loading
    report: LoadReport
    on_progress: Callable[[int], object]
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

    def store(self, parts: Iterable[str]) -> None:
        """Store parts, of which small ones may be held."""
        for part in parts:
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
