"""Files of latents into a collection: what ``indexer.load`` would store, with no picture opened.

In memory are one piece of a file's rows, and for each item that is stored under its roots 32 bytes.

Legend: n rows, S stored items, D dimensions of an embedding.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encoder.errors import CollectionNotFoundError, ModelMismatchError, OptionError
from encoder.images import shown
from indexer.latents import Entry, LatentsFile
from indexer.report import Report
from indexer.sources import Source, as_path, item_id, named
from indexer.spec import CollectionSpec
from indexer.store import Condition, Filter, VectorStore

__all__ = ["load_latents"]

_NEW, _CHANGED, _SAME = range(3)
_WIDE: Final = "S16"


def load_latents(
    store: VectorStore,
    name: str,
    files: Sequence[Path],
    *,
    root_name: str | None = None,
    model_name: str | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Report:
    """Bring the rows of files into a collection, which is made when it is not there.

    Rows whose SHA-256, size and time are as stored are left alone; so a run that is killed and started again
    ends where a whole one ends. What is stored and in no file stays, and is not counted as missing: a file
    does not say what has left a folder.

    Args:
        store: Where to.
        name: The collection.
        files: Written by ``lookalike embed``; all are opened before anything is stored.
        root_name: What the collection calls the one root of the files; None: as they do.
        model_name: What opens the model again, for a new collection; None: as the files say.
        on_total: Told how many rows there are.
        on_progress: Told of each piece: rows done.

    Raises:
        ModelMismatchError: the collection, or another of the files, is of another model or crop.
        DataError: a file is damaged, or is not from ``lookalike embed``.
        OptionError: the collection knows another folder by a root's name; ``root_name`` cannot be.
        MissingExtraError: pyarrow is not installed.
        StoreError: the store failed; what was acknowledged before stays.
    """
    began = time.monotonic()
    report = Report()
    with ExitStack() as stack:
        opened = [stack.enter_context(LatentsFile.open(file)) for file in files]
        spec = _stored_spec(store, name, opened)
        new = spec is None
        spec = spec or replace(opened[0].spec, roots={}, model_name=model_name or opened[0].spec.model_name)
        calls = [_names(file, root_name, spec.roots) for file in opened]
        roots = dict(spec.roots)
        for file, call in zip(opened, calls, strict=True):
            for root, folder in file.spec.roots.items():
                roots[call[root]] = folder
        if new:
            store.create(name, replace(spec, roots=roots))
        elif roots != spec.roots:
            store.redescribe(name, replace(spec, roots=roots))
        on_total(sum(file.count for file in opened))
        for file, call in zip(opened, calls, strict=True):
            _load(store, name, file, call, report, on_progress)
    store.flush(name)
    report.seconds = time.monotonic() - began
    return report


def _stored_spec(store: VectorStore, name: str, files: Sequence[LatentsFile]) -> CollectionSpec | None:
    """Return what the collection remembers; None when it is still to be made."""
    first = files[0]
    for file in files[1:]:
        _check_model(file, first.spec, shown(str(first.file)))
    try:
        spec = store.describe(name)
    except CollectionNotFoundError:
        return None
    for file in files:
        _check_model(file, spec, f"collection {name!r}")
    return spec


def _check_model(file: LatentsFile, spec: CollectionSpec, where: str) -> None:
    ours = file.spec
    if (ours.model_id, ours.dimension, ours.crop) != (spec.model_id, spec.dimension, spec.crop):
        raise ModelMismatchError(
            f"{where} holds vectors of model {spec.model_name} ({spec.model_id[:12]}, --crop {spec.crop}), "
            f"{shown(str(file.file))} of {ours.model_name} ({ours.model_id[:12]}, --crop {ours.crop}); "
            "embed with the same, or index into another collection"
        )


def _names(file: LatentsFile, root_name: str | None, known: Mapping[str, str]) -> dict[str, str]:
    """Return what the collection calls each root of a file."""
    roots = file.spec.roots
    if root_name is not None and len(roots) > 1:
        raise OptionError(
            f"--root-name names one root, {shown(str(file.file))} has {', '.join(roots)}; leave it out"
        )
    return {
        root: named(Source(root, as_path(folder)), root_name, known).root_name
        for root, folder in roots.items()
    }


def _load(
    store: VectorStore,
    name: str,
    file: LatentsFile,
    call: dict[str, str],
    report: Report,
    on_progress: Callable[[int], object],
) -> None:
    stored = _Stored(store, name, sorted(set(call.values())))
    for rows in file.rows():
        entries = [entry._replace(root=call[entry.root]) for entry in rows.entries]
        ids = [item_id(entry.root, entry.path) for entry in entries]
        states = stored.compare(ids, entries)
        work = np.flatnonzero(states != _SAME)
        if work.size:
            payloads = [_payload(entries[row]) for row in work]
            store.upsert(name, [ids[row] for row in work], rows.vectors[work], payloads)
        report.added += int((states == _NEW).sum())
        report.changed += int((states == _CHANGED).sum())
        report.unchanged += int((states == _SAME).sum())
        on_progress(len(entries))


class _Stored:
    """What is stored under some roots: id and facts of S items as S16 (S,), sorted by id."""

    def __init__(self, store: VectorStore, name: str, roots: Sequence[str]) -> None:
        ids, facts = bytearray(), bytearray()
        for root in roots:
            for record in store.scroll(name, where=Filter((Condition("root", "=", root),))):
                payload = record.payload
                ids += uuid.UUID(record.id).bytes
                facts += _facts(payload.get("sha256"), payload.get("size"), payload.get("mtime_ns"))
        order = np.argsort(np.frombuffer(bytes(ids), _WIDE), kind="stable")
        self._ids = np.frombuffer(bytes(ids), _WIDE)[order]
        self._facts = np.frombuffer(bytes(facts), _WIDE)[order]

    def compare(self, ids: Sequence[str], entries: Sequence[Entry]) -> NDArray[np.int64]:
        """Return for each of n rows whether it is new, changed or the same, int64 (n,)."""
        wanted = np.array([uuid.UUID(each).bytes for each in ids], _WIDE)
        facts = np.array([_facts(each.sha256, each.size, each.mtime_ns) for each in entries], _WIDE)
        states = np.full(len(wanted), _NEW)
        if self._ids.size:
            places = np.searchsorted(self._ids, wanted).clip(max=self._ids.size - 1)
            there = self._ids[places] == wanted
            states[there] = np.where(self._facts[places] == facts, _SAME, _CHANGED)[there]
        return states


def _facts(sha256: object, size: object, mtime_ns: object) -> bytes:
    return blake2b(f"{sha256}\0{size}\0{mtime_ns}".encode(), digest_size=16).digest()


def _payload(entry: Entry) -> dict[str, Any]:
    payload = entry._asdict()
    if entry.person is None:
        del payload["person"]
    return payload
