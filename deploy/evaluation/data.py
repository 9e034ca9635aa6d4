"""Pictures with names on them: what figures are measured on.

Legend: N images.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.encoder.datasets.lfw import LFW, find_lfw, person_from_folder
from lookalike.encoder.errors import DataError
from lookalike.encoder.images.discover import IMAGE_SUFFIXES, find_images
from lookalike.encoder.images.preprocess import LFW_CROP, Crop
from lookalike.encoder.text import printable
from lookalike.indexer.sources.source import as_path, as_text
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.points import Record
from lookalike.indexer.store.spec import CollectionSpec

__all__ = ["LabeledImages", "collection_images", "item_path", "lfw_behind", "open_labeled"]


@dataclass(frozen=True, slots=True)
class LabeledImages:
    """N images and who is on them.

    Attributes:
        name: ``lfw``, or what the folder or collection is called.
        files: Where they lie.
        paths: What they are called: relative to their root, with ``/``; no two alike.
        people: Who is on each; None where nobody is named.
        crop: How they are framed, where that is known.
        lfw: The data set, when it is Labeled Faces in the Wild.
    """

    name: str
    files: tuple[Path, ...]
    paths: tuple[str, ...]
    people: tuple[str | None, ...]
    crop: Crop | None = None
    lfw: LFW | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def by_person(self) -> dict[str, list[int]]:
        """Return each person's images by index, in order; images of nobody are left out."""
        found: dict[str, list[int]] = defaultdict(list)
        for index, person in enumerate(self.people):
            if person is not None:
                found[person].append(index)
        return dict(found)

    def fingerprint(self) -> str:
        """SHA-256 of the listing: path, size and time of every file."""
        digest = hashlib.sha256()
        for path, file in zip(self.paths, self.files, strict=True):
            try:
                status = file.stat()
                facts = f"{status.st_size}\0{status.st_mtime_ns}"
            except (OSError, ValueError):  # named as a failure where it is read
                facts = "missing"
            digest.update(f"{path}\0{facts}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def open_labeled(source: str, *, progress: bool = False) -> LabeledImages:
    """Open ``lfw``, or a folder with a folder of pictures for each person.

    Raises:
        DataError: nothing is there.
    """
    if source == "lfw":
        return _lfw(find_lfw(progress=progress))
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"--data is lfw or a folder of person folders, '{printable(source)}' is neither")
    found = list(find_images(root))
    if not found:
        raise DataError(
            f"--data needs pictures ({', '.join(sorted(IMAGE_SUFFIXES))}), '{printable(source)}' holds none; "
            "check the path"
        )
    people = (person_from_folder(root / path, root) for path in found)
    return LabeledImages(
        printable(root.resolve().name),
        tuple(root / path for path in found),
        tuple(as_text(path) for path in found),
        tuple(person and as_text(Path(person)) for person in people),
    )


def collection_images(store: VectorStore, name: str) -> LabeledImages:
    """Return the pictures that a collection holds, as its payloads name them.

    Raises:
        CollectionNotFoundError: there is no such collection.
    """
    spec = store.info(name)
    records = list(store.scroll(name))
    return LabeledImages(
        name,
        tuple(_file(record, spec) for record in records),
        tuple(item_path(record, spec) for record in records),
        tuple(record.payload.get("person") for record in records),
        None if spec.crop == "none" else Crop.parse(spec.crop),
    )


def item_path(record: Record, spec: CollectionSpec) -> str:
    """Return what an item is called in :attr:`LabeledImages.paths`; its root first where there are several."""
    path = record.payload.get("path")
    if not isinstance(path, str):
        return record.id
    return path if len(spec.roots) < 2 else f"{record.payload.get('root')}/{path}"


def lfw_behind(store: VectorStore, name: str) -> LabeledImages | None:
    """Return Labeled Faces in the Wild when that is what the collection holds, and None when it is not.

    Raises:
        DataError: it says that it does, and the data set is not at hand.
    """
    spec = store.info(name)
    if "lfw" not in spec.roots:
        return None
    lfw = _lfw(find_lfw(download=False))
    paths = set(lfw.paths)
    return lfw if any(record.payload.get("path") in paths for record in store.scroll(name)) else None


def _lfw(lfw: LFW) -> LabeledImages:
    files = lfw.images()
    return LabeledImages(
        "lfw",
        tuple(files),
        tuple(file.relative_to(lfw.root).as_posix() for file in files),
        tuple(lfw.person_of(file) for file in files),
        LFW_CROP,
        lfw,
    )


def _file(record: Record, spec: CollectionSpec) -> Path:
    values: dict[str, Any] = dict(record.payload)
    root = spec.roots.get(str(values.get("root")), "")
    return as_path(root) / as_path(str(values.get("path", record.id)))
