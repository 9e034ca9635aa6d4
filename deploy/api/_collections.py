"""What a collection holds: its items, copies among them, groups of similar ones, and a map.

Legend: N items, H, W = height and width of a sheet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike._images import Pixels, Sheet
from lookalike._models import ModelLike
from lookalike._search import check_store, open_searcher
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.indexer.store import Payload, VectorStore, items_filter, parse_where
from lookalike.searcher import clusters, maps
from lookalike.searcher.clusters import Cluster, ClusterReport
from lookalike.searcher.duplicates import DuplicateGroup, find_duplicates
from lookalike.searcher.figures import clusters_sheet, duplicates_sheet
from lookalike.searcher.maps import Method
from lookalike.searcher.search import NEAR_COPY, stored_file

_PAGES: Final = (".html", ".htm")
_Group = TypeVar("_Group", DuplicateGroup, Cluster)


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a collection, or one face of an image.

    Attributes:
        id: UUID of the item.
        payload: Everything stored with it: root, path, sha256, size, mtime_ns, person, cluster, attributes.
        file: The image file; of an item in a tar archive its path as if the archive were a folder. None where
            the folder is not known.
    """

    id: str
    payload: Payload
    file: Path | None


@dataclass(frozen=True, eq=False, repr=False)
class _Groups(Sheet, Generic[_Group]):
    """Groups as a sequence. Shown in a notebook: one group a row."""

    groups: tuple[_Group, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, place: int) -> _Group:
        return self.groups[place]

    def __iter__(self) -> Iterator[_Group]:
        return iter(self.groups)

    def _repr_png_(self) -> bytes | None:  # type: ignore[override]  # None: there is nothing to show
        return super()._repr_png_() if self.groups else None


@dataclass(frozen=True, eq=False, repr=False)
class Duplicates(_Groups[DuplicateGroup]):
    """Groups of copies, those that waste most bytes first; a sequence of ``DuplicateGroup``.

    A group has ``copies``, the largest file first, each with ``file``, ``path``, ``bytes``, ``id`` and
    ``payload``; ``spare``, all copies but the largest; ``identical``, whether all have the same bytes; and
    ``similarity``, the smallest by which one was joined to the group.

    Attributes:
        groups: The groups.
        failed: A line for each image that could not be read, where turned copies are looked for.
    """

    failed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Duplicates: {sum(len(group.copies) for group in self)} images in groups: {len(self)}>"


@dataclass(frozen=True, eq=False, repr=False)
class Clusters(_Groups[Cluster]):
    """Groups of similar images, the largest first; a sequence of ``Cluster``.

    A group has ``number``, ``name``, ``size``, ``added`` (how many this run put into it), and ``examples``
    (ids of its first 20 images). ``items(store, collection, where="cluster=7")`` has all of group 7.

    Attributes:
        groups: The groups.
        report: What the run did: ``items``, ``grouped``, ``created``, ``joined``, ``damaged``, ``seconds``.
        threshold: Similarity from which two images were near.
    """

    report: ClusterReport
    threshold: float

    def __repr__(self) -> str:
        return f"<Clusters: {self.report.grouped} of {self.report.items} images in {len(self)} groups>"


@dataclass(frozen=True, eq=False, repr=False)
class Map(Sheet):
    """N images on a plane, similar ones near each other.

    Attributes:
        items: N items.
        places: float32 (N, 2), x to the right and y downwards, in [0, 1].
        method: ``umap`` or ``pca``.
        total: Items that there are; of more than were asked for, N were chosen at random.
    """

    items: tuple[Item, ...]
    places: NDArray[np.float32]
    method: Method
    total: int
    _write_page: Callable[[Path], None] = field(repr=False)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"<Map of {len(self)} images by {self.method}>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map as an image (PNG, JPEG, WebP), or as one HTML page with all images in it.

        Raises:
            InvalidArgumentError: the suffix is none of these, or it cannot be written there.
        """
        if Path(path).suffix.lower() in _PAGES:
            self._write_page(Path(path))
        else:
            super().save(path)


def items(store: VectorStore, collection: str, *, where: str | None = None) -> Iterator[Item]:
    """Yield the items of a collection.

    Args:
        store: From :func:`lookalike.open_store`.
        collection: Name or alias of the collection.
        where: Only items that meet these conditions: ``"cluster=7"``, ``"person!=Ada, Smiling>0"``.

    Raises:
        CollectionNotFoundError: there is no such collection.
        InvalidArgumentError: the conditions cannot be read.
        StoreError: the store failed.

    Examples:
        >>> [item.file for item in lookalike.items(store, "family", where="cluster=7")]
    """
    check_store(store)
    spec = store.info(collection)
    condition = items_filter(spec, None if where is None else parse_where(where))
    return (
        Item(record.id, record.payload, stored_file(spec, record.payload))
        for record in store.scroll(collection, where=condition)
    )


def duplicates(
    store: VectorStore,
    collection: str,
    *,
    threshold: float | None = NEAR_COPY,
    turned: bool = False,
    where: str | None = None,
    model: ModelLike | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Duplicates:
    """Find copies among the images of a collection: identical files, and one picture in several versions.

    Nothing is deleted. Pictures of one moment can be as similar as copies: look at them first.

    Args:
        store: From :func:`lookalike.open_store`.
        collection: Name or alias of the collection.
        threshold: Smallest similarity of two copies, above 0 and at most 1; None: only files with the same
            bytes.
        turned: Also find copies that are turned by 90, 180 or 270 degrees, or mirrored: reads each image, and
            embeds it six times.
        where: Only images that meet these conditions.
        model: The collection's model for ``turned``, if the name that the collection remembers does not lead
            to it.
        on_progress: Called with numbers of images that were compared.

    Raises:
        CollectionNotFoundError: there is no such collection.
        InvalidArgumentError: an argument is out of range; or turned copies are looked for among faces, or
            with a threshold of None.
        ModelMismatchError: the model for ``turned`` is another, or cannot be loaded.
        StoreError: the store failed.

    Examples:
        >>> for group in lookalike.duplicates(store, "family"):
        ...     print(group.similarity, [copy.file for copy in group.spare])
    """
    check_store(store)
    failed: list[str] = []
    groups = tuple(
        find_duplicates(
            store,
            collection,
            threshold=threshold,
            where=None if where is None else parse_where(where),
            turned_by=open_searcher(store, collection, model).model if turned else None,
            on_failed=failed.append,
            on_progress=on_progress,
        )
    )
    return Duplicates(lambda: duplicates_sheet(store, collection, groups), groups, tuple(failed))


def cluster(
    store: VectorStore,
    collection: str,
    *,
    threshold: float | None = None,
    min_size: int = 2,
    restart: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Clusters:
    """Group the similar images of a collection; where they are faces, each group is mostly one person.

    Each image of a group gets its number as metadata field ``cluster``, for ``where="cluster=7"`` and
    ``group_by="cluster"``. Called again after images were added, these join the groups, whose numbers and
    names stay.

    Args:
        store: From :func:`lookalike.open_store`.
        collection: Name or alias of the collection.
        threshold: Similarity from which two images are near, above 0 and at most 1; None: where the
            collection's model takes one person for 800 times as likely as two, 0.7 where it is not
            calibrated.
        min_size: Images that a new group has at least, 2 or more.
        restart: Forget all groups and their names first.
        dry_run: Only return the groups: nothing is written.
        on_progress: Called with numbers of images that were compared.

    Raises:
        CollectionNotFoundError: there is no such collection.
        InvalidArgumentError: an argument is out of range.
        ModelMismatchError: the threshold is None, and the collection's model cannot be opened.
        StoreError: the store failed.

    Examples:
        >>> for group in lookalike.cluster(store, "family"):
        ...     print(group.number, group.name, group.size)
    """
    check_store(store)
    if min_size < 2:
        raise InvalidArgumentError(f"a group has at least 2 images, min_size is {min_size}")
    if threshold is None:
        threshold = clusters.collection_threshold(store, collection)
    report = clusters.cluster_collection(
        store,
        collection,
        threshold,
        min_size=min_size,
        restart=restart,
        dry_run=dry_run,
        on_progress=on_progress,
    )
    found = report.clusters
    return Clusters(lambda: clusters_sheet(store, collection, found), found, report, threshold)


def name_cluster(store: VectorStore, collection: str, number: int, name: str) -> int:
    """Name a group; it is stored as metadata field ``cluster_name`` of each of its images.

    Args:
        store: From :func:`lookalike.open_store`.
        collection: Name or alias of the collection.
        number: Of the group.
        name: The name; an empty one takes the name away.

    Returns:
        How many images the group has.

    Raises:
        CollectionNotFoundError, InvalidArgumentError: there is no such collection or group.
        StoreError: the store failed.

    Examples:
        >>> lookalike.name_cluster(store, "family", 7, "Ada")
    """
    check_store(store)
    return clusters.name_cluster(store, collection, number, name)


def merge_clusters(store: VectorStore, collection: str, numbers: Sequence[int]) -> int:
    """Put all images of some groups into the first of them.

    It keeps its name, or takes that of the next one that has one.

    Args:
        store: From :func:`lookalike.open_store`.
        collection: Name or alias of the collection.
        numbers: Of two or more groups.

    Returns:
        How many images the group has now.

    Raises:
        CollectionNotFoundError, InvalidArgumentError: there is no such collection or group, or only one group
            is given.
        StoreError: the store failed.

    Examples:
        >>> lookalike.merge_clusters(store, "family", [7, 9])
    """
    check_store(store)
    if not numbers:
        raise InvalidArgumentError("merging needs the numbers of two or more groups, got none")
    return clusters.merge_clusters(store, collection, numbers[0], numbers[1:])[0]


def make_map(
    store: VectorStore,
    collection: str,
    *,
    method: Method | None = None,
    count: int = 2000,
    seed: int = 0,
    where: str | None = None,
    model: ModelLike | None = None,
) -> Map:
    """Place the images of a collection on a plane: similar images lie near each other.

    Args:
        store: From :func:`lookalike.open_store`.
        collection: Name or alias of the collection.
        method: ``umap``, which keeps neighbors together and needs ``pip install 'lookalike[map]'``, or
            ``pca``, the two directions of greatest variance; None: ``umap`` where it is installed.
        count: Most images, 3 or more; of more, so many are chosen at random.
        seed: Of the choice and of the map: the same seed gives the same map.
        where: Only images that meet these conditions.
        model: The collection's model, if the name that the collection remembers does not lead to it.

    Raises:
        CollectionNotFoundError: there is no such collection.
        InvalidArgumentError: there are fewer than three images, or an argument is wrong.
        MissingExtraError: the extra ``map`` is not installed.
        ModelMismatchError: the model is another, or cannot be loaded.
        StoreError: the store failed.

    Examples:
        >>> found = lookalike.make_map(store, "family")
        >>> found.save("map.html"), found.places
    """
    if count < maps.LEAST:
        raise InvalidArgumentError(f"a map needs {maps.LEAST} images or more, count is {count}")
    searcher = open_searcher(store, collection, model)
    condition = None if where is None else parse_where(where)
    found = maps.make_map(store, collection, method=method, count=count, seed=seed, where=condition)
    pairs = zip(found.ids, found.payloads, strict=True)

    def sheet() -> Pixels:
        return maps.draw_map(found, maps.thumbnails(searcher, found))[0]

    def write_page(file: Path) -> None:
        maps.write_page(file, collection, found, maps.thumbnails(searcher, found))

    return Map(
        sheet,
        tuple(Item(id_, payload, stored_file(searcher.spec, payload)) for id_, payload in pairs),
        found.places,
        found.method,
        found.total,
        write_page,
    )
