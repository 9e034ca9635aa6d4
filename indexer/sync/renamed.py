"""A root whose folder has been renamed or moved: recognized by its contents, and never stored twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from lookalike.encoder.embed import FileInfo, file_info
from lookalike.encoder.errors import InvalidArgumentError, printable
from lookalike.indexer.sources import Item, Source, as_path, as_text, leads_out
from lookalike.indexer.store import (
    RESERVED,
    CollectionSpec,
    Condition,
    Filter,
    Record,
    VectorStore,
    known_payload,
)
from lookalike.indexer.sync.faces import face_id, face_number

_SAMPLE: Final = 200
"""Stored images that are looked for; ids are digests, so the first are as good as random ones."""
_NEARLY_ALL: Final = 0.9
_CANDIDATES: Final = 10_000
"""Files of the sizes of these images that are read to find them."""
_CHUNK: Final = 1024


def check_renamed(store: VectorStore, name: str, spec: CollectionSpec, sources: Sequence[Source]) -> None:
    """Check that no new folder holds the images of a root whose folder is gone.

    Stored under a new name, all of them would be there twice, and searches would find files that are gone.

    Raises:
        InvalidArgumentError: one does, all or nearly all; the message says which option decides.
        DataError: an archive cannot be read.
    """
    for source in sources:
        if source.root_name in spec.roots or source.only is not None or source.listed is not None:
            continue
        for root, folder in spec.roots.items():
            if root in spec.foreign_roots or as_path(folder).exists():
                continue
            share = _share_found(store, name, root, source)
            if share >= _NEARLY_ALL:
                raise InvalidArgumentError(
                    f"{printable(str(source.root))} holds the images of {printable(root)}, whose folder "
                    f"{printable(folder)} is gone; pass --root-name {printable(root)} if it was renamed or "
                    f"moved, or --root-name {printable(source.root_name)} to store them once more"
                )


def _share_found(store: VectorStore, name: str, root: str, source: Source) -> float:
    """Return the share of a root's images, by a sample, whose content is in a source."""
    of_root = Filter((Condition("root", "=", root),))
    sample = [_content(record) for record in islice(store.scroll(name, where=of_root), _SAMPLE)]
    left = [content for content in sample if not _has_content(source.root, *content)]
    if sample and len(left) > (1 - _NEARLY_ALL) * len(sample):  # not under the old paths
        sizes = {size for _, size, _ in left}
        same_size = (item for item in source.items(lambda _: None) if _size(item) in sizes)
        infos = (file_info(item.where) for item in islice(same_size, _CANDIDATES))
        digests = {info.sha256 for info in infos if info is not None}
        left = [content for content in left if content[2] not in digests]
    return (len(sample) - len(left)) / len(sample) if sample else 0.0


def _content(record: Record) -> tuple[str, int, str]:
    """Return path, size and SHA-256 of a stored image."""
    payload = record.payload
    return str(payload.get("path", "")), int(payload.get("size", -1)), str(payload.get("sha256", ""))


def _size(item: Item) -> int | None:
    now = item.size_and_mtime()
    return None if now is None else now[0]


def _has_content(root: Path, path: str, size: int, sha256: str) -> bool:
    """Whether a folder has a file of this content under this path."""
    if leads_out(path):
        return False
    file = root / as_path(path)
    try:
        same_size = file.stat().st_size == size
    except (OSError, ValueError):
        return False
    info: FileInfo | None = file_info(file) if same_size else None
    return info is not None and info.sha256 == sha256


def absorb_doubles(
    store: VectorStore,
    name: str,
    spec: CollectionSpec,
    sources: Sequence[Source],
    log: Callable[[str], object] = lambda _: None,
) -> CollectionSpec:
    """Bring what is stored of a source's folder under other root names under the source's own.

    A folder that was renamed and indexed again has two roots. What tables said of an image stays; where both
    points have a field, that of the later name counts. Points are written before others are deleted, so a
    run that is killed loses nothing, and the next one ends the same.

    Returns:
        The spec without the other names; the store is not told yet.
    """
    for source in sources:
        folder = as_text(source.root)
        others = [root for root, known in spec.roots.items() if known == folder and root != source.root_name]
        for other in others:
            count = _absorb(store, name, other, source.root_name)
            if count:
                log(f"{count} images of {printable(other)} are now of {printable(source.root_name)}")
            roots = {root: known for root, known in spec.roots.items() if root != other}
            foreign = tuple(root for root in spec.foreign_roots if root != other)
            spec = replace(spec, roots=roots, foreign_roots=foreign)
    return spec


def _absorb(store: VectorStore, name: str, other: str, root_name: str) -> int:
    """Bring the points of one root under another root's name, and return how many there were."""
    where, count = Filter((Condition("root", "=", other),)), 0
    while records := list(islice(store.scroll(name, where=where, with_vectors=True), _CHUNK)):
        ids = [
            face_id(root_name, str(record.payload["path"]), face_number(record.payload)) for record in records
        ]
        stored = store.get(name, ids, with_vectors=True)
        payloads = [
            _merged(record, stored.get(key), root_name) for key, record in zip(ids, records, strict=True)
        ]
        vectors = [
            stored.get(key, record).undamaged_vector() for key, record in zip(ids, records, strict=True)
        ]
        store.upsert(name, ids, np.array(vectors, np.float32), payloads)
        store.delete(name, [record.id for record in records])
        count += len(records)
    return count


def _merged(record: Record, stored: Record | None, root_name: str) -> Mapping[str, Any]:
    """Return the payload of a point that takes over another's."""
    if stored is None:
        return {**record.payload, "root": root_name}
    more = {key: value for key, value in known_payload(record.payload).items() if key not in RESERVED}
    return {**stored.payload, **more}
