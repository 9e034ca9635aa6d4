"""What is on disk against what is stored: what is new, changed, moved, the same, or gone.

In memory are 16 bytes of each item that is stored, some tens of each that is to be written, and the paths
of all that is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from encoder.chunks import FileFacts, read_file
from encoder.images import shown
from indexer.compact import IdSet, Packed
from indexer.payloads import RESERVED, known
from indexer.points import Record
from indexer.sources import Item, Source
from indexer.store import Condition, Filter, VectorStore

__all__ = ["Kept", "Plan", "Work", "compare", "more_said", "payload_of"]

_AT_ONCE: Final = 1024
_Each = TypeVar("_Each")


@dataclass(frozen=True, slots=True)
class Work:
    """An item to embed, the name of its root, and whether the collection has never had it."""

    item: Item
    root_name: str
    new: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """An item whose vector is stored already.

    Attributes:
        item: It, as it is now.
        root_name: Of its root.
        facts: What is true of its bytes.
        stored: The point that holds its vector: its own, or that of the path where it was.
        path: Which that was, where it has moved.
    """

    item: Item
    root_name: str
    facts: FileFacts
    stored: str
    path: str | None = None


@dataclass(slots=True)
class Plan:
    """What is to be done.

    Attributes:
        work: To embed.
        kept: To be written anew with the vector that is stored.
        unchanged: Items to leave as they are.
        missing: Id to path of what is stored and no longer there.
        unreadable: Folder and reason, of those that could not be listed; nothing in them is missing.
    """

    work: Packed[Work] = field(default_factory=Packed)
    kept: Packed[Kept] = field(default_factory=Packed)
    unchanged: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def compare(
    store: VectorStore,
    name: str,
    sources: Sequence[Source],
    *,
    checksum: bool = False,
) -> Plan:
    """Sort what is on disk and what is stored into what is to be done.

    Args:
        store: Where.
        name: The collection.
        sources: What it should hold.
        checksum: Compare SHA-256, not size and time: every picture that is stored is read.

    Raises:
        DataError: an archive cannot be read.
        StoreError: the store failed.
    """
    plan, met = Plan(), _Met()
    for source, items in _walk(sources, partial(_pass_over, plan, met)):
        stored = store.fetch(name, [item.id for item in items])
        for item in items:
            _place(plan, item, source.root_name, stored.get(item.id), checksum=checksum)
        met.counts[source.root_name] += len(stored)
        for point in stored:
            met.ids.add(point)
    met.ids.settle()
    _find_missing(store, name, sources, plan, met)
    _find_moved(store, name, plan)
    return plan


@dataclass(frozen=True, slots=True)
class _Met:
    """What of the stored points was met on disk: their ids, and how many of each root.

    ``closed`` are the folders that could not be listed, each with its source and relative to its root.
    """

    ids: IdSet = field(default_factory=IdSet)
    counts: Counter[str] = field(default_factory=Counter)
    closed: list[tuple[Source, str]] = field(default_factory=list)


def _pass_over(plan: Plan, met: _Met, source: Source, error: OSError) -> None:
    folder = str(error.filename)
    met.closed.append((source, f"{Path(folder).relative_to(source.root).as_posix()}/"))
    plan.unreadable.append((shown(folder), f"cannot be listed ({error.strerror or error})"))


def payload_of(item: Item, root_name: str, facts: FileFacts) -> dict[str, Any]:
    """Return what is stored beside the vector of an item."""
    own = {
        "root": root_name,
        "path": item.path,
        "sha256": facts.sha256,
        "size": facts.size,
        "mtime_ns": facts.mtime_ns,
    }
    person = {} if item.person is None else {"person": item.person}
    return {**person, **(item.payload or {}), **own}


def more_said(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stored payload says that no item says of itself, and no path: what came from tables."""
    return {key: value for key, value in payload.items() if key not in RESERVED and key != "person"}


def _walk(
    sources: Sequence[Source], on_unreadable: Callable[[Source, OSError], object]
) -> Iterator[tuple[Source, list[Item]]]:
    """Yield every item once, some together, and the source that has it."""
    earlier = IdSet()
    for source in sources:
        for items in _together(source.items(partial(on_unreadable, source))):
            again = earlier.holding([item.id for item in items])
            fresh = [item for item, known in zip(items, again, strict=True) if not known]
            for item in fresh if len(sources) > 1 else ():
                earlier.add(item.id)
            yield source, fresh
        earlier.settle()


def _together(each: Iterable[_Each]) -> Iterator[list[_Each]]:
    left = iter(each)
    while some := list(islice(left, _AT_ONCE)):
        yield some


def _place(plan: Plan, item: Item, root_name: str, stored: Record | None, *, checksum: bool) -> None:
    if stored is None or not _same(item, _facts_of(stored), checksum=checksum):
        plan.work.append(Work(item, root_name, stored is None))
    elif item.payload is not None and not _says(item, stored):
        plan.kept.append(Kept(item, root_name, _facts_of(stored), item.id))
    else:
        plan.unchanged += 1


def _facts_of(record: Record) -> FileFacts:
    return FileFacts(*(record.payload[key] for key in ("sha256", "size", "mtime_ns")))


def _same(item: Item, facts: FileFacts, *, checksum: bool) -> bool:
    if not checksum:
        return item.facts() == (facts.size, facts.mtime_ns)
    now = _read(item)
    return now is not None and now.sha256 == facts.sha256


def _says(item: Item, stored: Record) -> bool:
    now = payload_of(item, "", _facts_of(stored))
    return _said(now) == _said(known(stored.payload))


def _said(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key not in RESERVED}


def _read(item: Item) -> FileFacts | None:
    try:
        _, facts = read_file(item.file) if item.member is None else item.member.read()
    except OSError:
        return None  # it is named when it is to be embedded
    return facts


def _find_missing(store: VectorStore, name: str, sources: Sequence[Source], plan: Plan, met: _Met) -> None:
    """Note what is stored, should be in a source, and was not met there."""

    def closed(source: Source, path: str) -> bool:
        return any(of is source and (part == "./" or path.startswith(part)) for of, part in met.closed)

    found: dict[str, str] = {}
    for root in {source.root_name for source in sources}:
        under = Filter((Condition("root", "=", root),))
        if store.count(name, where=under) == met.counts[root]:
            continue  # as nearly always: all that is stored was met
        here = [source for source in sources if source.root_name == root]
        for records in _together(store.scroll(name, where=under)):
            there = met.ids.holding([record.id for record in records])
            for record, is_there in zip(records, there, strict=True):
                path = record.payload["path"]
                if not is_there and any(each.covers(path) and not closed(each, path) for each in here):
                    found[record.id] = path
    plan.missing = dict(sorted(found.items()))


def _find_moved(store: VectorStore, name: str, plan: Plan) -> None:
    """Take for moved what is new here with the bytes of what is missing there. Only equal sizes are read."""
    if not plan.missing or not any(work.new for work in plan.work):
        return
    gone: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for some in _together(plan.missing):
        for record in store.fetch(name, some).values():
            facts = _facts_of(record)
            gone.setdefault((facts.size, facts.sha256), []).append((record.id, record.payload["path"]))
    sizes = {size for size, _ in gone}
    work: Packed[Work] = Packed()
    for each in plan.work:
        now = each.item.facts() if each.new else None
        read = _read(each.item) if now is not None and now[0] in sizes else None
        there = gone.get((read.size, read.sha256)) if read is not None else None
        if read is None or not there:
            work.append(each)
            continue
        point, path = there.pop(0)
        plan.kept.append(Kept(each.item, each.root_name, read, point, path))
        del plan.missing[point]
    plan.work = work
