"""Bulk load: compare a folder with a collection, embed what is new, store it, say what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import attrgetter
from typing import Final

import numpy as np

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.embed.batch import FileInfo, file_info
from lookalike.encoder.embed.pipeline import PROCESSES_FROM, EmbeddedBatch, embed_files, fork_workers
from lookalike.encoder.embed.workers import Workers
from lookalike.encoder.errors import CollectionNotFoundError, DataError, InvalidArgumentError
from lookalike.encoder.images.decode import DEFAULT_MAX_PIXELS
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable
from lookalike.indexer.sources.source import Source, as_text
from lookalike.indexer.store.base import CollectionSpec, LayoutOptions, VectorStore
from lookalike.indexer.store.points import Payload, Record
from lookalike.indexer.sync.compact import prefetch
from lookalike.indexer.sync.embedded import NOTHING_SEEN, coalesce, count, drop_degenerate
from lookalike.indexer.sync.plan import Kept, SyncPlan, Work, all_new, extra_payload, make_plan, payload_of
from lookalike.indexer.sync.report import Status, SyncEvent, SyncReport
from lookalike.indexer.sync.scan import Walk

__all__ = ["NOTHING_SEEN", "known_roots", "new_spec", "prepare_collection", "sync"]

_DURABLE_TOGETHER: Final = 1024


def known_roots(store: VectorStore, name: str) -> Mapping[str, str]:
    """Return the roots of a collection, name to folder; none of one that is still to be made."""
    try:
        return store.describe(name).roots
    except CollectionNotFoundError:
        return {}


def new_spec(bundle: Bundle, *, crop: Crop | None) -> CollectionSpec:
    """Return what a new collection of this model's vectors is to remember; crop None: the model's."""
    return CollectionSpec(
        model_id=bundle.model_id,
        model_name=bundle.address,
        dimension=bundle.spec.embedding,
        crop=str(crop if crop is not None else bundle.spec.image.crop),
    )


def prepare_collection(
    store: VectorStore,
    name: str,
    model: Model,
    *,
    crop: Crop | None,
    options: LayoutOptions | None = None,
) -> CollectionSpec:
    """Make the collection for this model, or check that it is this model's.

    Args:
        store: Where.
        name: Of it.
        model: Whose vectors it holds, or is to hold.
        crop: How its pictures are framed; None: as it remembers, or the model's.
        options: How a new one is to lie in the store; of one that is there they change nothing.

    Raises:
        ModelMismatchError: it holds vectors of another model or another crop.
        InvalidArgumentError: the name cannot be.
    """
    try:
        spec = store.describe(name)
    except CollectionNotFoundError:
        spec = new_spec(model.bundle, crop=crop)
        store.create(name, spec, options)
        return spec
    # A collection remembers its crop: only one that is given can differ.
    spec.check_model(name, model_id=model.model_id, crop=spec.crop if crop is None else str(crop))
    return spec


def sync(
    store: VectorStore,
    name: str,
    model: Model,
    sources: Sequence[Source],
    *,
    prune: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    processes: bool = False,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
    on_event: Callable[[SyncEvent], object] = lambda _: None,
) -> SyncReport:
    """Bring a prepared collection up to date with its sources.

    Files whose size and time are as stored are not opened. What a batch stored is durable before the next
    is stored, so a run that is killed and started again ends where a whole one ends.

    Args:
        store: Where to.
        name: A collection from :func:`prepare_collection`.
        model: Its model.
        sources: What it should hold.
        prune: Remove what is stored under a source and no longer there.
        checksum: Compare SHA-256, not size and time; each picture is read once.
        dry_run: Only compare: nothing is embedded, stored or removed.
        max_pixels: Larger pictures fail.
        processes: May embed in processes of their own, see :func:`embed_files`.
        on_total: Told how many images will be read: before the first; of an empty collection, on the way.
        on_progress: Told of each batch: images done.
        on_event: Told of each item that is not as it was, when that is durable.

    Raises:
        StoreError: the store failed; what was acknowledged before stays.
        InvalidArgumentError: two sources have one root name and different folders.
        DataError: pruning would remove everything (an unmounted disk looks like that), or an archive cannot
            be read.
    """
    began = time.monotonic()
    before = store.describe(name)
    spec = _checked_roots(before, sources)
    run = _Run(store, name, _Told(SyncReport(pruned=prune and not dry_run, dry=dry_run), on_event))
    walk, report = Walk(sources), run.told.report
    with ExitStack() as stack:
        # Before the store is opened, and threads with it. Only a collection without roots, which nothing was
        # ever loaded into, is known to be empty before; in another one there may be nothing to do.
        workers: Workers | None = None
        if processes and not dry_run and not before.roots and walk.has(PROCESSES_FROM):
            workers = fork_workers(model, crop=Crop.parse(spec.crop), max_pixels=max_pixels)
            if workers is not None:
                stack.enter_context(closing(workers))
        works = run.plan_for(walk, checksum=checksum, on_total=on_total)
        _check_pruning(name, sources, run.plan, prune=prune)
        if dry_run:
            run.foretell(works)
        else:
            if spec != before:
                store.redescribe(name, spec)
            run.keep(run.plan.kept)
            stream = embed_files(
                model,
                ((work, work.item.where) for work in works),
                crop=Crop.parse(spec.crop),
                max_pixels=max_pixels,
                processes=processes,
                workers=workers,
                known_hashes=attrgetter("known_hashes"),
            )
            run.embed(stream, on_progress)
            run.finish(prune=prune)
    for folder, reason in walk.unreadable:
        run.told.failed(folder, f"{folder}: {reason}")
    for path in run.plan.missing.values():
        run.told.tell("missing", path)
    report.seconds = time.monotonic() - began
    return report


@dataclass(slots=True)
class _Told:
    """The report, and who is told of each item in it."""

    report: SyncReport
    on_event: Callable[[SyncEvent], object]

    def tell(self, status: Status, path: str, root: str = "", detail: str = "") -> None:
        setattr(self.report, status, getattr(self.report, status) + 1)
        self.on_event(SyncEvent(status, path, root, detail))

    def failed(self, path: str, reason: str, root: str = "") -> None:
        self.report.failed.append((path, reason))
        self.on_event(SyncEvent("failed", path, root, reason))


def _check_pruning(name: str, sources: Sequence[Source], plan: SyncPlan, *, prune: bool) -> None:
    if prune and plan.missing and not (plan.work or plan.kept or plan.unchanged):
        raise DataError(
            "--prune removes what has left a folder, but no picture at all is left in "
            f"{', '.join(printable(str(source.root)) for source in sources)}, which held {len(plan.missing)}; "
            f"mount it, or drop the collection with lookalike collections delete {name}"
        )


@dataclass(slots=True)
class _Run:
    """One call of :func:`sync`."""

    store: VectorStore
    name: str
    told: _Told
    plan: SyncPlan = field(default_factory=SyncPlan)

    def plan_for(self, walk: Walk, *, checksum: bool, on_total: Callable[[int], object]) -> Iterable[Work]:
        """Return what is to be read; what an empty collection is to hold comes as it is found."""
        if not self.store.count(self.name):
            return prefetch(all_new(walk), on_total)
        self.plan = make_plan(self.store, self.name, walk, checksum=checksum)
        self.told.report.unchanged = self.plan.unchanged
        on_total(len(self.plan.work))
        return self.plan.work

    def foretell(self, works: Iterable[Work]) -> None:
        """Tell what would be done."""
        for kept in self.plan.kept:
            self._tell_kept(kept)
        for work in works:
            facts = file_info(work.item.where) if work.known_hashes else None
            if facts is not None and facts.sha256 in work.known_hashes:
                self._tell_kept(self._recognised(work, facts))
            else:
                self.told.tell("added" if work.new else "changed", work.item.path, work.root_name)

    def keep(self, each: Iterable[Kept]) -> None:
        """Write items anew with the vectors that are stored; taken up only as those before are written.

        Where one has moved, its old point goes first: killed in between, the next run embeds it as new and
        ends at the same; the other way round, both would stay.
        """
        store, name = self.store, self.name
        left = iter(each)
        while some := list(islice(left, _DURABLE_TOGETHER)):
            there = store.fetch(name, [kept.stored for kept in some], with_vectors=True)
            moved = [kept.stored for kept in some if kept.status == "moved"]
            if moved:
                store.delete(name, moved)
            store.upsert(
                name,
                [kept.item.id for kept in some],
                np.array([there[kept.stored].vector for kept in some], np.float32),
                [_kept_payload(kept, there[kept.stored]) for kept in some],
            )
            for kept in some:
                self.plan.written(kept)
                self._tell_kept(kept)

    def embed(self, stream: Generator[EmbeddedBatch[Work]], on_progress: Callable[[int], object]) -> None:
        """Store what is embedded, and what turns out to be known."""
        with closing(stream):
            for batch in coalesce(map(drop_degenerate, stream), _DURABLE_TOGETHER):
                _store(self.store, self.name, batch)
                for work in batch.keys:
                    self.told.tell("added" if work.new else "changed", work.item.path, work.root_name)
                for work, reason in batch.failures:
                    self.told.failed(printable(str(work.item.file)), reason, work.root_name)
                recognised = (self._recognised(work, facts) for work, facts in batch.skipped)
                self.keep(kept for kept in recognised if kept is not None)
                on_progress(count(batch))

    def finish(self, *, prune: bool) -> None:
        """Remove what is missing, and have what was done durable."""
        if prune and self.plan.missing:
            self.store.delete(self.name, list(self.plan.missing))
        report = self.told.report
        if report.stored or (prune and self.plan.missing):  # else there is nothing to make durable
            self.store.flush(self.name)

    def _recognised(self, work: Work, facts: FileInfo) -> Kept | None:
        kept = self.plan.recognised(work, facts)
        self.told.report.unchanged += kept is None
        return kept

    def _tell_kept(self, kept: Kept | None) -> None:
        if kept is not None:
            self.told.tell(kept.status, kept.item.path, kept.root_name, kept.path)


def _kept_payload(kept: Kept, before: Record) -> Payload:
    """Return what is to be stored; where no table was given, what an earlier one said stays."""
    said = extra_payload(before.payload) if kept.item.payload is None and kept.status != "added" else {}
    return {**said, **payload_of(kept.item, kept.root_name, kept.facts)}


def _store(store: VectorStore, name: str, batch: EmbeddedBatch[Work]) -> None:
    payloads = [
        payload_of(work.item, work.root_name, facts)
        for work, facts in zip(batch.keys, batch.facts, strict=True)
    ]
    if payloads:
        store.upsert(name, [work.item.id for work in batch.keys], batch.embeddings, payloads)


def _checked_roots(spec: CollectionSpec, sources: Sequence[Source]) -> CollectionSpec:
    """Return the description with the sources' roots in it."""
    fresh: dict[str, str] = {}
    for source in sources:
        root = as_text(source.root)
        if fresh.setdefault(source.root_name, root) != root:
            raise InvalidArgumentError(
                f"two sources are called {source.root_name!r}, {fresh[source.root_name]} and {root}; "
                "index them in two runs, one with --root-name"
            )
    return replace(spec, roots={**spec.roots, **fresh})
