"""What is on disk against what is stored: what is new, changed, moved, the same, or gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from encoder.chunks import FileFacts, read_file
from encoder.images import shown
from indexer.payloads import RESERVED
from indexer.points import Record
from indexer.sources import Item, Source
from indexer.store import Condition, Filter, VectorStore

__all__ = ["Kept", "Plan", "Work", "compare", "more_said", "payload_of"]

_AT_ONCE: Final = 1024


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

    work: list[Work] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    unchanged: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the comparison needs of a point; one that is ``covered`` is missing when its source lacks it."""

    facts: FileFacts
    path: str
    said: Mapping[str, Any]
    covered: bool


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
    plan, seen = Plan(), set[str]()
    for source in sources:
        stored = dict(_stored(store, name, source))
        unreadable: list[Path] = []

        def passed_over(error: OSError, folders: list[Path] = unreadable) -> None:
            folders.append(Path(str(error.filename)))
            reason = f"cannot be listed ({error.strerror or error})"
            plan.unreadable.append((shown(str(error.filename)), reason))

        for item in source.items(passed_over):
            if item.id in seen:
                continue
            seen.add(item.id)
            _place(plan, item, source.root_name, stored.get(item.id), checksum=checksum)
        inside = [f"{folder.relative_to(source.root).as_posix()}/" for folder in unreadable]
        for point, known in stored.items():
            if known.covered and not any(part == "./" or known.path.startswith(part) for part in inside):
                plan.missing[point] = known.path
    plan.missing = {point: path for point, path in sorted(plan.missing.items()) if point not in seen}
    _find_moved(store, name, plan)
    return plan


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


def _stored(store: VectorStore, name: str, source: Source) -> Iterator[tuple[str, _Stored]]:
    under = Filter((Condition("root", "=", source.root_name),))
    asked = source.reading.payload is not None
    for record in store.scroll(name, where=under):
        payload = record.payload
        path = payload["path"]
        said = {key: value for key, value in payload.items() if key not in RESERVED} if asked else {}
        yield record.id, _Stored(_facts_of(record), path, said, source.covers(path))


def _facts_of(record: Record) -> FileFacts:
    return FileFacts(*(record.payload[key] for key in ("sha256", "size", "mtime_ns")))


def _place(plan: Plan, item: Item, root_name: str, stored: _Stored | None, *, checksum: bool) -> None:
    if stored is None or not _same(item, stored.facts, checksum=checksum):
        plan.work.append(Work(item, root_name, stored is None))
    elif item.payload is not None and not _says(item, stored):
        plan.kept.append(Kept(item, root_name, stored.facts, item.id))
    else:
        plan.unchanged += 1


def _same(item: Item, facts: FileFacts, *, checksum: bool) -> bool:
    if not checksum:
        return item.facts() == (facts.size, facts.mtime_ns)
    now = _read(item)
    return now is not None and now.sha256 == facts.sha256


def _says(item: Item, stored: _Stored) -> bool:
    now = payload_of(item, "", stored.facts)
    return {key: value for key, value in now.items() if key not in RESERVED} == stored.said


def _read(item: Item) -> FileFacts | None:
    try:
        _, facts = read_file(item.file) if item.member is None else item.member.read()
    except OSError:
        return None  # it is named when it is to be embedded
    return facts


def _find_moved(store: VectorStore, name: str, plan: Plan) -> None:
    """Take for moved what is new here with the bytes of what is missing there. Only equal sizes are read."""
    if not plan.missing or not any(work.new for work in plan.work):
        return
    gone: dict[tuple[int, str], list[tuple[str, str]]] = {}
    missing = list(plan.missing)
    for start in range(0, len(missing), _AT_ONCE):
        for record in store.fetch(name, missing[start : start + _AT_ONCE]).values():
            facts = _facts_of(record)
            gone.setdefault((facts.size, facts.sha256), []).append((record.id, record.payload["path"]))
    sizes = {size for size, _ in gone}
    work: list[Work] = []
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
