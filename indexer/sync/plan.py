"""What is on disk against what is stored: what is new, changed, moved, the same, or gone.

In memory are 16 bytes of each item that is stored, some tens of each that is to be written, and the paths
of all that is gone. Nothing is read: where only the content of a file can tell, the plan says so, and it is
told when the file is read, from the bytes that are then decoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lookalike.encoder.embed.batch import FileInfo
from lookalike.indexer.sources.source import Item, Source
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.filters import Condition, Filter
from lookalike.indexer.store.points import RESERVED, Record, known_payload
from lookalike.indexer.sync.compact import CompressedList, IdSet
from lookalike.indexer.sync.scan import SourceScan, chunked


@dataclass(frozen=True, slots=True)
class ToEmbed:
    """An item to read, and to embed unless its content is known.

    Attributes:
        item: It.
        root_name: Of its root.
        new: Whether the collection has never had it.
        known_hashes: SHA-256 sums under which its vector is stored already: its own, or those of what is missing.
        relabel: Whether something else is said of it than is stored.
    """

    item: Item
    root_name: str
    new: bool
    known_hashes: frozenset[str] = frozenset()
    relabel: bool = False

    def __reduce__(self) -> tuple[type[ToEmbed], tuple[object, ...]]:
        """Be pickled as what it was made of, as an item is."""
        return type(self), (self.item, self.root_name, self.new, self.known_hashes, self.relabel)


@dataclass(frozen=True, slots=True)
class ToUpdate:
    """An item whose vector is stored already.

    Attributes:
        item: It, as it is now.
        root_name: Of its root.
        facts: What is true of its bytes.
        stored: The point that holds its vector: its own, or that of the path where it was.
        status: ``relabelled``; ``moved``; or ``added``: a second one with the content of one that moved.
        path: Where it was, when it has moved.
    """

    item: Item
    root_name: str
    facts: FileInfo
    stored: str
    status: Literal["relabelled", "moved", "added"]
    path: str = ""


@dataclass(slots=True)
class SyncPlan:
    """What is to be done.

    Attributes:
        to_embed: To read.
        to_update: To be written anew with the vector that is stored.
        unchanged: Items to leave as they are.
        missing: Id to path of what is stored and no longer there.
        missing_by_content: Size and SHA-256 to those of the missing that had this content and have not been found.
        vector_points: The same to the point that holds the vector of what was found.
    """

    to_embed: CompressedList[ToEmbed] = field(default_factory=CompressedList)
    to_update: CompressedList[ToUpdate] = field(default_factory=CompressedList)
    unchanged: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    missing_by_content: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    vector_points: dict[tuple[int, str], str] = field(default_factory=dict)

    def resolve_known(self, work: ToEmbed, facts: FileInfo) -> ToUpdate | None:
        """Say what a piece of work comes to whose content is known; None: it is unchanged.

        What it is recognised by is missing no more.
        """
        if not work.new:
            if not work.relabel:
                return None
            return ToUpdate(work.item, work.root_name, facts, work.item.id, "relabelled")
        content = facts.size, facts.sha256
        if not (left := self.missing_by_content[content]):
            return ToUpdate(work.item, work.root_name, facts, self.vector_points[content], "added")
        point = self.vector_points[content] = left.pop(0)
        return ToUpdate(work.item, work.root_name, facts, point, "moved", self.missing.pop(point))

    def mark_written(self, kept: ToUpdate) -> None:
        """Note that a vector is where it is now."""
        if kept.status == "moved":
            self.vector_points[kept.facts.size, kept.facts.sha256] = kept.item.id


def all_new(walk: SourceScan) -> Iterator[ToEmbed]:
    """Yield what there is to do for an empty collection.

    Raises:
        DataError: an archive cannot be read.
    """
    for source, items in walk:
        for item in items:
            yield ToEmbed(item, source.root_name, new=True)


def make_plan(store: VectorStore, name: str, walk: SourceScan, *, checksum: bool = False) -> SyncPlan:
    """Sort what is on disk and what is stored into what is to be done.

    Args:
        store: Where.
        name: The collection.
        walk: What it should hold.
        checksum: Compare SHA-256, not size and time: every picture that is stored is to be read.

    Raises:
        DataError: an archive cannot be read.
        StoreError: the store failed.
    """
    plan, met = SyncPlan(), _SeenPoints()
    for source, items in walk:
        stored = store.get(name, [item.id for item in items])
        for item in items:
            _place(plan, item, source.root_name, stored.get(item.id), checksum=checksum)
        met.counts[source.root_name] += len(stored)
        for point in stored:
            met.ids.add(point)
    met.ids.settle()
    _find_missing(store, name, walk, plan, met)
    _find_content(store, name, plan)
    return plan


@dataclass(frozen=True, slots=True)
class _SeenPoints:
    """What of the stored points was met on disk: their ids, and how many of each root."""

    ids: IdSet = field(default_factory=IdSet)
    counts: Counter[str] = field(default_factory=Counter)


def payload_of(item: Item, root_name: str, facts: FileInfo) -> dict[str, Any]:
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


def extra_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stored payload says that no item says of itself, and no path: what came from tables."""
    return {key: value for key, value in payload.items() if key not in RESERVED and key != "person"}


def _place(plan: SyncPlan, item: Item, root_name: str, stored: Record | None, *, checksum: bool) -> None:
    if stored is None:
        plan.to_embed.append(ToEmbed(item, root_name, new=True))
        return
    payload = stored.payload
    relabel = item.payload is not None and not _has_same_fields(item, stored)
    if checksum:
        sums = frozenset([payload["sha256"]])
        plan.to_embed.append(ToEmbed(item, root_name, new=False, known_hashes=sums, relabel=relabel))
    elif item.facts() != (payload["size"], payload["mtime_ns"]):
        plan.to_embed.append(ToEmbed(item, root_name, new=False))
    elif relabel:
        plan.to_update.append(ToUpdate(item, root_name, _facts_of(stored), item.id, "relabelled"))
    else:
        plan.unchanged += 1


def _facts_of(record: Record) -> FileInfo:
    return FileInfo(*(record.payload[key] for key in ("sha256", "size", "mtime_ns")))


def _has_same_fields(item: Item, stored: Record) -> bool:
    now = payload_of(item, "", _facts_of(stored))
    return _said(now) == _said(known_payload(stored.payload))


def _said(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key not in RESERVED}


def _find_missing(store: VectorStore, name: str, walk: SourceScan, plan: SyncPlan, met: _SeenPoints) -> None:
    """Note what is stored, should be in a source, and was not met there."""

    def closed(source: Source, path: str) -> bool:
        return any(
            of is source and (part == "./" or path.startswith(part)) for of, part in walk.unreadable_dirs
        )

    found: dict[str, str] = {}
    for root in {source.root_name for source in walk.sources}:
        under = Filter((Condition("root", "=", root),))
        if store.count(name, where=under) == met.counts[root]:
            continue  # as nearly always: all that is stored was met
        here = [source for source in walk.sources if source.root_name == root]
        for records in chunked(store.scroll(name, where=under)):
            there = met.ids.contains([record.id for record in records])
            for record, is_there in zip(records, there, strict=True):
                path = record.payload["path"]
                if not is_there and any(each.covers(path) and not closed(each, path) for each in here):
                    found[record.id] = path
    plan.missing = dict(sorted(found.items()))


def _find_content(store: VectorStore, name: str, plan: SyncPlan) -> None:
    """Note by which content what is new here is what is missing there. Only equal sizes can be."""
    if not plan.missing or not any(work.new for work in plan.to_embed):
        return
    sums: dict[int, set[str]] = {}
    for some in chunked(plan.missing):
        there = store.get(name, some)
        for point in some:  # in the order of ids
            if record := there.get(point):
                facts = _facts_of(record)
                plan.missing_by_content.setdefault((facts.size, facts.sha256), []).append(point)
                sums.setdefault(facts.size, set()).add(facts.sha256)
    wanted = {size: frozenset(some_sums) for size, some_sums in sums.items()}
    to_embed: CompressedList[ToEmbed] = CompressedList()
    for each in plan.to_embed:
        now = each.item.facts() if each.new else None
        to_embed.append(
            each if now is None or now[0] not in wanted else replace(each, known_hashes=wanted[now[0]])
        )
    plan.to_embed = to_embed
