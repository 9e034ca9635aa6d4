"""A collection copied to another name or another store, embedded or server, whichever way round."""

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
from lookalike.indexer.store.aliases import resolve_alias
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.layout import StorageConfig
from lookalike.indexer.store.points import Record
from lookalike.indexer.store.spec import CollectionSpec, check_name

POINTS_TOGETHER: Final = 1000


@dataclass(slots=True)
class CopyReport:
    """What a copy came to, in points.

    Attributes:
        copied: Written.
        unchanged: There already, with the same vector and payload: left as they were.
        count: In the target afterwards.
        seconds: From start to counted.
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
    options: StorageConfig | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> CopyReport:
    """Copy points (ids, vectors, payloads) and description, a page at a time.

    What is in the target already and the same is not written again, so a copy that was killed and is started
    again goes on. Points of the target that the source does not have stay.

    Args:
        source: Where from.
        name: The collection there.
        target: Where to; may be the same store.
        target_name: Made when it is not there.
        options: How a new one is to lie there; by default, as so many points should.
        on_total: Told how many points there are.
        on_progress: Told of each page: points done.

    Raises:
        CollectionNotFoundError: there is no such collection.
        ModelMismatchError: the target holds vectors of another model or another crop.
        InvalidArgumentError: source and target are one, call two folders by one root name, or the name cannot be.
        StoreError: a store failed, or the counts afterwards do not agree.
    """
    began = time.monotonic()
    name = resolve_alias(source, name)
    if (source.address, name) == (target.address, resolve_alias(target, target_name)):
        raise InvalidArgumentError(
            f"a collection is copied to another name or store, {name!r} is itself; pass --to-store"
        )
    spec, total = source.info(name), source.count(name)
    wanted = (options or StorageConfig()).with_known(expect=total)
    _describe(spec, name, target, check_name(target_name), wanted)
    before = target.count(target_name)
    on_total(total)
    done, new, fresh = CopyReport(), 0, _Pages(target, target_name, on_progress)
    for record, is_there, same in _compared(
        source.scroll(name, with_vectors=True), target.scroll(target_name, with_vectors=True)
    ):
        new += not is_there
        done.copied += not same
        done.unchanged += same
        fresh.add(record, same)
    fresh.write()
    target.flush(target_name)
    done.count = target.count(target_name)
    if done.copied + done.unchanged != source.count(name) or done.count != before + new:
        raise StoreError(
            f"{name!r} has {source.count(name)} points, {done.copied + done.unchanged} were read, and "
            f"{target_name!r} has {done.count} where {before + new} belong; something else writes to one of "
            "them, wait until it ends and run this again"
        )
    done.seconds = time.monotonic() - began
    return done


class _Pages:
    """Points on their way to the target."""

    def __init__(self, target: VectorStore, name: str, on_progress: Callable[[int], object]) -> None:
        self._target, self._name, self._on_progress = target, name, on_progress
        self._held: list[Record] = []
        self._seen = 0

    def add(self, record: Record, same: bool) -> None:
        self._seen += 1
        if not same:
            self._held.append(record)
        if self._seen >= POINTS_TOGETHER:
            self.write()

    def write(self) -> None:
        if self._held:
            vectors = np.stack([_vector(record) for record in self._held])
            ids, payloads = [r.id for r in self._held], [r.payload for r in self._held]
            self._target.upsert(self._name, ids, vectors, payloads)
        self._on_progress(self._seen)
        self._held, self._seen = [], 0


def _describe(
    spec: CollectionSpec, name: str, target: VectorStore, target_name: str, wanted: StorageConfig
) -> None:
    """Make the target, or check that it may hold these vectors, and have it know their roots."""
    try:
        there = target.info(target_name)
    except CollectionNotFoundError:
        target.create(target_name, spec, wanted)
        return
    ours, theirs = ((s.model_id, s.crop, s.dimension) for s in (spec, there))
    if ours != theirs:
        raise ModelMismatchError(
            f"collection {target_name!r} holds vectors of model {there.model_name} ({there.model_id[:12]}, "
            f"crop {there.crop}), those of {name!r} are of {spec.model_name} ({spec.model_id[:12]}, "
            f"crop {spec.crop}); copy to another name"
        )
    for root, folder in spec.roots.items():
        if there.roots.get(root, folder) != folder:
            raise InvalidArgumentError(
                f"{name!r} calls {folder} the root {root!r}, {target_name!r} calls {there.roots[root]} so; "
                "copy to another name, or index one of them again with another --root-name"
            )
    if there.roots != dict(there.roots) | dict(spec.roots):
        target.update_info(target_name, replace(there, roots=dict(there.roots) | dict(spec.roots)))


def _compared(source: Iterator[Record], target: Iterator[Record]) -> Iterator[tuple[Record, bool, bool]]:
    """Yield each record of the source, whether the target has its id, and whether it has the same.

    Both come in the order of ids, so they are walked side by side. What is written to the target meanwhile
    has ids that were walked over.
    """
    other = next(target, None)
    for record in source:
        while other is not None and other.id < record.id:
            other = next(target, None)
        there = other if other is not None and other.id == record.id else None
        yield record, there is not None, there is not None and _same(record, there)


def _same(one: Record, other: Record) -> bool:
    return one.payload == other.payload and np.allclose(_vector(one), _vector(other), rtol=0, atol=1e-6)


def _vector(record: Record) -> np.ndarray[Any, np.dtype[np.float32]]:
    if record.vector is None:
        raise StoreError(f"point {record.id} came without its vector; the store is damaged, index again")
    return record.vector
