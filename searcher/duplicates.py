"""Copies among the images of a collection: a file twice, or a picture in another size or format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import DataError, ImageError, InvalidArgumentError, printable
from lookalike.encoder.images import Crop, read_pixels
from lookalike.encoder.runtime import Model
from lookalike.indexer.store import CollectionSpec, Filter, Payload, Record, VectorStore, items_filter
from lookalike.searcher.search import NEAR_COPY, read_located, same_picture, stored_face, stored_file

_BATCH: Final = 64
_NEIGHBORS: Final = 16
_MOST_NEIGHBORS: Final = 4096
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Copy:
    """One item of a group of copies.

    Attributes:
        id: Of the item.
        payload: As it is stored: path, size in bytes, sha256, and more.
        file: Where the image lies; None where its folder is not known.
    """

    id: str
    payload: Payload
    file: Path | None

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return int(self.payload.get("size", 0))

    @property
    def path(self) -> str:
        """Path below its root."""
        return str(self.payload["path"])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: id, path, file, bytes, sha256."""
        return {
            "id": self.id,
            "path": self.payload["path"],
            "file": None if self.file is None else str(self.file),
            "bytes": self.bytes,
            "sha256": self.payload.get("sha256"),
        }


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Items that are copies of one another, directly or by others of the group.

    Attributes:
        copies: Two or more, the largest file first.
        similarity: The smallest cosine similarity by which an item was joined to the group; 1 where all files
            are identical.
    """

    copies: tuple[Copy, ...]
    similarity: float

    @property
    def identical(self) -> bool:
        """Whether all files have the same bytes."""
        return len({copy.payload.get("sha256") for copy in self.copies}) == 1

    @property
    def spare(self) -> tuple[Copy, ...]:
        """All but the largest file; a face beside another of its picture is no file of its own."""
        first = self.copies[0]
        return tuple(copy for copy in self.copies[1:] if copy.file is None or copy.file != first.file)

    @property
    def spare_bytes(self) -> int:
        """Bytes of all files but the largest."""
        return sum(copy.bytes for copy in self.spare)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: identical, similarity, copies."""
        return {
            "identical": self.identical,
            "similarity": round(self.similarity, 4),
            "copies": [copy.to_json() for copy in self.copies],
        }


def find_duplicates(
    store: VectorStore,
    name: str,
    *,
    threshold: float | None = NEAR_COPY,
    where: Filter | None = None,
    turned_by: Model | None = None,
    on_failed: Callable[[str], object] = lambda _: None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> list[DuplicateGroup]:
    """Return the groups of copies in a collection, those that waste most bytes first.

    Files with the same SHA-256 are copies; so are items whose vectors are at least as similar as the
    threshold. Copies of copies are one group. Nothing is changed.

    Args:
        store: Holds the collection.
        name: The collection.
        threshold: Smallest cosine similarity; None: only identical files.
        where: Only items that match.
        turned_by: The model of the collection: finds copies that are turned by 90, 180 or 270 degrees, or
            mirrored, too. Each image is read, and embedded six times. None: only upright copies.
        on_failed: Called with a one-line reason for each image that could not be read for that.
        on_progress: Called with the number of items that were compared.

    Raises:
        CollectionNotFoundError: there is no such collection.
        InvalidArgumentError: the threshold is not above 0 and at most 1; or turned copies are looked for
            without one, among faces, or where the crop is not the middle of the image.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise InvalidArgumentError(f"a threshold of similarity is above 0 and at most 1, {threshold} is not")
    spec = store.info(name)
    condition = items_filter(spec, where)
    if turned_by is not None:
        _check_turned(spec, threshold)
    groups, first = _Groups(), dict[str, str]()
    items = store.scroll(name, where=condition, with_vectors=threshold is not None)
    while records := list(islice(items, _BATCH)):
        for record in records:
            digest = record.payload.get("sha256")
            # Two faces of one picture have its digest, and are no copies of each other.
            key = f"{digest} {_face_number(record.payload)}" if digest else record.id
            groups.join(first.setdefault(key, record.id), record.id, 1.0)
        if threshold is not None:
            for record, other, score in _near(store, name, records, threshold, condition):
                groups.join(record.id, other, score)
        if threshold is not None and turned_by is not None:
            views = _turned_views(turned_by, spec, records, on_failed)
            for record, other, score in _near(store, name, views, threshold, condition):
                groups.join(record.id, other, score)
        on_progress(len(records))
    found = []
    for ids, similarity in groups.of_several():
        records = [
            each
            for start in range(0, len(ids), _MOST)
            for each in store.get(name, ids[start : start + _MOST]).values()
        ]
        copies = [Copy(each.id, each.payload, stored_file(spec, each.payload)) for each in records]
        found.append(
            DuplicateGroup(tuple(sorted(copies, key=lambda copy: (-copy.bytes, copy.path))), similarity)
        )
    return sorted(found, key=lambda group: (-group.spare_bytes, group.copies[0].path))


def _check_turned(spec: CollectionSpec, threshold: float | None) -> None:
    if threshold is None:
        raise InvalidArgumentError("identical bytes are never turned; leave --turned or --exact out")
    if spec.has_faces:
        raise InvalidArgumentError("faces are turned upright when they are found; leave --turned out")
    if Crop.parse(spec.crop).window is not None:
        raise InvalidArgumentError(
            f"turned copies are found where the middle of the images is compared, not the part {spec.crop}; "
            "index them with --crop full in another collection"
        )


def _turned_views(
    model: Model, spec: CollectionSpec, records: Sequence[Record], on_failed: Callable[[str], object]
) -> list[Record]:
    """Return items with the vectors of their images turned and mirrored, six for each image that can be read.

    Of 90 and 270 degrees one is enough: turned by the one, the first of two copies is the second, and turned
    by the other the second is the first.
    """
    views: list[tuple[Record, NDArray[np.uint8]]] = []
    for record in records:
        file, path = stored_file(spec, record.payload), printable(str(record.payload["path"]))
        if file is None:
            on_failed(f"{path}: the folder it was indexed from is not recorded; index that folder")
            continue
        try:
            crop = Crop.parse(spec.crop)
            pixels = read_pixels(read_located(file), model.bundle.spec.image, crop=crop, name=path)
        except (DataError, ImageError, ValueError) as error:  # ValueError: a null byte in the path
            on_failed(str(error))
            continue
        except OSError as error:
            on_failed(f"{path}: cannot be read ({error.strerror or error})")
            continue
        for view in (pixels[:, ::-1], pixels):
            views += [
                (record, np.rot90(view, turns)) for turns in range(4) if view is not pixels or turns in (1, 2)
            ]
    if not views:
        return []
    vectors = model.embed(np.stack([pixels for _, pixels in views]))
    good: NDArray[np.bool_] = np.logical_and(np.isfinite(vectors).all(axis=1), vectors.any(axis=1))
    return [
        replace(record, vector=vector)
        for (record, _), vector, usable in zip(views, vectors, good.tolist(), strict=True)
        if usable
    ]


def _near(
    store: VectorStore, name: str, records: Sequence[Record], threshold: float, where: Filter | None
) -> Iterator[tuple[Record, str, float]]:
    """Yield items and others that are at least as similar as the threshold."""
    left, most = list(records), _NEIGHBORS
    while left:
        vectors: NDArray[np.float32] = np.stack(
            [record.vector for record in left if record.vector is not None]
        )
        crowded = []
        for record, hits in zip(left, store.search(name, vectors, k=most, where=where), strict=True):
            near = [hit for hit in hits if hit.score >= threshold]
            if len(near) == most < _MOST_NEIGHBORS:  # there may be more
                crowded.append(record)
                continue
            for hit in near:
                if hit.id != record.id and not same_picture(record.payload, hit.payload):
                    yield record, hit.id, hit.score
        left, most = crowded, most * 4


def _face_number(payload: Payload) -> int:
    face = stored_face(payload)
    return 0 if face is None else face.number


class _Groups:
    """Items joined in pairs: a forest, each item pointing to one of its group (union-find)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}
        self._least: dict[str, float] = {}

    def join(self, one: str, other: str, similarity: float) -> None:
        """Put two items into one group."""
        first, second = self._top(one), self._top(other)
        if first != second:
            self._above[second] = first
            least = min(similarity, self._least.get(first, 1.0), self._least.pop(second, 1.0))
            self._least[first] = min(1.0, least)

    def of_several(self) -> Iterator[tuple[list[str], float]]:
        """Yield the ids of each group of two or more, and the smallest similarity that joined it."""
        members = defaultdict[str, list[str]](list)
        for item in self._above:
            members[self._top(item)].append(item)
        for top, items in members.items():
            yield [top, *items], self._least[top]

    def _top(self, item: str) -> str:
        path = []
        while (above := self._above.get(item)) is not None:
            path.append(item)
            item = above
        for passed in path:
            self._above[passed] = item
        return item
