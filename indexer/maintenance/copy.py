"""Copying a collection to another name or another store, embedded or server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from lookalike.encoder.errors import (
    CollectionNotFoundError,
    InvalidArgumentError,
    ModelMismatchError,
    StoreError,
)
from lookalike.indexer.store import (
    CollectionSpec,
    Record,
    StorageConfig,
    VectorStore,
    check_name,
    create_or_open,
    resolve_alias,
)

_CHUNK: Final = 1000


@dataclass(slots=True)
class CopyReport:
    """The result of a copy; counts are of points.

    Attributes:
        copied: Written.
        unchanged: In the target already, with the same vector and payload.
        count: Points in the target afterwards.
        seconds: Duration of the copy.
    """

    copied: int = 0
    unchanged: int = 0
    count: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def copy_collection(
    source: VectorStore,
    name: str,
    target: VectorStore,
    target_name: str,
    *,
    storage: StorageConfig | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> CopyReport:
    """Copy the points (ids, vectors, payloads) and the spec of a collection, a page at a time.

    Points that are the same in the target are not written again, so a copy that was killed continues when it
    is started again. Points of the target that the source does not have stay.

    Args:
        source: The store to copy from.
        name: The collection to copy.
        target: The store to copy to; may be the same.
        target_name: Name in the target; the collection is created if there is none.
        storage: Storage options of a new collection; None: the recommended layout for so many points.
        on_total: Called with the number of points.
        on_progress: Called after each page with the number of points report.

    Raises:
        CollectionNotFoundError: there is no such collection.
        ModelMismatchError: the target holds vectors of another model or crop.
        InvalidArgumentError: source and target are the same, have two folders of one root name, or the name
            is not allowed.
        StoreError: a store failed, or the counts afterwards do not agree.
    """
    began = time.monotonic()
    name = resolve_alias(source, name)
    if (source.address, name) == (target.address, resolve_alias(target, target_name)):
        raise InvalidArgumentError(
            f"a collection is copied to another name or store, not onto itself ({name!r}); pass --to-store"
        )
    spec, total = source.info(name), source.count(name)
    storage = (storage or StorageConfig()).with_known(expect=total)
    _prepare_target(spec, name, target, check_name(target_name), storage)
    before = target.count(target_name)
    on_total(total)
    report, new, writer = CopyReport(), 0, _PageWriter(target, target_name, on_progress)
    for record, exists, same in _compare(
        source.scroll(name, with_vectors=True), target.scroll(target_name, with_vectors=True)
    ):
        new += not exists
        report.copied += not same
        report.unchanged += same
        writer.add(record, same)
    writer.write()
    target.flush(target_name)
    report.count = target.count(target_name)
    if report.copied + report.unchanged != source.count(name) or report.count != before + new:
        raise StoreError(
            f"{name!r} has {source.count(name)} points, {report.copied + report.unchanged} were read, "
            f"and {target_name!r} has {report.count} where {before + new} belong; something else writes to "
            "one of them, wait until it ends and run this again"
        )
    report.seconds = time.monotonic() - began
    return report


class _PageWriter:
    """Collects points and writes them to the target a page at a time."""

    def __init__(self, target: VectorStore, name: str, on_progress: Callable[[int], object]) -> None:
        self._target, self._name, self._on_progress = target, name, on_progress
        self._pending: list[Record] = []
        self._seen = 0

    def add(self, record: Record, same: bool) -> None:
        self._seen += 1
        if not same:
            self._pending.append(record)
        if self._seen >= max(_CHUNK, self._target.piece):
            self.write()

    def write(self) -> None:
        if self._pending:
            vectors = np.stack([record.undamaged_vector() for record in self._pending])
            ids, payloads = [r.id for r in self._pending], [r.payload for r in self._pending]
            self._target.upsert(self._name, ids, vectors, payloads)
        self._on_progress(self._seen)
        self._pending, self._seen = [], 0


def _prepare_target(
    spec: CollectionSpec, name: str, target: VectorStore, target_name: str, storage: StorageConfig
) -> None:
    """Create the target, or check that it may hold these vectors; add the roots to its spec."""
    try:
        existing = target.info(target_name)
    except CollectionNotFoundError:
        existing = create_or_open(target, target_name, spec, storage)
        if existing == spec:
            return
    if not existing.same_embedding(spec):
        raise ModelMismatchError(
            f"collection {target_name!r} holds vectors of model {existing.model_name} "
            f"({existing.model_id[:12]}, crop {existing.crop}), those of {name!r} are of {spec.model_name} "
            f"({spec.model_id[:12]}, crop {spec.crop}); copy to another name"
        )
    for root, folder in spec.roots.items():
        if existing.roots.get(root, folder) != folder:
            raise InvalidArgumentError(
                f"{name!r} calls {folder} the root {root!r}, {target_name!r} calls "
                f"{existing.roots[root]} so; copy to another name, or index one of them again with another "
                "--root-name"
            )
    roots = {**existing.roots, **spec.roots}
    # Where both know a root, it is foreign only if it is to both.
    foreign = {name for name in spec.foreign_roots if name not in existing.roots}
    foreign |= {name for name in existing.foreign_roots if spec.folder_of(name) is None}
    new = replace(existing, roots=roots, foreign_roots=tuple(sorted(foreign)))
    if existing != new:
        target.update_info(target_name, new, before=existing)


def _compare(source: Iterator[Record], target: Iterator[Record]) -> Iterator[tuple[Record, bool, bool]]:
    """Yield each record of the source, whether the target has its id, and whether it is the same there.

    Both are ordered by id and read in parallel. What is written to the target meanwhile has ids that were
    passed already.
    """
    other = next(target, None)
    for record in source:
        while other is not None and other.id < record.id:
            other = next(target, None)
        existing = other if other is not None and other.id == record.id else None
        yield record, existing is not None, existing is not None and _same(record, existing)


def _same(one: Record, other: Record) -> bool:
    """Whether the source's point is stored in the target as it is."""
    if one.payload != other.payload or other.vector is None or other.damaged:
        return False
    return np.allclose(one.undamaged_vector(), other.vector, rtol=0, atol=1e-6)
