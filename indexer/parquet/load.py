"""Files of latents into a collection: what ``sync`` would store for the same images, without opening one.

One piece of a file's rows is in memory at a time, however large file and collection are.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.detect import Framing
from lookalike.encoder.errors import (
    CollectionNotFoundError,
    DataError,
    InvalidArgumentError,
    ModelMismatchError,
    printable,
)
from lookalike.indexer.parquet.file import Entry, LatentsFile, Rows
from lookalike.indexer.parquet.resume import concatenate
from lookalike.indexer.sources import as_text, name_of_root
from lookalike.indexer.store import (
    CollectionSpec,
    Record,
    StorageConfig,
    VectorStore,
    create_or_open,
    resolve_alias,
)
from lookalike.indexer.sync import (
    SyncReport,
    face_count,
    face_id,
    ignored_options_warning,
    index_when_large,
    more_ids,
)

_NEW, _CHANGED, _SAME = range(3)
_CHUNK: Final = 1024
_FILE_FIELDS: Final = ("sha256", "size", "mtime_ns")


class LatentsOf(NamedTuple):
    """What a file says of itself; opened when it is needed, as there may be more than can be open at once.

    Attributes:
        file: Its path.
        spec: The model and the roots.
        rows: How many it has.
    """

    file: Path
    spec: CollectionSpec
    rows: int

    @classmethod
    def read(cls, file: Path) -> LatentsOf:
        """Read what a file says.

        Raises:
            DataError: as :meth:`LatentsFile.open` says.
        """
        with LatentsFile.open(file) as opened:
            return cls(file, opened.spec, opened.count)

    @contextmanager
    def opened(self) -> Iterator[LatentsFile]:
        """Open the file for a block.

        Raises:
            DataError: it has changed meanwhile, or as :meth:`LatentsFile.open` says.
        """
        with LatentsFile.open(self.file) as opened:
            if (opened.spec, opened.count) != (self.spec, self.rows):
                raise DataError(f"{printable(str(self.file))} has changed while it was read; run it again")
            yield opened


def load_latents(
    store: VectorStore,
    collection: str,
    files: Sequence[Path],
    *,
    root: Path | None = None,
    root_name: str | None = None,
    bundle: Bundle | None = None,
    crop: Framing | None = None,
    storage: StorageConfig | None = None,
    on_total: Callable[[int], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
    log: Callable[[str], object] = lambda _: None,
    warn: Callable[[str], object] = lambda _: None,
) -> SyncReport:
    """Bring the rows of files into a collection, which is created if there is none.

    Rows whose SHA-256, size, time and payload are as stored are left alone, so a run that is killed and
    started again ends where a whole run ends. Of rows that name the same image, in one file or several, the
    last counts. Stored items that are in no file stay, and are not counted as missing: a file does not say
    what has left a folder. All rows are checked before the first is stored. A collection that has grown large
    gets a search index at the end.

    The folders that files name are not used to open images, unless the collection was indexed from there or
    ``root`` says so: whoever wrote the file may have named any.

    Args:
        store: The store.
        collection: Name or alias of the collection.
        files: Written by ``lookalike embed``; all are checked before anything is stored.
        root: Folder that holds the images of the one root of the files; None: it is not known.
        root_name: Name in the collection for the one root of the files; None: as the files call their roots.
        bundle: The model that the files must be of; a new collection remembers its address. None: any model,
            and its address as the files have it.
        crop: The crop that the files must have; None: any.
        storage: Storage options of a new collection; for an existing one they are ignored, with a warning.
        on_total: Called with the number of rows.
        on_progress: Called after each piece with the number of rows done.
        log: Called with one-line messages, as of the start of building an index.
        warn: Called with one-line warnings: of ignored options, rows left out, and roots that are not used.

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
    described = [LatentsOf.read(file) for file in files]
    loading = Loading.checked(
        store, collection, described, root=root, root_name=root_name, bundle=bundle, crop=crop
    )
    repeated = _repeated_images(described, loading.root_names)
    count = sum(file.rows for file in described)
    compare = loading.begin(store, storage.with_known(expect=count), warn)
    on_total(count)
    name = loading.name
    report = SyncReport(collection=name)
    for rows in _joined(_last_rows(described, loading.root_names, repeated), store.piece):
        store_rows(store, name, rows, report, compare=compare)
        on_progress(len(rows.entries))
    rows_left_out = count - (report.added + report.changed + report.unchanged)
    store.flush(name)
    report.seconds = time.monotonic() - began
    index_when_large(store, name, log=log)
    if rows_left_out:
        on_progress(rows_left_out)
        warn(f"{rows_left_out} rows name an image that a later row names again; the last of them counts")
    loading.warn_of_foreign_roots(warn)
    return report


class Loading(NamedTuple):
    """A collection that files of latents are about to be loaded into. Use :meth:`checked` to make one.

    Attributes:
        name: The collection.
        existing: Its spec before; None: there is none yet.
        before: The same, or that of a new one without roots.
        spec: Its spec with the roots of the files.
        files: They.
        root_names: Of each file, the collection's name for each of its roots.
    """

    name: str
    existing: CollectionSpec | None
    before: CollectionSpec
    spec: CollectionSpec
    files: Sequence[LatentsOf]
    root_names: list[dict[str, str]]

    @classmethod
    def checked(
        cls,
        store: VectorStore,
        collection: str,
        files: Sequence[LatentsOf],
        *,
        root: Path | None,
        root_name: str | None,
        bundle: Bundle | None,
        crop: Framing | None,
    ) -> Loading:
        """Check that the files fit the collection and what was asked for; see :func:`load_latents`.

        Raises:
            ModelMismatchError, InvalidArgumentError: as :func:`load_latents` says.
        """
        for file in files:
            _check_requested(file, bundle, crop)
        name = resolve_alias(store, collection)
        existing = _existing_spec(store, name, files)
        first = files[0].spec
        before = existing or replace(
            first, roots={}, model_name=bundle.address if bundle else first.model_name
        )
        names = [_root_names(file, root, root_name, before.roots) for file in files]
        return cls(name, existing, before, _with_roots(before, files, names, root), files, names)

    def begin(self, store: VectorStore, storage: StorageConfig, warn: Callable[[str], object]) -> bool:
        """Create the collection or tell it of new roots; return whether rows must be compared with it."""
        if self.existing is None:
            created = create_or_open(store, self.name, self.spec, storage)
            if created != self.spec:  # another run made it meanwhile
                for file in self.files:
                    _check_same_model(file, created, f"collection {self.name!r}")
                store.update_info(self.name, self.spec, before=self.before)
        else:
            if (warning := ignored_options_warning(store, self.name, storage)) is not None:
                warn(warning)
            if self.spec != self.existing:
                store.update_info(self.name, self.spec, before=self.existing)
        return store.count(self.name) > 0  # an empty one is the usual case

    def warn_of_foreign_roots(self, warn: Callable[[str], object]) -> None:
        """Warn of images that will not be shown."""
        for foreign in set(self.spec.foreign_roots) - set(self.before.foreign_roots):
            warn(
                f"images of {printable(foreign)} will not be shown: only the file says that they are in "
                f"{printable(self.spec.roots[foreign])}; if they are, index it again with --root and that "
                "folder"
            )


def _with_roots(
    spec: CollectionSpec, files: Sequence[LatentsOf], names: Sequence[Mapping[str, str]], root: Path | None
) -> CollectionSpec:
    """Return a spec with the roots of the files; those that only a file tells are foreign."""
    roots, foreign = dict(spec.roots), set(spec.foreign_roots)
    for file, root_names in zip(files, names, strict=True):
        for own, folder in file.spec.roots.items():
            name = root_names[own]
            if root is not None:
                roots[name] = as_text(root.resolve())
                foreign.discard(name)
            elif name not in roots or name in foreign:
                roots[name] = folder
                foreign.add(name)
    return replace(spec, roots=roots, foreign_roots=tuple(sorted(foreign)))


def _repeated_images(files: Sequence[LatentsOf], names: Sequence[Mapping[str, str]]) -> Counter[bytes]:
    """Check all rows, and return the keys of the images that several rows name, with the number of rows.

    Memory holds 16 bytes of each row.
    """
    keys = bytearray()
    for file, root_names in zip(files, names, strict=True):
        with file.opened() as opened:
            for places in opened.check_rows():
                for root, path, face in places:
                    keys += _item_key(root_names[root], path, face)
    ordered = np.frombuffer(keys, "S16").copy()
    ordered.sort()
    again, counts = np.unique(ordered[1:][ordered[1:] == ordered[:-1]], return_counts=True)
    rows = zip(again.tolist(), counts.tolist(), strict=True)
    return Counter({key.ljust(16, b"\0"): number + 1 for key, number in rows})


def _item_key(root_name: str, path: str, face: int) -> bytes:
    """Return 16 bytes that tell an image, or a face in it, from others; its id takes four times as long."""
    place = f"{root_name}\0{path}" if face < 2 else f"{root_name}\0{path}\0{face}"
    return blake2b(place.encode(), digest_size=16).digest()


def _check_requested(file: LatentsOf, bundle: Bundle | None, crop: Framing | None) -> None:
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


def _existing_spec(store: VectorStore, name: str, files: Sequence[LatentsOf]) -> CollectionSpec | None:
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


def _check_same_model(file: LatentsOf, spec: CollectionSpec, holder: str) -> None:
    own = file.spec
    if not own.same_embedding(spec):
        raise ModelMismatchError(
            f"{holder} holds vectors of model {spec.model_name} ({spec.model_id[:12]}, --crop {spec.crop}), "
            f"{printable(str(file.file))} of {own.model_name} ({own.model_id[:12]}, --crop {own.crop}); "
            "embed with the same, or index into another collection"
        )


def _root_names(
    file: LatentsOf, root: Path | None, root_name: str | None, known_roots: Mapping[str, str]
) -> dict[str, str]:
    """Return the collection's name for each root of a file."""
    roots = file.spec.roots
    for option, given in (("--root-name", root_name), ("--root", root)):
        if given is not None and len(roots) > 1:
            raise InvalidArgumentError(
                f"{option} names one root, {printable(str(file.file))} has {', '.join(roots)}; leave it out"
            )
    return {
        own: name_of_root(own, folder if root is None else as_text(root.resolve()), root_name, known_roots)
        for own, folder in roots.items()
    }


def _last_rows(
    files: Sequence[LatentsOf], names: Sequence[Mapping[str, str]], repeated: Counter[bytes]
) -> Iterator[Rows]:
    """Yield all rows under the collection's root names, without those whose image a later row names.

    Args:
        files: The files.
        names: The collection's name for each root, of each file.
        repeated: Keys of images that several rows name, with the number of rows still to come; counted down.
    """
    for file, root_names in zip(files, names, strict=True):
        with file.opened() as opened:
            for rows in opened.rows():
                entries = [entry._replace(root=root_names[entry.root]) for entry in rows.entries]
                keep = np.ones(len(entries), np.bool_)
                for place, entry in enumerate(entries if repeated else ()):
                    key = _item_key(entry.root, entry.path, entry.face)
                    if key in repeated:
                        repeated[key] -= 1
                        keep[place] = repeated[key] == 0
                yield Rows(entries, rows.vectors) if keep.all() else Rows(entries, rows.vectors).select(keep)


def whole_part(part: LatentsFile, root_names: Mapping[str, str]) -> Rows:
    """Check a file, and return its rows under the collection's root names; of repeated ones the last.

    Raises:
        DataError: it is damaged, or a row is invalid.
    """
    for _ in part.check_rows():
        pass
    groups = list(part.rows()) or [Rows([], np.empty((0, part.spec.dimension), np.float32))]
    rows = concatenate(groups)
    entries = [entry._replace(root=root_names[entry.root]) for entry in rows.entries]
    last = {face_id(entry.root, entry.path, entry.face): place for place, entry in enumerate(entries)}
    keep = np.zeros(len(entries), np.bool_)
    keep[list(last.values())] = True
    return Rows(entries, rows.vectors).select(keep)


def is_stored(record: Record | None, entry: Entry) -> bool:
    """Whether a row is stored as it is."""
    return _state(record, entry, _payload(entry)) == _SAME


def _joined(groups: Iterator[Rows], together: int) -> Iterator[Rows]:
    """Join small groups: making a few points durable costs a store as much as making a thousand."""
    held: list[Rows] = []
    for rows in groups:
        held.append(rows)
        if sum(len(each.entries) for each in held) >= together:
            yield held[0] if len(held) == 1 else concatenate(held)
            held = []
    if held:
        yield concatenate(held)


def store_rows(store: VectorStore, name: str, rows: Rows, report: SyncReport, *, compare: bool) -> None:
    """Store the rows that are new or have changed, and count all.

    Args:
        store: The store.
        name: The collection.
        rows: They, under the collection's root names.
        report: Where they are counted.
        compare: Whether some may be stored already.
    """
    ids = [face_id(entry.root, entry.path, entry.face) for entry in rows.entries]
    payloads = [_payload(entry) for entry in rows.entries]
    states = np.full(len(ids), _NEW)
    gone: list[str] = []
    for start in range(0, len(ids) if compare else 0, _CHUNK):
        part = slice(start, start + _CHUNK)
        stored = store.get(name, ids[part])
        for key, payload in zip(ids[part], payloads[part], strict=True):
            if key in stored and (count := face_count(payload)) is not None:
                gone += more_ids(stored[key].payload, kept=max(1, count))
        states[part] = [
            _state(stored.get(key), entry, payload)
            for key, entry, payload in zip(ids[part], rows.entries[part], payloads[part], strict=True)
        ]
    if gone:  # faces of images that have fewer now
        store.delete(name, gone)
    to_write = np.flatnonzero(states != _SAME)
    if to_write.size:
        written = [payloads[row] for row in to_write]
        store.upsert(name, [ids[row] for row in to_write], rows.vectors[to_write], written)
    report.added += int((states == _NEW).sum())
    report.changed += int((states == _CHANGED).sum())
    report.unchanged += int((states == _SAME).sum())


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
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other
