"""Files of latents into a collection: what ``lookalike.indexer.sync.sync`` would store, with no picture opened.

In memory is one piece of a file's rows, however many there are in it and in the collection.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from lookalike.encoder.errors import CollectionNotFoundError, InvalidArgumentError, ModelMismatchError
from lookalike.encoder.text import printable
from lookalike.indexer.parquet.file import Entry, LatentsFile
from lookalike.indexer.sources.source import Source, as_path, item_id, with_root_name
from lookalike.indexer.store.aliases import resolve_alias
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.layout import StorageConfig
from lookalike.indexer.store.points import Record
from lookalike.indexer.store.spec import CollectionSpec
from lookalike.indexer.sync.report import SyncReport

_NEW, _CHANGED, _SAME = range(3)
_AT_ONCE: Final = 1024
_FACTS: Final = ("sha256", "size", "mtime_ns")


def load_latents(
    store: VectorStore,
    name: str,
    files: Sequence[Path],
    *,
    root_name: str | None = None,
    model_name: str | None = None,
    options: StorageConfig | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> SyncReport:
    """Bring the rows of files into a collection, which is made when it is not there.

    Rows whose SHA-256, size and time are as stored, and whatever more the file says of them, are left alone;
    so a run that is killed and started again ends where a whole one ends. What is stored and in no file
    stays, and is not counted as missing: a file does not say what has left a folder.

    Args:
        store: Where to.
        name: The collection.
        files: Written by ``lookalike embed``; all are opened before anything is stored.
        root_name: What the collection calls the one root of the files; None: as they do.
        model_name: What opens the model again, for a new collection; None: as the files say.
        options: How a new collection is to lie in the store; by default, as so many rows should.
        on_total: Told how many rows there are.
        on_progress: Told of each piece: rows done.

    Raises:
        ModelMismatchError: the collection, or another of the files, is of another model or crop.
        DataError: a file is damaged, or is not from ``lookalike embed``.
        InvalidArgumentError: the collection knows another folder by a root's name; ``root_name`` cannot be.
        MissingExtraError: pyarrow is not installed.
        StoreError: the store failed; what was acknowledged before stays.
    """
    began = time.monotonic()
    report = SyncReport()
    with ExitStack() as stack:
        opened = [stack.enter_context(LatentsFile.open(file)) for file in files]
        name = resolve_alias(store, name)
        spec = _stored_spec(store, name, opened)
        new = spec is None
        spec = spec or replace(opened[0].spec, roots={}, model_name=model_name or opened[0].spec.model_name)
        calls = [_names(file, root_name, spec.roots) for file in opened]
        roots = dict(spec.roots)
        for file, call in zip(opened, calls, strict=True):
            for root, folder in file.spec.roots.items():
                roots[call[root]] = folder
        count = sum(file.count for file in opened)
        if new:
            wanted = (options or StorageConfig()).with_known(expect=count)
            store.create(name, replace(spec, roots=roots), wanted)
        elif roots != spec.roots:
            store.update_info(name, replace(spec, roots=roots))
        on_total(count)
        for file, call in zip(opened, calls, strict=True):
            _load(store, name, file, call, report, on_progress)
    store.flush(name)
    report.seconds = time.monotonic() - began
    return report


def _stored_spec(store: VectorStore, name: str, files: Sequence[LatentsFile]) -> CollectionSpec | None:
    """Return what the collection remembers; None when it is still to be made."""
    first = files[0]
    for file in files[1:]:
        _check_model(file, first.spec, printable(str(first.file)))
    try:
        spec = store.info(name)
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
            f"{printable(str(file.file))} of {ours.model_name} ({ours.model_id[:12]}, --crop {ours.crop}); "
            "embed with the same, or index into another collection"
        )


def _names(file: LatentsFile, root_name: str | None, known: Mapping[str, str]) -> dict[str, str]:
    """Return what the collection calls each root of a file."""
    roots = file.spec.roots
    if root_name is not None and len(roots) > 1:
        raise InvalidArgumentError(
            f"--root-name names one root, {printable(str(file.file))} has {', '.join(roots)}; leave it out"
        )
    return {
        root: with_root_name(Source(root, as_path(folder)), root_name, known).root_name
        for root, folder in roots.items()
    }


def _load(
    store: VectorStore,
    name: str,
    file: LatentsFile,
    call: dict[str, str],
    report: SyncReport,
    on_progress: Callable[[int], object],
) -> None:
    empty = store.count(name) == 0  # as it mostly is: nothing need be asked of it
    for rows in file.rows():
        entries = [entry._replace(root=call[entry.root]) for entry in rows.entries]
        ids = [item_id(entry.root, entry.path) for entry in entries]
        payloads = [_payload(entry) for entry in entries]
        states = np.full(len(ids), _NEW)
        for start in range(0, 0 if empty else len(ids), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            there = store.get(name, ids[part])
            states[part] = [
                _state(there.get(key), entry, payload)
                for key, entry, payload in zip(ids[part], entries[part], payloads[part], strict=True)
            ]
        work = np.flatnonzero(states != _SAME)
        if work.size:
            some = [payloads[row] for row in work]
            store.upsert(name, [ids[row] for row in work], rows.vectors[work], some)
        report.added += int((states == _NEW).sum())
        report.changed += int((states == _CHANGED).sum())
        report.unchanged += int((states == _SAME).sum())
        on_progress(len(entries))


def _payload(entry: Entry) -> dict[str, Any]:
    payload = entry._asdict()
    more = payload.pop("payload") or {}
    if entry.person is None:
        del payload["person"]
    return {**more, **payload}


def _state(stored: Record | None, entry: Entry, payload: Mapping[str, Any]) -> int:
    """Return whether a row is new, changed or the same. What only the collection says of it is no change."""
    if stored is None:
        return _NEW
    there, asked = stored.payload, _FACTS if entry.payload is None else payload
    same = all(key in there and _alike(payload[key], there[key]) for key in asked)
    return _SAME if same else _CHANGED


def _alike(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)  # stores may change the last place
    return one == other
