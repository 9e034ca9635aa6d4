"""Bulk load: compare a folder with a collection, embed what is new, store it, say what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np

from encoder.bundle import Bundle
from encoder.errors import CollectionNotFoundError, DataError, OptionError
from encoder.images import DEFAULT_MAX_PIXELS, Crop, shown
from encoder.model import Model
from encoder.stream import Embedded, embed_files
from indexer.compare import Kept, Plan, Work, compare, more_said, payload_of
from indexer.points import Payload, Record
from indexer.report import Event, Report, Status
from indexer.sources import Source, as_text
from indexer.store import CollectionSpec, LayoutOptions, VectorStore

__all__ = ["known_roots", "load", "new_spec", "prepare_collection"]

NOTHING_SEEN: Final = "the model sees nothing in it that could be compared; leave it out"
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
        OptionError: the name cannot be.
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


def load(
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
    on_event: Callable[[Event], object] = lambda _: None,
) -> Report:
    """Bring a prepared collection up to date with its sources.

    Files whose size and time are as stored are not opened. What a batch stored is durable before the next
    is stored, so a run that is killed and started again ends where a whole one ends.

    Args:
        store: Where to.
        name: A collection from :func:`prepare_collection`.
        model: Its model.
        sources: What it should hold.
        prune: Remove what is stored under a source and no longer there.
        checksum: Compare SHA-256, not size and time.
        dry_run: Only compare: nothing is embedded, stored or removed.
        max_pixels: Larger pictures fail.
        processes: May embed in processes of their own, see :func:`encoder.stream.embed_files`.
        on_total: Told how many images will be embedded.
        on_progress: Told of each batch: images done.
        on_event: Told of each item that is not as it was, when that is durable.

    Raises:
        StoreError: the store failed; what was acknowledged before stays.
        OptionError: two sources have one root name and different folders.
        DataError: pruning would remove everything (an unmounted disk looks like that), or an archive cannot
            be read.
    """
    began = time.monotonic()
    told = _Told(Report(pruned=prune and not dry_run, dry=dry_run), on_event)
    spec = _checked_roots(store, name, sources)
    plan = compare(store, name, sources, checksum=checksum)
    told.report.unchanged = plan.unchanged
    for folder, reason in plan.unreadable:
        told.failed(folder, f"{folder}: {reason}")
    _check_pruning(name, sources, plan, prune=prune)
    on_total(len(plan.work))
    if dry_run:
        _foretell(plan, told)
    else:
        if spec != store.describe(name):
            store.redescribe(name, spec)
        _keep(store, name, plan, told)
        files = ((work, work.item.member or work.item.file) for work in plan.work)
        stream = embed_files(
            model,
            files,
            crop=Crop.parse(spec.crop),
            max_pixels=max_pixels,
            processes=processes,
        )
        _embed(store, name, stream, told, on_progress)
        if prune and plan.missing:
            store.delete(name, list(plan.missing))
        if plan.work or plan.kept or (prune and plan.missing):  # else there is nothing to make durable
            store.flush(name)
    for path in plan.missing.values():
        told.tell("missing", path)
    told.report.seconds = time.monotonic() - began
    return told.report


@dataclass(slots=True)
class _Told:
    """The report, and who is told of each item in it."""

    report: Report
    on_event: Callable[[Event], object]

    def tell(self, status: Status, path: str, root: str = "", detail: str = "") -> None:
        setattr(self.report, status, getattr(self.report, status) + 1)
        self.on_event(Event(status, path, root, detail))

    def failed(self, path: str, reason: str, root: str = "") -> None:
        self.report.failed.append((path, reason))
        self.on_event(Event("failed", path, root, reason))


def _check_pruning(name: str, sources: Sequence[Source], plan: Plan, *, prune: bool) -> None:
    if prune and plan.missing and not (plan.work or plan.kept or plan.unchanged):
        raise DataError(
            "--prune removes what has left a folder, but no picture at all is left in "
            f"{', '.join(shown(str(source.root)) for source in sources)}, which held {len(plan.missing)}; "
            f"mount it, or drop the collection with lookalike collections delete {name}"
        )


def _foretell(plan: Plan, told: _Told) -> None:
    for kept in plan.kept:
        _tell_kept(kept, told)
    for work in plan.work:
        told.tell("added" if work.new else "changed", work.item.path, work.root_name)


def _tell_kept(kept: Kept, told: _Told) -> None:
    status: Status = "relabelled" if kept.path is None else "moved"
    told.tell(status, kept.item.path, kept.root_name, kept.path or "")


def _keep(store: VectorStore, name: str, plan: Plan, told: _Told) -> None:
    """Write items anew with the vectors that are stored.

    Where one has moved, its old point goes first: killed in between, the next run embeds it as new and ends
    at the same; the other way round, both would stay.
    """
    left = iter(plan.kept)
    while some := list(islice(left, _DURABLE_TOGETHER)):
        there = store.fetch(name, [kept.stored for kept in some], with_vectors=True)
        moved = [kept.stored for kept in some if kept.stored != kept.item.id]
        if moved:
            store.delete(name, moved)
        store.upsert(
            name,
            [kept.item.id for kept in some],
            np.array([there[kept.stored].vector for kept in some], np.float32),
            [_kept_payload(kept, there[kept.stored]) for kept in some],
        )
        for kept in some:
            _tell_kept(kept, told)


def _kept_payload(kept: Kept, before: Record) -> Payload:
    """Return what is to be stored; where no table was given, what an earlier one said stays."""
    said = more_said(before.payload) if kept.item.payload is None else {}
    return {**said, **payload_of(kept.item, kept.root_name, kept.facts)}


def _embed(
    store: VectorStore,
    name: str,
    stream: Generator[Embedded[Work]],
    told: _Told,
    on_progress: Callable[[int], object],
) -> None:
    with closing(stream):
        for batch in _gathered(map(_comparable, stream)):
            _store(store, name, batch)
            for work in batch.keys:
                told.tell("added" if work.new else "changed", work.item.path, work.root_name)
            for work, reason in batch.failures:
                told.failed(shown(str(work.item.file)), reason, work.root_name)
            on_progress(len(batch.keys) + len(batch.failures))


def _comparable(batch: Embedded[Work]) -> Embedded[Work]:
    """Move pictures whose embedding has no direction to the failures: no store takes them."""
    good = [bool(np.isfinite(row).all() and row.any()) for row in batch.embeddings]
    blank = [key for key, fine in zip(batch.keys, good, strict=True) if not fine]
    return Embedded(
        [key for key, fine in zip(batch.keys, good, strict=True) if fine],
        [facts for facts, fine in zip(batch.facts, good, strict=True) if fine],
        batch.embeddings[good],
        batch.failures + [(key, f"{shown(str(key.item.file))}: {NOTHING_SEEN}") for key in blank],
    )


def _gathered(stream: Iterator[Embedded[Work]]) -> Iterator[Embedded[Work]]:
    """Join batches: what a store does to make one durable costs the same for a few as for a thousand."""
    held: list[Embedded[Work]] = []
    for batch in stream:
        held.append(batch)
        if sum(len(one.keys) + len(one.failures) for one in held) >= _DURABLE_TOGETHER:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(batches: Sequence[Embedded[Work]]) -> Embedded[Work]:
    return Embedded(
        [key for batch in batches for key in batch.keys],
        [facts for batch in batches for facts in batch.facts],
        np.concatenate([batch.embeddings for batch in batches]),
        [failure for batch in batches for failure in batch.failures],
    )


def _store(store: VectorStore, name: str, batch: Embedded[Work]) -> None:
    payloads = [
        payload_of(work.item, work.root_name, facts)
        for work, facts in zip(batch.keys, batch.facts, strict=True)
    ]
    if payloads:
        store.upsert(name, [work.item.id for work in batch.keys], batch.embeddings, payloads)


def _checked_roots(store: VectorStore, name: str, sources: Sequence[Source]) -> CollectionSpec:
    """Return the description with the sources' roots in it."""
    spec = store.describe(name)
    fresh: dict[str, str] = {}
    for source in sources:
        root = as_text(source.root)
        if fresh.setdefault(source.root_name, root) != root:
            raise OptionError(
                f"two sources are called {source.root_name!r}, {fresh[source.root_name]} and {root}; "
                "index them in two runs, one with --root-name"
            )
    return replace(spec, roots={**spec.roots, **fresh})
