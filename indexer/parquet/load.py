"""Files of latents into a collection: what ``sync`` would store for the same images, without opening one.

One piece of a file's rows is in memory at a time, however large file and collection are.
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

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import (
    CollectionNotFoundError,
    InvalidArgumentError,
    ModelMismatchError,
    printable,
)
from lookalike.encoder.images import Crop
from lookalike.indexer.parquet.file import Entry, LatentsFile
from lookalike.indexer.sources import Source, as_path, item_id, with_root_name
from lookalike.indexer.store import CollectionSpec, Record, StorageConfig, VectorStore, resolve_alias
from lookalike.indexer.sync import SyncReport, ignored_options_warning

_NEW, _CHANGED, _SAME = range(3)
_CHUNK: Final = 1024
_FILE_FIELDS: Final = ("sha256", "size", "mtime_ns")


def load_latents(
    store: VectorStore,
    collection: str,
    files: Sequence[Path],
    *,
    root_name: str | None = None,
    bundle: Bundle | None = None,
    crop: Crop | None = None,
    storage: StorageConfig | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
    log: Callable[[str], object] = lambda _: None,
) -> SyncReport:
    """Bring the rows of files into a collection, which is created if there is none.

    Rows whose SHA-256, size, time and payload are as stored are left alone, so a run that is killed and
    started again ends where a whole run ends. Stored items that are in no file stay, and are not counted as
    missing: a file does not say what has left a folder.

    Args:
        store: The store.
        collection: Name or alias of the collection.
        files: Written by ``lookalike embed``; all are opened before anything is stored.
        root_name: Name in the collection for the one root of the files; None: as the files call their roots.
        bundle: The model that the files must be of; a new collection remembers its address. None: any model,
            and its address as the files have it.
        crop: The crop that the files must have; None: any.
        storage: Storage options of a new collection; for an existing one they are ignored, with a warning.
        on_total: Called with the number of rows.
        on_progress: Called after each piece with the number of rows done.
        log: Called with the warning about ignored options.

    Raises:
        ModelMismatchError: the collection, or another of the files, is of another model or crop, or a file is
            not of ``bundle`` and ``crop``.
        DataError: a file is damaged, or is not from ``lookalike embed``.
        InvalidArgumentError: the collection knows another folder by a root's name, or ``root_name`` is not
            allowed.
        MissingExtraError: pyarrow is not installed.
        StoreError: the store failed; what was acknowledged before stays.
    """
    began = time.monotonic()
    storage = storage or StorageConfig()
    with ExitStack() as stack:
        opened = [stack.enter_context(LatentsFile.open(file)) for file in files]
        for file in opened:
            _check_requested(file, bundle, crop)
        name = resolve_alias(store, collection)
        existing = _existing_spec(store, name, opened)
        first = opened[0].spec
        spec = existing or replace(first, roots={}, model_name=bundle.address if bundle else first.model_name)
        root_names = [_root_names(file, root_name, spec.roots) for file in opened]
        roots = dict(spec.roots)
        for file, names in zip(opened, root_names, strict=True):
            roots |= {names[root]: folder for root, folder in file.spec.roots.items()}
        count = sum(file.count for file in opened)
        if existing is None:
            store.create(name, replace(spec, roots=roots), storage.with_known(expect=count))
        else:
            if (warning := ignored_options_warning(store, name, storage)) is not None:
                log(warning)
            if roots != spec.roots:
                store.update_info(name, replace(spec, roots=roots))
        on_total(count)
        report = SyncReport(collection=name)
        for file, names in zip(opened, root_names, strict=True):
            _load(store, name, file, names, report, on_progress)
    store.flush(name)
    report.seconds = time.monotonic() - began
    return report


def _check_requested(file: LatentsFile, bundle: Bundle | None, crop: Crop | None) -> None:
    spec, name = file.spec, printable(str(file.file))
    if bundle is not None and bundle.model_id != spec.model_id:
        raise ModelMismatchError(
            f"{name} holds vectors of model {spec.model_name} ({spec.model_id[:12]}), "
            f"--model {bundle.name} is {bundle.model_id[:12]}; leave --model out, or embed with that one"
        )
    if crop is not None and str(crop) != spec.crop:
        raise ModelMismatchError(
            f"{name} was embedded with --crop {spec.crop}, not {crop}; leave --crop out, or embed again"
        )


def _existing_spec(store: VectorStore, name: str, files: Sequence[LatentsFile]) -> CollectionSpec | None:
    """Return the spec of the collection, when all files fit it and one another; None: there is none yet."""
    first = files[0]
    for file in files[1:]:
        _check_same_model(file, first.spec, printable(str(first.file)))
    try:
        spec = store.info(name)
    except CollectionNotFoundError:
        return None
    for file in files:
        _check_same_model(file, spec, f"collection {name!r}")
    return spec


def _check_same_model(file: LatentsFile, spec: CollectionSpec, holder: str) -> None:
    own = file.spec
    if not own.same_embedding(spec):
        raise ModelMismatchError(
            f"{holder} holds vectors of model {spec.model_name} ({spec.model_id[:12]}, --crop {spec.crop}), "
            f"{printable(str(file.file))} of {own.model_name} ({own.model_id[:12]}, --crop {own.crop}); "
            "embed with the same, or index into another collection"
        )


def _root_names(file: LatentsFile, root_name: str | None, known_roots: Mapping[str, str]) -> dict[str, str]:
    """Return the collection's name for each root of a file."""
    roots = file.spec.roots
    if root_name is not None and len(roots) > 1:
        raise InvalidArgumentError(
            f"--root-name names one root, {printable(str(file.file))} has {', '.join(roots)}; leave it out"
        )
    return {
        root: with_root_name(Source(root, as_path(folder)), root_name, known_roots).root_name
        for root, folder in roots.items()
    }


def _load(
    store: VectorStore,
    name: str,
    file: LatentsFile,
    root_names: Mapping[str, str],
    report: SyncReport,
    on_progress: Callable[[int], object],
) -> None:
    empty = store.count(name) == 0  # the usual case: nothing has to be compared
    for rows in file.rows():
        entries = [entry._replace(root=root_names[entry.root]) for entry in rows.entries]
        ids = [item_id(entry.root, entry.path) for entry in entries]
        payloads = [_payload(entry) for entry in entries]
        states = np.full(len(ids), _NEW)
        for start in range(0, 0 if empty else len(ids), _CHUNK):
            part = slice(start, start + _CHUNK)
            stored = store.get(name, ids[part])
            states[part] = [
                _state(stored.get(key), entry, payload)
                for key, entry, payload in zip(ids[part], entries[part], payloads[part], strict=True)
            ]
        to_write = np.flatnonzero(states != _SAME)
        if to_write.size:
            written = [payloads[row] for row in to_write]
            store.upsert(name, [ids[row] for row in to_write], rows.vectors[to_write], written)
        report.added += int((states == _NEW).sum())
        report.changed += int((states == _CHANGED).sum())
        report.unchanged += int((states == _SAME).sum())
        on_progress(len(entries))


def _payload(entry: Entry) -> dict[str, Any]:
    payload = entry._asdict()
    extra = payload.pop("payload") or {}
    if entry.person is None:
        del payload["person"]
    return {**extra, **payload}


def _state(record: Record | None, entry: Entry, payload: Mapping[str, Any]) -> int:
    """Return whether a row is new, changed or the same; fields that only the collection has do not count."""
    if record is None:
        return _NEW
    fields = _FILE_FIELDS if entry.payload is None else payload
    same = all(key in record.payload and _equal(payload[key], record.payload[key]) for key in fields)
    return _SAME if same else _CHANGED


def _equal(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)  # stores may change the last place
    return one == other
