"""Bulk load: compare a folder with a collection, embed what is new, store it, say what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np

from encoder.errors import CollectionNotFoundError, DataError, OptionError
from encoder.images import DEFAULT_MAX_PIXELS, Crop, shown
from encoder.model import Model
from encoder.stream import Embedded, FileFacts, embed_files
from indexer.sources import Item, Source, as_text
from indexer.store import CollectionSpec, Condition, Filter, VectorStore

__all__ = ["Report", "known_roots", "load", "prepare_collection"]

NOTHING_SEEN: Final = "the model sees nothing in it that could be compared; leave it out"
_DURABLE_TOGETHER: Final = 1024


@dataclass(slots=True)
class Report:
    """What a load came to, in items.

    Attributes:
        added: Stored for the first time.
        changed: Stored again because size or time of the file differ.
        unchanged: Left as they were; not even opened.
        missing: Stored, but no longer in the folders that were named; removed when ``pruned``.
        pruned: Whether the missing ones were removed.
        failed: Path and one-line reason.
        seconds: From start to flushed.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    missing: int = 0
    pruned: bool = False
    failed: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def seen(self) -> int:
        """Pictures that were found in the sources."""
        return self.added + self.changed + self.unchanged + len(self.failed)

    @property
    def images_per_second(self) -> float:
        """Embedded images per second of the whole run."""
        return (self.added + self.changed) / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        failed = [{"path": path, "reason": reason} for path, reason in self.failed]
        return {
            **asdict(self),
            "failed": failed,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


def known_roots(store: VectorStore, name: str) -> Mapping[str, str]:
    """Return the roots of a collection, name to folder; none of one that is still to be made."""
    try:
        return store.describe(name).roots
    except CollectionNotFoundError:
        return {}


def prepare_collection(store: VectorStore, name: str, model: Model, *, crop: Crop | None) -> CollectionSpec:
    """Make the collection for this model, or check that it is this model's.

    Raises:
        ModelMismatchError: it holds vectors of another model or another crop.
        OptionError: the name cannot be.
    """
    framing = str(crop if crop is not None else model.bundle.spec.image.crop)
    try:
        spec = store.describe(name)
    except CollectionNotFoundError:
        spec = CollectionSpec(
            model_id=model.model_id,
            model_name=model.bundle.address,
            dimension=model.bundle.spec.embedding,
            crop=framing,
        )
        store.create(name, spec)
        return spec
    # A collection remembers its crop: only one that is given can differ.
    spec.check_model(name, model_id=model.model_id, crop=spec.crop if crop is None else framing)
    return spec


def load(
    store: VectorStore,
    name: str,
    model: Model,
    sources: Sequence[Source],
    *,
    prune: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
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
        max_pixels: Larger pictures fail.
        on_total: Told how many images will be embedded.
        on_progress: Told of each batch: images done.

    Raises:
        StoreError: the store failed; what was acknowledged before stays.
        OptionError: two sources have one root name and different folders.
        DataError: pruning would remove everything: an unmounted disk looks like that.
    """
    began = time.monotonic()
    report = Report(pruned=prune)
    spec = _remember_roots(store, name, sources)
    work, missing = _compare(store, name, sources, report)
    if prune and missing and not work and not report.unchanged:
        raise DataError(
            "--prune removes what has left a folder, but no picture at all is left in "
            f"{', '.join(shown(str(source.root)) for source in sources)}, which held {len(missing)}; "
            f"mount it, or drop the collection with lookalike collections delete {name}"
        )
    on_total(len(work))
    files = ((entry, entry.item.file) for entry in work)
    stream = embed_files(model, files, crop=Crop.parse(spec.crop), max_pixels=max_pixels)
    with closing(stream):
        for batch in _gathered(map(_comparable, stream)):
            _store(store, name, batch)
            report.added += sum(entry.new for entry in batch.keys)
            report.changed += sum(not entry.new for entry in batch.keys)
            report.failed += [(shown(str(entry.item.file)), reason) for entry, reason in batch.failures]
            on_progress(len(batch.keys) + len(batch.failures))
    report.missing = len(missing)
    if prune and missing:
        store.delete(name, missing)
    store.flush(name)
    report.seconds = time.monotonic() - began
    return report


@dataclass(frozen=True, slots=True)
class _Work:
    """An item to embed, the name of its root, and whether the collection has never had it."""

    item: Item
    root_name: str
    new: bool


def _comparable(batch: Embedded[_Work]) -> Embedded[_Work]:
    """Move pictures whose embedding has no direction to the failures: no store takes them."""
    good = [bool(np.isfinite(row).all() and row.any()) for row in batch.embeddings]
    blank = [key for key, fine in zip(batch.keys, good, strict=True) if not fine]
    return Embedded(
        [key for key, fine in zip(batch.keys, good, strict=True) if fine],
        [facts for facts, fine in zip(batch.facts, good, strict=True) if fine],
        batch.embeddings[good],
        batch.failures + [(key, f"{shown(str(key.item.file))}: {NOTHING_SEEN}") for key in blank],
    )


def _gathered(stream: Iterator[Embedded[_Work]]) -> Iterator[Embedded[_Work]]:
    """Join batches: what a store does to make one durable costs the same for a few as for a thousand."""
    held: list[Embedded[_Work]] = []
    for batch in stream:
        held.append(batch)
        if sum(len(one.keys) + len(one.failures) for one in held) >= _DURABLE_TOGETHER:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(batches: Sequence[Embedded[_Work]]) -> Embedded[_Work]:
    return Embedded(
        [key for batch in batches for key in batch.keys],
        [facts for batch in batches for facts in batch.facts],
        np.concatenate([batch.embeddings for batch in batches]),
        [failure for batch in batches for failure in batch.failures],
    )


def _store(store: VectorStore, name: str, batch: Embedded[_Work]) -> None:
    payloads = [
        _payload(entry.item, entry.root_name, facts)
        for entry, facts in zip(batch.keys, batch.facts, strict=True)
    ]
    if payloads:
        store.upsert(name, [entry.item.id for entry in batch.keys], batch.embeddings, payloads)


def _remember_roots(store: VectorStore, name: str, sources: Sequence[Source]) -> CollectionSpec:
    spec = store.describe(name)
    roots = dict(spec.roots)
    fresh: dict[str, str] = {}
    for source in sources:
        root = as_text(source.root)
        if fresh.setdefault(source.root_name, root) != root:
            raise OptionError(
                f"two sources are called {source.root_name!r}, {fresh[source.root_name]} and {root}; "
                "index them in two runs, one with --root-name"
            )
    if roots != roots | fresh:
        spec = replace(spec, roots=roots | fresh)
        store.redescribe(name, spec)
    return spec


def _compare(
    store: VectorStore, name: str, sources: Sequence[Source], report: Report
) -> tuple[list[_Work], list[str]]:
    """Sort what is on disk and what is stored into work to do and ids that are missing."""
    work: list[_Work] = []
    seen: set[str] = set()
    stored: set[str] = set()
    for source in sources:
        there = _stored(store, name, source)
        stored |= {stored_id for stored_id, (_, covered) in there.items() if covered}
        for item in source.items():
            if item.id in seen:
                continue
            seen.add(item.id)
            facts, _ = there.get(item.id, (None, False))
            if facts is not None and facts == _facts_now(item):
                report.unchanged += 1
            else:
                work.append(_Work(item, source.root_name, item.id not in there))
    return work, sorted(stored - seen)


def _stored(store: VectorStore, name: str, source: Source) -> dict[str, tuple[tuple[int, int], bool]]:
    """Return size and mtime of what is stored under a root, and whether the source covers it, by id."""
    under = Filter((Condition("root", "=", source.root_name),))
    return {
        record.id: (
            (record.payload["size"], record.payload["mtime_ns"]),
            source.covers(record.payload["path"]),
        )
        for record in store.scroll(name, where=under)
    }


def _facts_now(item: Item) -> tuple[int, int] | None:
    try:
        status = item.file.stat()
    except OSError:
        return None  # it will fail to open too, and be named then
    return status.st_size, status.st_mtime_ns


def _payload(item: Item, root_name: str, facts: FileFacts) -> dict[str, Any]:
    payload: dict[str, Any] = {"root": root_name, "path": item.path, **asdict(facts)}
    return payload | ({} if item.person is None else {"person": item.person})
