"""Bring a collection up to date with its sources: compare, embed what is new, store it, report.

Legend: N points, D dimensions of an embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.embed import (
    PROCESSES_FROM,
    EmbeddedBatch,
    FileInfo,
    Workers,
    embed_files,
    file_info,
    fork_workers,
)
from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.indexer.sources import Source, SourceList, Sources, numeric_fields
from lookalike.indexer.store import (
    MOVED_TO,
    CollectionSpec,
    Payload,
    Record,
    StorageConfig,
    VectorStore,
    resolve_alias,
)
from lookalike.indexer.sync.collection import (
    ignored_options_warning,
    index_when_large,
    open_sources,
    prefetch,
    prepare_collection,
    with_sources,
)
from lookalike.indexer.sync.plan import (
    SourceScan,
    SyncPlan,
    ToEmbed,
    ToUpdate,
    all_new,
    chunked,
    kept_payload,
    make_plan,
    payload_of,
)
from lookalike.indexer.sync.predict import attributes_to_predict, predict_attributes
from lookalike.indexer.sync.renamed import absorb_doubles, check_renamed

Status = Literal["added", "changed", "moved", "relabelled", "missing", "failed"]


@dataclass(frozen=True, slots=True)
class SyncEvent:
    """What happened to one item.

    Attributes:
        status: added, changed (other bytes), moved (same bytes under another path), relabelled (only its
            payload changed), missing (stored, but the file is gone) or failed.
        path: Path relative to its root; of a failed file, the file itself.
        root: Name of its root; empty when it has none.
        detail: Previous path of a moved item, reason of a failed one.
    """

    status: Status
    path: str
    root: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """Return JSON values, without empty ones."""
        detail = {"moved": "from", "failed": "reason"}.get(self.status, "detail")
        values = {"status": self.status, "path": self.path, "root": self.root, detail: self.detail}
        return {key: value for key, value in values.items() if value}


@dataclass(slots=True)
class SyncReport:
    """The result of a sync; counts are of items.

    Attributes:
        collection: Name of the collection.
        provider: What the model ran on (``cpu``, ``cuda``); None when nothing could be embedded.
        added: Stored for the first time.
        changed: Stored again because size, time or checksum of the file differ.
        moved: Stored under another path with the same content; not embedded again.
        relabelled: Only their payload changed; not embedded again.
        unchanged: Left as they were.
        missing: Stored, but no longer in the sources; removed when ``pruned``.
        pruned: Whether the missing ones were removed.
        dry: Whether it was a dry run: the counts say what would happen.
        failed: Path and one-line reason.
        passed_over: What folders hold beside images that can be read: kind to how many.
        seconds: From comparing the sources to the last flush.
        predicted: For how many items attributes were predicted; None when no attribute was asked for.
    """

    collection: str = ""
    provider: str | None = None
    added: int = 0
    changed: int = 0
    moved: int = 0
    relabelled: int = 0
    unchanged: int = 0
    missing: int = 0
    pruned: bool = False
    dry: bool = False
    failed: list[tuple[str, str]] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    predicted: int | None = None

    @property
    def stored(self) -> int:
        """Images that were written."""
        return self.added + self.changed + self.moved + self.relabelled

    @property
    def seen(self) -> int:
        """Images that were found in the sources, and folders that could not be listed."""
        return self.stored + self.unchanged + len(self.failed)

    @property
    def images_per_second(self) -> float:
        """Embedded images per second of the whole run."""
        return (self.added + self.changed) / self.seconds if self.seconds and not self.dry else 0.0

    def summary(self) -> str:
        """Return one line for people."""
        optional = {"moved": self.moved, "relabelled": self.relabelled}
        counts = [f"{self.added} added", f"{self.changed} changed"]
        counts += [f"{count} {kind}" for kind, count in optional.items() if count]
        counts += [f"{self.unchanged} unchanged", f"{self.missing} missing{' and removed' * self.pruned}"]
        line = f"{', '.join(counts)}, {len(self.failed)} failed"
        return f"dry run, nothing was changed; it would be {line}" if self.dry else line

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ``predicted`` only when attributes were asked for."""
        values = asdict(self)
        if self.predicted is None:
            del values["predicted"]
        return {
            **values,
            "failed": [{"path": path, "reason": reason} for path, reason in self.failed],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


_DURABLE_TOGETHER: Final = 1024
DEGENERATE: Final = "the model sees nothing in it that could be compared; leave it out"


def sync(
    store: VectorStore,
    collection: str,
    model: Model,
    sources: Sources,
    *,
    crop: Crop | None = None,
    storage: StorageConfig | None = None,
    predict: Sequence[str] = (),
    prune: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    max_pixels: int | None = None,
    processes: bool = False,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
    on_event: Callable[[SyncEvent], object] = lambda _: None,
    log: Callable[[str], object] = lambda _: None,
) -> SyncReport:
    """Bring a collection up to date with its sources; it is created if there is none.

    Files whose size and time are as stored are not opened. A batch that was stored is durable before the next
    is stored, so a run that is killed and started again ends where a whole run ends. A collection that has
    grown large gets a search index at the end.

    Args:
        store: The store.
        collection: Name or alias of the collection.
        model: The model whose embeddings it holds.
        sources: What it should hold: paths or names (a folder, an image file, a tar archive, ``lfw``,
            ``mnist``), opened sources, or :class:`SourceList` with the options of reading them.
        crop: How the images are framed; None: as the collection remembers, or the model's own crop.
        storage: Storage options of a new collection; for an existing one they are ignored, with a warning.
        predict: Attributes of the model to predict for each item, where no table knows them.
        prune: Remove items that are stored under a source and no longer in it.
        checksum: Compare SHA-256 instead of size and time, and each stored vector with its checksum; each
            image is read once.
        dry_run: Only compare: nothing is embedded, stored or removed.
        max_pixels: Larger images fail; None: the default limit.
        processes: Allow worker processes for embedding, see :func:`embed_files`.
        on_total: Called with the number of images to read: before the first, or for an empty collection on
            the way.
        on_progress: Called after each batch with the number of images done.
        on_event: Called for each item that is not unchanged, once that is durable.
        log: Called with one-line messages: ignored options, the start of building an index.

    Raises:
        ModelMismatchError: the collection holds vectors of another model or crop.
        InvalidArgumentError: a name is not allowed, the model has no such attribute, two sources have one
            root name and different folders, or a new folder holds the images of a root whose folder is gone.
        DataError: a source does not exist, an archive cannot be read, or pruning would remove everything, or
            everything in a folder that is there and empty (an unmounted disk looks like that).
        StoreError: the store failed; what was acknowledged before stays.
    """
    attributes = attributes_to_predict(model, predict)
    name = resolve_alias(store, collection)
    opened = open_sources(store, name, sources)
    storage = storage or StorageConfig()
    warning = ignored_options_warning(store, name, storage)
    fields = [*numeric_fields(opened), *(each.name for each in attributes)]
    expected = sum(len(source.listed or ()) for source in opened)
    options = storage.with_known(expect=expected, numeric_fields=fields)
    before = prepare_collection(store, name, model, crop=crop, storage=options)
    if warning is not None:
        log(warning)
    report = SyncReport(collection=name, provider=model.provider, pruned=prune and not dry_run, dry=dry_run)
    began = time.monotonic()
    if not (isinstance(sources, SourceList) and sources.root_name is not None):
        check_renamed(store, name, before, opened)
    spec = with_sources(before if dry_run else absorb_doubles(store, name, before, opened, log), opened)
    run = _Run(store, name, model, spec, max_pixels, processes, SyncReporter(report, on_event))
    scan = SourceScan(opened)
    with ExitStack() as stack:
        # Forked before the store's vectors are opened, and threads with them. Only a collection without
        # roots, which nothing was ever loaded into, is known to be empty before; in another one there may be
        # nothing to embed.
        workers: Workers | None = None
        if processes and not dry_run and not before.roots and scan.at_least(PROCESSES_FROM):
            workers = fork_workers(model, crop=Crop.parse(spec.crop), max_pixels=max_pixels)
            if workers is not None:
                stack.enter_context(closing(workers))
        entries = run.make_plan(scan, checksum=checksum, on_total=on_total)
        if prune:
            _check_pruning(name, opened, run.plan)
        if dry_run:
            run.dry_run(entries)
        else:
            if spec != before:
                store.update_info(name, spec)
            run.write(entries, workers, on_progress, prune=prune)
    run.report_scan(scan)
    report.seconds = time.monotonic() - began
    if attributes:
        report.predicted = 0 if dry_run else predict_attributes(store, name, attributes)
    if not dry_run:
        index_when_large(store, name, log=log)
    return report


@dataclass(slots=True)
class SyncReporter:
    """Counts each item in the report and passes it on as an event."""

    report: SyncReport
    on_event: Callable[[SyncEvent], object]

    def event(self, status: Status, path: str, root: str = "", detail: str = "") -> None:
        """Count an item that is stored, or missing."""
        setattr(self.report, status, getattr(self.report, status) + 1)
        self.on_event(SyncEvent(status, path, root, detail))

    def failed(self, path: str, reason: str, root: str = "") -> None:
        """Note a file that could not be read."""
        self.report.failed.append((path, reason))
        self.on_event(SyncEvent("failed", path, root, reason))


def _check_pruning(name: str, sources: Sequence[Source], plan: SyncPlan) -> None:
    if plan.missing and not (plan.to_embed or plan.to_update or plan.unchanged):
        folders = ", ".join(printable(str(source.root)) for source in sources)
        raise DataError(
            f"--prune removes what has left a folder, but no image at all is left in {folders}, which held "
            f"{len(plan.missing)}; mount it, or drop the collection with lookalike collections delete {name}"
        )
    if plan.emptied:
        folder, count = next(iter(plan.emptied.items()))
        raise DataError(
            f"--prune removes what has left a folder, but {printable(folder)} is there and empty, and held "
            f"{count}; mount what belongs there, or remove the empty folder, and run it again"
        )


@dataclass(slots=True)
class _Run:
    """One call of :func:`sync`."""

    store: VectorStore
    name: str
    model: Model
    spec: CollectionSpec
    max_pixels: int | None
    processes: bool
    reporter: SyncReporter
    plan: SyncPlan = field(default_factory=SyncPlan)

    def make_plan(
        self, scan: SourceScan, *, checksum: bool, on_total: Callable[[int], object]
    ) -> Iterable[ToEmbed]:
        """Return the entries to read; for an empty collection they come as they are found."""
        if not self.store.count(self.name):
            return prefetch(all_new(scan), on_total)
        self.plan = make_plan(self.store, self.name, scan, checksum=checksum)
        self.reporter.report.unchanged = self.plan.unchanged
        on_total(len(self.plan.to_embed))
        return self.plan.to_embed

    def dry_run(self, entries: Iterable[ToEmbed]) -> None:
        """Report what would be done."""
        for update in self.plan.to_update:
            self._report_update(update)
        for entry in entries:
            info = file_info(entry.item.where) if entry.known_hashes else None
            if info is not None and info.sha256 in entry.known_hashes:
                self._report_update(self._resolve_known(entry, info))
            else:
                self._report_embedded(entry)

    def write(
        self,
        entries: Iterable[ToEmbed],
        workers: Workers | None,
        on_progress: Callable[[int], object],
        *,
        prune: bool,
    ) -> None:
        """Carry out the plan; everything is durable when this returns."""
        if self.plan.superseded:
            self.store.delete(self.name, self.plan.superseded)
        self.apply_updates(self.plan.to_update)
        stream = embed_files(
            self.model,
            ((entry, entry.item.where) for entry in entries),
            crop=Crop.parse(self.spec.crop),
            max_pixels=self.max_pixels,
            processes=self.processes,
            workers=workers,
            known_hashes=attrgetter("known_hashes"),
        )
        self.store_embedded(stream, on_progress)
        if prune and self.plan.missing:
            self.store.delete(self.name, list(self.plan.missing))
        deleted = self.plan.superseded or (prune and self.plan.missing)
        if self.reporter.report.stored or deleted:  # else there is nothing to flush
            self.store.flush(self.name)

    def apply_updates(self, updates: Iterable[ToUpdate]) -> None:
        """Store items with the vectors that are stored already; each chunk is taken when the last is written.

        The old point of a moved item is deleted last, so that nothing is lost where the disk is full or the
        run is killed. It is marked first: the next run knows by that that it may delete it.
        """
        store, name = self.store, self.name
        for chunk in chunked(updates, _DURABLE_TOGETHER):
            stored = store.get(name, [update.stored_id for update in chunk], with_vectors=True)
            moved = [update.stored_id for update in chunk if update.status == "moved"]
            vectors = np.array([stored[update.stored_id].undamaged_vector() for update in chunk], np.float32)
            payloads = [_updated_payload(update, stored[update.stored_id]) for update in chunk]
            new_ids = [update.item.id for update in chunk]
            if moved:
                is_moved = [update.status == "moved" for update in chunk]
                marked = [
                    {**stored[update.stored_id].payload, MOVED_TO: update.item.id}
                    for update in chunk
                    if update.status == "moved"
                ]
                store.upsert(name, moved, vectors[is_moved], marked)
            store.upsert(name, new_ids, vectors, payloads)
            if moved:
                store.delete(name, moved)
            for update in chunk:
                self.plan.mark_written(update)
                self._report_update(update)

    def store_embedded(
        self, stream: Generator[EmbeddedBatch[ToEmbed]], on_progress: Callable[[int], object]
    ) -> None:
        """Store what is embedded, and what turns out to be known."""
        with closing(stream):
            for batch in coalesce(map(drop_degenerate, stream), _DURABLE_TOGETHER):
                if batch.keys:
                    ids = [entry.item.id for entry in batch.keys]
                    self.store.upsert(self.name, ids, batch.embeddings, self._payloads(batch))
                for entry in batch.keys:
                    self._report_embedded(entry)
                for entry, reason in batch.failures:
                    self.reporter.failed(printable(str(entry.item.file)), reason, entry.root_name)
                known = (self._resolve_known(entry, info) for entry, info in batch.skipped)
                self.apply_updates(update for update in known if update is not None)
                on_progress(_size(batch))

    def _payloads(self, batch: EmbeddedBatch[ToEmbed]) -> list[Payload]:
        """Return the payloads to store; of a file with other bytes, what earlier tables said stays."""
        changed = [entry.item.id for entry in batch.keys if not entry.new and entry.item.payload is None]
        before = self.store.get(self.name, changed) if changed else {}
        payloads: list[Payload] = []
        for entry, info in zip(batch.keys, batch.facts, strict=True):
            new, old = payload_of(entry.item, entry.root_name, info), before.get(entry.item.id)
            kept = {} if old is None else kept_payload(old.payload, entry.item, same_content=False)
            payloads.append({**new, **kept})
        return payloads

    def report_scan(self, scan: SourceScan) -> None:
        """Report folders that could not be listed, what was passed over in others, and missing items."""
        self.reporter.report.passed_over = dict(scan.skipped.most_common())
        for folder, reason in scan.unreadable:
            self.reporter.failed(folder, f"{folder}: {reason}")
        for path in self.plan.missing.values():
            self.reporter.event("missing", path)

    def _resolve_known(self, entry: ToEmbed, info: FileInfo) -> ToUpdate | None:
        update = self.plan.resolve_known(entry, info)
        self.reporter.report.unchanged += update is None
        return update

    def _report_update(self, update: ToUpdate | None) -> None:
        if update is not None:
            self.reporter.event(update.status, update.item.path, update.root_name, update.previous_path)

    def _report_embedded(self, entry: ToEmbed) -> None:
        self.reporter.event("added" if entry.new else "changed", entry.item.path, entry.root_name)


def _updated_payload(update: ToUpdate, before: Record) -> Payload:
    """Return the payload to store; without a table now, what an earlier table said stays."""
    new = payload_of(update.item, update.root_name, update.info)
    if update.item.payload is not None or update.status == "added":
        return new
    return {**new, **kept_payload(before.payload, update.item, same_content=True)}


def drop_degenerate(batch: EmbeddedBatch[ToEmbed]) -> EmbeddedBatch[ToEmbed]:
    """Move images whose embedding is zero or not finite to the failures: no store takes them."""
    rows = batch.embeddings
    good: NDArray[np.bool_] = np.logical_and(np.isfinite(rows).all(axis=1), rows.any(axis=1))
    if good.all():
        return batch
    dropped = [entry for entry, is_good in zip(batch.keys, good, strict=True) if not is_good]
    return EmbeddedBatch(
        [entry for entry, is_good in zip(batch.keys, good, strict=True) if is_good],
        [info for info, is_good in zip(batch.facts, good, strict=True) if is_good],
        rows[good],
        batch.failures + [(entry, f"{printable(str(entry.item.file))}: {DEGENERATE}") for entry in dropped],
        batch.skipped,
    )


def coalesce(stream: Iterator[EmbeddedBatch[ToEmbed]], size: int) -> Iterator[EmbeddedBatch[ToEmbed]]:
    """Join batches: making a batch durable costs a store the same for a few points as for a thousand."""
    held: list[EmbeddedBatch[ToEmbed]] = []
    for batch in stream:
        held.append(batch)
        if sum(map(_size, held)) >= size:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(batches: Sequence[EmbeddedBatch[ToEmbed]]) -> EmbeddedBatch[ToEmbed]:
    return EmbeddedBatch(
        [entry for batch in batches for entry in batch.keys],
        [info for batch in batches for info in batch.facts],
        np.concatenate([batch.embeddings for batch in batches]),
        [failure for batch in batches for failure in batch.failures],
        [skipped for batch in batches for skipped in batch.skipped],
    )


def _size(batch: EmbeddedBatch[ToEmbed]) -> int:
    """Return how many images a batch is about."""
    return len(batch.keys) + len(batch.failures) + len(batch.skipped)
