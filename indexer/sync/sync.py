"""Bring a collection up to date with its sources: compare, embed what is new, store it, report.

Legend: N points, D dimensions of an embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from operator import attrgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Framing, parse_framing
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
from lookalike.encoder.runtime import Model
from lookalike.indexer.sources import Item, Source, SourceList, Sources, numeric_fields
from lookalike.indexer.store import (
    FACE,
    MOVED_TO,
    CollectionSpec,
    Payload,
    Record,
    StorageConfig,
    VectorStore,
    group_payload,
    resolve_alias,
)
from lookalike.indexer.sync.collection import (
    check_faces,
    ignored_options_warning,
    index_when_large,
    open_sources,
    prefetch,
    prepare_collection,
    with_sources,
)
from lookalike.indexer.sync.degenerate import drop_degenerate
from lookalike.indexer.sync.faces import (
    face_count,
    face_id,
    face_number,
    face_payloads,
    face_vectors,
    more_ids,
    with_more,
)
from lookalike.indexer.sync.plan import (
    SourceScan,
    SyncPlan,
    ToEmbed,
    ToUpdate,
    all_new,
    chunked,
    folder_person,
    kept_payload,
    make_plan,
    payload_of,
)
from lookalike.indexer.sync.predict import attributes_to_predict, predict_attributes
from lookalike.indexer.sync.renamed import absorb_doubles, check_renamed
from lookalike.indexer.sync.report import SyncEvent, SyncReport, SyncReporter
from lookalike.indexer.sync.sample import AHEAD, unlike_training

_DURABLE_TOGETHER: Final = 1024
_DURABLE_AFTER: Final = 1.0
"""Seconds after which fewer are made durable too, so that slow runs tell of progress."""


def sync(
    store: VectorStore,
    collection: str,
    model: Model,
    sources: Sources,
    *,
    crop: Framing | None = None,
    storage: StorageConfig | None = None,
    predict: Sequence[str] = (),
    prune: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    max_pixels: int | None = None,
    processes: bool = False,
    batch: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
    on_found: Callable[[int], object] = lambda _: None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
    on_event: Callable[[SyncEvent], object] = lambda _: None,
    log: Callable[[str], object] = lambda _: None,
    warn: Callable[[str], object] = lambda _: None,
) -> SyncReport:
    """Bring a collection up to date with its sources; it is created if there is none.

    Files whose size and time are as stored are not opened. Each batch is durable before the next is stored,
    so a run that was killed ends as a whole one when it is started again. A large collection gets an index.

    Args:
        store: The store.
        collection: Name or alias of the collection.
        model: The model whose embeddings it holds.
        sources: What it should hold: paths or names (a folder, an image file, a tar archive, ``lfw``,
            ``mnist``), opened sources, or :class:`SourceList` with the options of reading them.
        crop: How the images are framed, or which of their faces are the items; None: as the collection
            remembers, or the model's own crop.
        storage: Storage options of a new collection; for an existing one they are ignored, with a warning.
        predict: Attributes of the model to predict for each item, where no table knows them.
        prune: Remove items that are stored under a source and no longer in it.
        checksum: Compare SHA-256 instead of size and time, and each stored vector with its checksum; each
            image is read once.
        dry_run: Only compare: nothing is embedded, stored or removed.
        max_pixels: Larger images fail; None: the default limit.
        processes: Allow worker processes for embedding, see :func:`embed_files`.
        batch: Images that are embedded together, and after which progress can be told; None: 128.
        stopping: Asked after each batch: whether to make it durable at once, for ``on_progress`` to end it.
        on_found: Called while the sources are scanned, with the number of images found since the last call.
        on_total: Called with the number of images to read: before the first, or of an empty one on the way.
        on_progress: Called with the number of images done, once they are durable; what it raises ends it.
        on_event: Called for each item that is not unchanged, once that is durable.
        log: Called with one-line messages, as of the start of building an index.
        warn: Called with one-line warnings: of ignored options, and of images unlike the training.

    Raises:
        ModelMismatchError: the collection holds vectors of another model or crop.
        InvalidArgumentError: a name is not allowed, there is no such attribute, two sources have one root
            name, or a new folder holds the images of a root whose folder is gone.
        DataError: a source does not exist, an archive cannot be read, or pruning would remove all, or all
            in a folder that is there and empty (an unmounted disk looks like that).
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
        warn(warning)
    report = SyncReport(collection=name, provider=model.provider, pruned=prune and not dry_run, dry=dry_run)
    _begin_faces(model, before, report)
    began = time.monotonic()
    if not (isinstance(sources, SourceList) and sources.root_name is not None):
        check_renamed(store, name, before, opened)
    spec = with_sources(before if dry_run else absorb_doubles(store, name, before, opened, log), opened)
    reporter = SyncReporter(report, on_event)
    run = _Run(store, name, model, spec, max_pixels, processes, batch, stopping, reporter)
    scan = SourceScan(opened, on_found)
    with ExitStack() as stack:
        # Forked before the store's vectors are opened, and threads with them. Only a collection without
        # roots, which nothing was ever loaded into, is known to be empty before; in another one there may be
        # nothing to embed.
        workers: Workers | None = None
        if processes and not dry_run and not before.roots and scan.at_least(PROCESSES_FROM):
            workers = fork_workers(model, crop=parse_framing(spec.crop), max_pixels=max_pixels)
            if workers is not None:
                stack.enter_context(closing(workers))
        entries = run.make_plan(scan, checksum=checksum, on_total=on_total)
        if prune:
            _check_pruning(name, opened, run.plan)
        if dry_run:
            run.dry_run(entries)
        else:
            entries = run.look_ahead(entries, warn)
            if run.spec != before:
                store.update_info(name, run.spec, before=before)
            run.write(entries, workers, on_progress, prune=prune)
    run.report_scan(scan)
    report.seconds = time.monotonic() - began
    if attributes:
        report.predicted = 0 if dry_run else predict_attributes(store, name, attributes)
    if not dry_run:
        index_when_large(store, name, log=log)
    return report


def _begin_faces(model: Model, spec: CollectionSpec, report: SyncReport) -> None:
    """Check that faces can be found where a collection holds faces, before anything is read."""
    if spec.has_faces:
        check_faces(model.bundle)
        report.faces = report.without_face = 0


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
    batch: int | None
    stopping: Callable[[], bool]
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

    def look_ahead(self, entries: Iterable[ToEmbed], warn: Callable[[str], object]) -> Iterable[ToEmbed]:
        """Warn where the images are not of the model's kind, and return them all."""
        ahead = list(islice(entries, AHEAD))
        files = [entry.item.where for entry in ahead if not entry.known_hashes]
        framing, report = parse_framing(self.spec.crop), self.reporter.report
        report.warning = unlike_training(self.model, files, framing, max_pixels=self.max_pixels)
        if report.warning is not None:
            warn(report.warning)
        if not self.store.count(self.name):
            self.spec = replace(self.spec, unlike_training=report.warning is not None)
        return chain(ahead, entries) if isinstance(entries, Iterator) else entries

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
            self._delete(self.plan.superseded)
        self.apply_updates(self.plan.to_update)
        stream = embed_files(
            self.model,
            ((entry, entry.item.where) for entry in entries),
            crop=parse_framing(self.spec.crop),
            max_pixels=self.max_pixels,
            processes=self.processes,
            workers=workers,
            batch=self.batch,
            known_hashes=attrgetter("known_hashes"),
        )
        self.store_embedded(stream, on_progress)
        if prune and self.plan.missing:
            self._delete(list(self.plan.missing))
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
            points = with_more(store, name, stored, with_vectors=True)
            moved = [update for update in chunk if update.status == "moved"]
            if moved:
                firsts = [stored[update.stored_id] for update in moved]
                marked = [
                    {**record.payload, MOVED_TO: update.item.id}
                    for update, record in zip(moved, firsts, strict=True)
                ]
                store.upsert(name, [record.id for record in firsts], _vectors(firsts), marked)
            # The first face of a picture last: where it stands, all others do.
            pairs = [(update, record) for update in chunk for record in reversed(points[update.stored_id])]
            payloads = [_updated_payload(update, record) for update, record in pairs]
            ids = [
                _point_id(update.item, payload) for (update, _), payload in zip(pairs, payloads, strict=True)
            ]
            store.upsert(name, ids, _vectors([record for _, record in pairs]), payloads)
            if moved:
                store.delete(
                    name, [record.id for update in moved for record in reversed(points[update.stored_id])]
                )
            for update in chunk:
                self.plan.mark_written(update)
                self._report_update(update)

    def store_embedded(
        self, stream: Generator[EmbeddedBatch[ToEmbed]], on_progress: Callable[[int], object]
    ) -> None:
        """Store what is embedded, and what turns out to be known."""
        with closing(stream):
            batches = coalesce(map(drop_degenerate, stream), _DURABLE_TOGETHER, stopping=self.stopping)
            for batch in batches:
                if batch.keys:
                    self._store_batch(batch)
                for entry in batch.keys:
                    self._report_embedded(entry)
                for entry, reason in batch.failures:
                    self.reporter.failed(printable(str(entry.item.file)), reason, entry.root_name)
                known = (self._resolve_known(entry, info) for entry, info in batch.skipped)
                self.apply_updates(update for update in known if update is not None)
                on_progress(_size(batch))

    def _store_batch(self, batch: EmbeddedBatch[ToEmbed]) -> None:
        changed = [entry.item.id for entry in batch.keys if not entry.new]
        before = self.store.get(self.name, changed) if changed else {}
        payloads = self._payloads(batch, before)
        if batch.faces is None:
            self.store.upsert(self.name, [entry.item.id for entry in batch.keys], batch.embeddings, payloads)
            return
        gone = [
            point
            for entry, faces in zip(batch.keys, batch.faces, strict=True)
            if entry.item.id in before
            for point in more_ids(before[entry.item.id].payload, kept=max(1, len(faces)))
        ]
        if gone:  # before the rest: a run that is killed then reads the picture again
            self.store.delete(self.name, gone)
        ids: list[str] = []
        all_payloads: list[Payload] = []
        vectors: list[NDArray[np.float32]] = []
        row = 0
        for entry, faces, payload in zip(batch.keys, batch.faces, payloads, strict=True):
            each = face_payloads(payload, faces, folder_person=folder_person(entry.item))
            # The first face last: where it stands, all others do.
            all_payloads += each[::-1]
            ids += [_point_id(entry.item, one) for one in each[::-1]]
            vectors.append(face_vectors(batch.embeddings[row : row + len(faces)], faces)[::-1])
            row += len(faces)
        self.store.upsert(self.name, ids, np.concatenate(vectors), all_payloads)
        report = self.reporter.report
        report.faces = (report.faces or 0) + row
        report.without_face = (report.without_face or 0) + sum(not faces for faces in batch.faces)

    def _payloads(self, batch: EmbeddedBatch[ToEmbed], before: Mapping[str, Record]) -> list[Payload]:
        """Return the payloads to store; of a file with other bytes, what earlier tables said stays."""
        payloads: list[Payload] = []
        for entry, info in zip(batch.keys, batch.facts, strict=True):
            new, old = payload_of(entry.item, entry.root_name, info), before.get(entry.item.id)
            if old is None or entry.item.payload is not None:
                payloads.append(new)
            else:
                payloads.append({**new, **kept_payload(old.payload, entry.item, same_content=False)})
        return payloads

    def _delete(self, firsts: Sequence[str]) -> None:
        """Delete items; of the faces of a picture, whose first is given, all."""
        for chunk in chunked(firsts):
            more = [
                each
                for record in (self.store.get(self.name, chunk).values() if self.spec.has_faces else ())
                for each in more_ids(record.payload)
            ]
            self.store.delete(self.name, [*more, *chunk])

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
    if update.status != "added":
        new = group_payload(before.payload) | new
        if update.item.payload is None:
            new |= kept_payload(before.payload, update.item, same_content=True)
    if FACE not in before.payload:
        return new
    if face_count(before.payload) != 1:
        (new, *_) = face_payloads(new, [], folder_person=folder_person(update.item))
    return {**new, FACE: before.payload[FACE]}


def _point_id(item: Item, payload: Payload) -> str:
    """Return the id of a point of an item: its own, or that of a further face."""
    number = face_number(payload)
    return item.id if number < 2 else face_id(str(payload["root"]), item.path, number)


def _vectors(records: Sequence[Record]) -> NDArray[np.float32]:
    return np.array([record.undamaged_vector() for record in records], np.float32)


def coalesce(
    stream: Iterator[EmbeddedBatch[ToEmbed]],
    size: int,
    *,
    seconds: float = _DURABLE_AFTER,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[EmbeddedBatch[ToEmbed]]:
    """Join batches: making a batch durable costs a store the same for a few points as for a thousand.

    Args:
        stream: The batches.
        size: Images from which a joined batch is given.
        seconds: Time since the last one after which it is given with fewer.
        stopping: Whether it is given with what there is.
    """
    held: list[EmbeddedBatch[ToEmbed]] = []
    since = time.monotonic()
    for batch in stream:
        held.append(batch)
        if sum(map(_size, held)) >= size or time.monotonic() - since >= seconds or stopping():
            yield _joined(held)
            held, since = [], time.monotonic()
    if held:
        yield _joined(held)


def _joined(batches: Sequence[EmbeddedBatch[ToEmbed]]) -> EmbeddedBatch[ToEmbed]:
    return EmbeddedBatch(
        [entry for batch in batches for entry in batch.keys],
        [info for batch in batches for info in batch.facts],
        np.concatenate([batch.embeddings for batch in batches]),
        [failure for batch in batches for failure in batch.failures],
        [skipped for batch in batches for skipped in batch.skipped],
        [faces for batch in batches for faces in batch.faces or ()] if batches[0].faces is not None else None,
    )


def _size(batch: EmbeddedBatch[ToEmbed]) -> int:
    """Return how many images a batch is about."""
    return len(batch.keys) + len(batch.failures) + len(batch.skipped)
