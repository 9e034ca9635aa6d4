"""Scan sources, each image once, and compare: which items are new, changed, moved, unchanged or missing.

Memory holds 16 bytes of each stored item, some tens of each that is to be written, and the paths of all that
are missing. No file is opened: where only its content can tell, the plan says so, and the decision is made
when the file is read, from the bytes that are then decoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from lookalike.encoder.embed import FileInfo
from lookalike.encoder.errors import printable
from lookalike.indexer.sources import Item, Source
from lookalike.indexer.store import (
    CLUSTER,
    CLUSTER_NAME,
    MOVED_TO,
    RESERVED,
    Condition,
    Filter,
    Payload,
    Record,
    VectorStore,
    group_payload,
    known_payload,
)
from lookalike.indexer.sync.collection import CompressedList, IdSet
from lookalike.indexer.sync.faces import face_count, face_number, face_payloads, points_in, with_more

CHUNK: Final = 1024
_Each = TypeVar("_Each")


class SourceScan:
    """One scan of some sources; it can be iterated once.

    Args:
        sources: They may overlap.
        on_found: Called with the number of items that were found since the last call.

    Attributes:
        sources: The same.
        unreadable_dirs: Folders that could not be listed so far: source, and path relative to its root.
        unreadable: The same folders as they are shown, with the reason.
        skipped: What was passed over in folders so far: kind to how many.
    """

    def __init__(self, sources: Sequence[Source], on_found: Callable[[int], object] = lambda _: None) -> None:
        self.sources = sources
        self._on_found = on_found
        self.unreadable_dirs: list[tuple[Source, str]] = []
        self.unreadable: list[tuple[str, str]] = []
        self.skipped = Counter[str]()
        self._skipped_files: set[Path] = set()
        self._remaining = self._chunks()

    def __iter__(self) -> Iterator[tuple[Source, list[Item]]]:
        """Yield new items in chunks, with the source that has them.

        Raises:
            DataError: an archive cannot be read.
        """
        return self._remaining

    def at_least(self, count: int) -> bool:
        """Look ahead: whether at least ``count`` items are left.

        Raises:
            DataError: an archive cannot be read.
        """
        ahead: list[tuple[Source, list[Item]]] = []
        while sum(len(items) for _, items in ahead) < count and (chunk := next(self._remaining, None)):
            ahead.append(chunk)
        self._remaining = chain(ahead, self._remaining)
        return sum(len(items) for _, items in ahead) >= count

    def _chunks(self) -> Iterator[tuple[Source, list[Item]]]:
        for source, new in new_items(self.sources, self._note_unreadable, self._note_skipped):
            self._on_found(len(new))
            yield source, new

    def _note_skipped(self, source: Source, relative: str, kind: str) -> None:
        if len(self.sources) > 1:  # they may overlap
            file = source.root / relative
            if file in self._skipped_files:
                return
            self._skipped_files.add(file)
        self.skipped[kind] += 1

    def _note_unreadable(self, source: Source, error: OSError) -> None:
        folder = str(error.filename)
        self.unreadable_dirs.append((source, f"{Path(folder).relative_to(source.root).as_posix()}/"))
        self.unreadable.append((printable(folder), f"cannot be listed ({error.strerror or error})"))


def new_items(
    sources: Sequence[Source],
    on_unreadable: Callable[[Source, OSError], object],
    on_skipped: Callable[[Source, str, str], object],
) -> Iterator[tuple[Source, list[Item]]]:
    """Yield the items of sources in chunks, without those that an earlier source has.

    Only sources of one root can have the same items: memory holds 16 bytes of each of these.

    Args:
        sources: They may overlap.
        on_unreadable: Called with a source and a folder of it that cannot be listed.
        on_skipped: Called with a source, and what is passed over in it, as :meth:`Source.items` says.

    Raises:
        DataError: an archive cannot be read.
    """
    left = Counter(source.root_name for source in sources)
    found = {root: IdSet() for root, count in left.items() if count > 1}
    for source in sources:
        left[source.root_name] -= 1
        earlier = found.get(source.root_name)
        items = source.items(partial(on_unreadable, source), partial(on_skipped, source))
        if earlier is None:
            yield from ((source, chunk) for chunk in chunked(items))
            continue
        for chunk in chunked(items):
            known = earlier.contains([item.id for item in chunk])
            new = [item for item, is_known in zip(chunk, known, strict=True) if not is_known]
            for item in new if left[source.root_name] else ():
                earlier.add(item.id)
            yield source, new
        earlier.settle()


def chunked(each: Iterable[_Each], size: int = CHUNK) -> Iterator[list[_Each]]:
    """Yield the same elements in lists of ``size``; the last may be shorter."""
    left = iter(each)
    while chunk := list(islice(left, size)):
        yield chunk


@dataclass(frozen=True, slots=True)
class ToEmbed:
    """An item to read, and to embed unless its content is known.

    Attributes:
        item: The item.
        root_name: Name of its root.
        new: Whether the collection has never had it.
        known_hashes: SHA-256 sums whose vector is stored already: the item's own, or those of missing items.
        relabel: Whether its payload differs from what is stored.
    """

    item: Item
    root_name: str
    new: bool
    known_hashes: frozenset[str] = frozenset()
    relabel: bool = False

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return printable(str(self.item.file))

    def __reduce__(self) -> tuple[type[ToEmbed], tuple[object, ...]]:
        """Be pickled as its arguments, as an item is."""
        return type(self), (self.item, self.root_name, self.new, self.known_hashes, self.relabel)


@dataclass(frozen=True, slots=True)
class ToUpdate:
    """An item to store with a vector that is stored already.

    Attributes:
        item: The item as it is now.
        root_name: Name of its root.
        info: Hash, size and time of its file.
        stored_id: The point that holds its vector: its own, or that of its previous path.
        status: ``relabelled``; ``moved``; or ``added``: a second file with the content of one that moved.
        previous_path: Where it was before it moved.
    """

    item: Item
    root_name: str
    info: FileInfo
    stored_id: str
    status: Literal["relabelled", "moved", "added"]
    previous_path: str = ""


@dataclass(slots=True)
class SyncPlan:
    """What a sync has to do.

    Attributes:
        to_embed: Items to read.
        to_update: Items to store again with the vector that is stored.
        unchanged: How many items stay as they are.
        missing: Stored items that are no longer in the sources, id to path; of the faces of a picture the
            first.
        emptied: Folders that are there and empty, and how many stored items they or folders below them held,
            without those that may have moved.
        superseded: Old points of items that an earlier run moved, and was killed before it deleted them; of
            the faces of a picture the first.
        missing_by_content: (size, SHA-256) to the ids of missing items with that content, not matched so far.
        vector_points: (size, SHA-256) to the point that holds the vector of a matched item.
    """

    to_embed: CompressedList[ToEmbed] = field(default_factory=CompressedList)
    to_update: CompressedList[ToUpdate] = field(default_factory=CompressedList)
    unchanged: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    emptied: dict[str, int] = field(default_factory=dict)
    superseded: list[str] = field(default_factory=list)
    missing_by_content: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    vector_points: dict[tuple[int, str], str] = field(default_factory=dict)

    def resolve_known(self, entry: ToEmbed, info: FileInfo) -> ToUpdate | None:
        """Return the update for an entry whose content turned out to be known; None: it is unchanged.

        The missing item that it is matched with is missing no more.
        """
        if not entry.new:
            if not entry.relabel:
                return None
            return ToUpdate(entry.item, entry.root_name, info, entry.item.id, "relabelled")
        content = info.size, info.sha256
        if not (missing := self.missing_by_content[content]):
            return ToUpdate(entry.item, entry.root_name, info, self.vector_points[content], "added")
        point = self.vector_points[content] = missing.pop(0)
        return ToUpdate(entry.item, entry.root_name, info, point, "moved", self.missing.pop(point))

    def mark_written(self, update: ToUpdate) -> None:
        """Note that the vector of a moved item is now under its new id."""
        if update.status == "moved":
            self.vector_points[update.info.size, update.info.sha256] = update.item.id


def all_new(scan: SourceScan) -> Iterator[ToEmbed]:
    """Yield what an empty collection needs: every item of the sources.

    Raises:
        DataError: an archive cannot be read.
    """
    for source, items in scan:
        for item in items:
            yield ToEmbed(item, source.root_name, new=True)


def make_plan(store: VectorStore, name: str, scan: SourceScan, *, checksum: bool = False) -> SyncPlan:
    """Compare the sources with a collection.

    Args:
        store: The store.
        name: The collection.
        scan: The sources that it should hold.
        checksum: Compare SHA-256 instead of size and time, and each stored vector with its checksum: every
            stored image will be read.

    Raises:
        DataError: an archive cannot be read.
        StoreError: the store failed.
    """
    plan, seen, seen_per_root = SyncPlan(), IdSet(), Counter[str]()
    for source, items in scan:
        stored = store.get(name, [item.id for item in items], with_vectors=checksum)
        if checksum:
            stored = _with_damage(store, name, stored)
        for item in items:
            _add_to_plan(plan, item, source.root_name, stored.get(item.id), checksum=checksum)
        seen_per_root[source.root_name] += points_in(record.payload for record in stored.values())
        for point in stored:
            seen.add(point)
    seen.settle()
    held = _find_missing(store, name, scan, plan, seen, seen_per_root)
    maybe_moved = _match_contents(store, name, plan)
    for (folder, size), count in held.items():
        if size not in maybe_moved and (empty := _empty_folder(folder)) is not None:
            plan.emptied[empty] = plan.emptied.get(empty, 0) + count
    return plan


def _with_damage(store: VectorStore, name: str, stored: dict[str, Record]) -> dict[str, Record]:
    """Return the first points of pictures, damaged where any of their faces is."""
    return {
        key: replace(records[0], damaged=any(record.damaged for record in records))
        for key, records in with_more(store, name, stored, with_vectors=True).items()
    }


def payload_of(item: Item, root_name: str, info: FileInfo) -> dict[str, Any]:
    """Return the payload to store with the vector of an item."""
    own = {
        "root": root_name,
        "path": item.path,
        "sha256": info.sha256,
        "size": info.size,
        "mtime_ns": info.mtime_ns,
    }
    person = {} if item.person is None else {"person": item.person}
    return {**person, **(item.payload or {}), **own}


def folder_person(item: Item) -> str | None:
    """Return the person that the folder of an item names, unless a table names one."""
    return None if "person" in (item.payload or {}) else item.person


def kept_payload(before: Payload, item: Item, *, same_content: bool) -> dict[str, Any]:
    """Return what stays of a stored payload where no table says anything of the item now.

    That is what earlier tables said of it and, of the same content, what was predicted and its group of
    similar items. The person stays too, unless it was found in a path that the item no longer has.
    """
    payload = dict(before) if same_content else known_payload(before)
    if not same_content:
        payload = {key: value for key, value in payload.items() if key not in (CLUSTER, CLUSTER_NAME)}
    person, path = before.get("person"), before["path"]
    from_old_path = isinstance(person, str) and person in path and path != item.path
    return {
        key: value
        for key, value in payload.items()
        if key not in RESERVED and not (key == "person" and from_old_path)
    }


def _add_to_plan(
    plan: SyncPlan, item: Item, root_name: str, stored: Record | None, *, checksum: bool
) -> None:
    if stored is None:
        plan.to_embed.append(ToEmbed(item, root_name, new=True))
        return
    payload = stored.payload
    relabel = item.payload is not None and not _has_same_fields(item, stored)
    if checksum:
        # A vector that is not as it was stored is embedded again, whatever the file holds.
        own_hash = frozenset([] if stored.damaged else [payload["sha256"]])
        plan.to_embed.append(ToEmbed(item, root_name, new=False, known_hashes=own_hash, relabel=relabel))
    elif item.size_and_mtime() != (payload["size"], payload["mtime_ns"]):
        plan.to_embed.append(ToEmbed(item, root_name, new=False))
    elif relabel:
        plan.to_update.append(ToUpdate(item, root_name, _file_info(stored), item.id, "relabelled"))
    else:
        plan.unchanged += 1


def _file_info(record: Record) -> FileInfo:
    return FileInfo(*(record.payload[key] for key in ("sha256", "size", "mtime_ns")))


def _has_same_fields(item: Item, stored: Record) -> bool:
    def without_reserved(payload: Payload) -> dict[str, Any]:
        return {key: value for key, value in payload.items() if key not in RESERVED}

    now = group_payload(stored.payload) | payload_of(item, "", _file_info(stored))
    if face_count(stored.payload) not in (None, 1):
        (now, *_) = face_payloads(now, [], folder_person=folder_person(item))
    return without_reserved(now) == without_reserved(known_payload(stored.payload))


def _find_missing(
    store: VectorStore,
    name: str,
    scan: SourceScan,
    plan: SyncPlan,
    seen: IdSet,
    seen_per_root: Mapping[str, int],
) -> Counter[tuple[Path, int]]:
    """Note the stored items that a source should hold and that the scan did not see.

    Returns how many of each size each folder held.
    """
    missing: dict[str, str] = {}
    moved: dict[str, str] = {}
    held = Counter[tuple[Path, int]]()
    for source, record in _unseen(store, name, scan, seen, seen_per_root):
        missing[record.id] = path = record.payload["path"]
        held[(source.root / path).parent, record.payload["size"]] += 1
        if isinstance(new_id := record.payload.get(MOVED_TO), str):
            moved[record.id] = new_id
    for chunk in chunked(moved):
        written = store.get(name, [moved[old] for old in chunk])
        plan.superseded += (old for old in chunk if moved[old] in written)
    for old in plan.superseded:
        del missing[old]
    plan.missing = dict(sorted(missing.items()))
    return held


def _unseen(
    store: VectorStore, name: str, scan: SourceScan, seen: IdSet, seen_per_root: Mapping[str, int]
) -> Iterator[tuple[Source, Record]]:
    """Yield the stored items of the sources' roots that the scan did not see, with the source of each."""

    def unreadable(source: Source, path: str) -> bool:
        return any(
            of is source and (folder == "./" or path.startswith(folder))
            for of, folder in scan.unreadable_dirs
        )

    if store.count(name) == sum(seen_per_root.values()):
        return  # the usual case: all that is stored was seen
    for root in {source.root_name for source in scan.sources}:
        of_root = Filter((Condition("root", "=", root),))
        if store.count(name, where=of_root) == seen_per_root[root]:
            continue
        sources = [source for source in scan.sources if source.root_name == root]
        for records in chunked(store.scroll(name, where=of_root)):
            # The faces of a picture are missing together, and the first stands for all.
            records = [record for record in records if face_number(record.payload) <= 1]
            was_seen = seen.contains([record.id for record in records])
            for record in (record for record, is_seen in zip(records, was_seen, strict=True) if not is_seen):
                path = record.payload["path"]
                of = (each for each in sources if each.covers(path) and not unreadable(each, path))
                if (source := next(of, None)) is not None:
                    yield source, record


def _empty_folder(folder: Path) -> str | None:
    """Return the folder, or the nearest one above that exists, if it is empty: a mount point is."""
    for each in (folder, *folder.parents):
        try:
            return None if any(each.iterdir()) else str(each)
        except FileNotFoundError:
            continue
        except OSError:  # an archive, or nothing that can be listed
            return None
    return None


def _match_contents(store: VectorStore, name: str, plan: SyncPlan) -> set[int]:
    """Note in new entries which missing items they may be, moved; only those of equal size can be.

    Returns the sizes of these entries.
    """
    if not plan.missing or not any(entry.new for entry in plan.to_embed):
        return set()
    hashes: dict[int, set[str]] = {}
    for points in chunked(plan.missing):
        records = store.get(name, points)
        for point in points:  # in the order of ids
            if record := records.get(point):
                info = _file_info(record)
                plan.missing_by_content.setdefault((info.size, info.sha256), []).append(point)
                hashes.setdefault(info.size, set()).add(info.sha256)
    hashes_by_size = {size: frozenset(some) for size, some in hashes.items()}
    to_embed: CompressedList[ToEmbed] = CompressedList()
    sizes: set[int] = set()
    for entry in plan.to_embed:
        now = entry.item.size_and_mtime() if entry.new else None
        known = None if now is None else hashes_by_size.get(now[0])
        if known is not None and now is not None:
            sizes.add(now[0])
        to_embed.append(entry if known is None else replace(entry, known_hashes=known))
    plan.to_embed = to_embed
    return sizes
