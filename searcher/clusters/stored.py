"""Groups in a collection: found among its stored vectors, and written into its payloads.

Payload field ``cluster`` is the number of an item's group, from 1, and ``cluster_name`` the name that people
gave it.

Legend: N items, E embedding size.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import BundleError, InvalidArgumentError, ModelMismatchError, printable
from lookalike.indexer.store import (
    CLUSTER,
    CLUSTER_NAME,
    Condition,
    Filter,
    Payload,
    Record,
    VectorStore,
    is_text,
    items_filter,
)
from lookalike.searcher.clusters.grouping import Labels, Vectors, cluster_vectors, mapped

DEFAULT_THRESHOLD: Final = 0.7
"""Of models that are not calibrated."""
EXAMPLES: Final = 20
_ODDS: Final = 800
_TOGETHER: Final = 1000
_GRID: Final = 2001


@dataclass(frozen=True, slots=True)
class Cluster:
    """A group of items.

    Attributes:
        number: From 1; it stays.
        name: That people gave it; None: none.
        size: Its items.
        added: How many of them this run put into it.
        examples: Ids of its first items, at most 20.
    """

    number: int
    name: str | None
    size: int
    added: int
    examples: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: cluster, name, size, added."""
        return {"cluster": self.number, "name": self.name, "size": self.size, "added": self.added}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterReport:
    """What a run found.

    Attributes:
        clusters: The largest first.
        items: N, in groups or not.
        created: How many groups are new.
        joined: Items that joined groups which were there before.
        damaged: Items left out, whose vectors are not as they were stored.
        seconds: Of the whole run.
    """

    clusters: tuple[Cluster, ...]
    items: int
    created: int
    joined: int
    damaged: int
    seconds: float

    @property
    def grouped(self) -> int:
        """Items in groups."""
        return sum(cluster.size for cluster in self.clusters)


def default_threshold(bundle: Bundle, *, faces: bool = False) -> float | None:
    """Return the score at which one person is 800 times as likely as two; None: not calibrated.

    Args:
        bundle: The model.
        faces: Whether faces found in pictures are compared.
    """
    calibration = bundle.calibration_of(faces=faces)
    if calibration is None or calibration.scores is None:
        return None
    scores = np.linspace(0, 1, _GRID)
    enough = np.flatnonzero(calibration.scores.evidence(scores) >= math.log(_ODDS))
    return round(float(scores[enough[0]]), 3) if enough.size and enough[0] else None


def collection_threshold(store: VectorStore, name: str) -> float:
    """Return the threshold that fits the model of a collection: see :func:`default_threshold`.

    Raises:
        CollectionNotFoundError: there is no such collection.
        ModelMismatchError: its model cannot be opened.
    """
    spec = store.info(name)
    try:
        found = default_threshold(Bundle.open(spec.model_name), faces=spec.has_faces)
    except BundleError as error:
        raise ModelMismatchError(
            f"the threshold comes from the model {spec.model_name}, which cannot be opened here ({error}); "
            "give --threshold (in Python threshold), such as 0.5 for faces"
        ) from error
    return DEFAULT_THRESHOLD if found is None else found


def cluster_collection(
    store: VectorStore,
    name: str,
    threshold: float,
    *,
    min_size: int = 2,
    restart: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[int], object] = lambda _: None,
) -> ClusterReport:
    """Find the groups of a collection and write them into its payloads.

    Groups that are there stay, with their numbers and names: items of no group may join them, or form new
    ones. See :func:`~.grouping.cluster_vectors`.

    The vectors lie in a temporary file; memory holds some 400 bytes of each item, and 80 of each link between
    two.

    Args:
        store: Holds the collection.
        name: The collection.
        threshold: Cosine similarity from which two items are near.
        min_size: Items that a new group has at least, 2 or more.
        restart: Forget all groups and their names first.
        dry_run: Only find: nothing is written.
        on_progress: Called with numbers of items that were compared: N in all, about.

    Raises:
        CollectionNotFoundError: there is no such collection.
        InvalidArgumentError: the threshold is not above 0 and at most 1, or the field ``cluster`` of an item
            is no whole number from 1.
    """
    if not 0 < threshold <= 1:
        raise InvalidArgumentError(f"a threshold of similarity is above 0 and at most 1, {threshold} is not")
    began = time.monotonic()
    where = items_filter(spec := store.info(name))
    with TemporaryFile() as file:
        vectors = mapped(file, (store.count(name, where=where), spec.dimension))
        read = _Items.read(store.scroll(name, where=where, with_vectors=True), vectors)
        known = np.zeros_like(read.labels) if restart else read.labels
        names: Mapping[int, str] = {} if restart else read.names
        labels = cluster_vectors(
            vectors[: len(read.ids)], threshold, known=known, min_size=min_size, on_progress=on_progress
        )
        del vectors
    report = ClusterReport(
        clusters=_clusters(read.ids, labels, known, names),
        items=len(labels),
        created=len(np.unique(labels[labels > known.max(initial=0)])),
        joined=int(((labels != known) & (labels <= known.max(initial=0))).sum()),
        damaged=read.damaged,
        seconds=time.monotonic() - began,
    )
    if dry_run:
        return report
    changed = np.flatnonzero(labels != read.labels)
    if restart:
        changed = np.union1d(changed, np.flatnonzero(read.labels))
    by_id = {_uuid(read.ids[row]): int(labels[row]) for row in changed.tolist()}
    _rewrite(store, name, by_id, lambda id_, payload: _grouped(payload, by_id[id_], names.get(by_id[id_])))
    return report


def name_cluster(store: VectorStore, name: str, number: int, text: str) -> int:
    """Give a group a name, and return how many items it has; an empty one takes the name away.

    Raises:
        InvalidArgumentError: there is no such group, or the name is not valid text.
    """
    if not is_text(text):
        raise InvalidArgumentError(f"a name is valid Unicode text, {text!r} is not; type it again")
    ids = _members(store, name, number)
    _rewrite(store, name, ids, lambda _, payload: _grouped(payload, number, text or None))
    return len(ids)


def merge_clusters(store: VectorStore, name: str, into: int, others: Sequence[int]) -> tuple[int, str | None]:
    """Put all items of some groups into another, and return how many it has then, and its name.

    It keeps its name, or takes that of the first of the others that has one.

    Raises:
        InvalidArgumentError: a group is not there, or is named twice.
    """
    numbers = (into, *others)
    if len(set(numbers)) < len(numbers) or not others:
        raise InvalidArgumentError(
            f"groups that become one are two or more different ones, not {', '.join(map(str, numbers))}"
        )
    groups = {number: _members(store, name, number) for number in numbers}
    named = next((text for members in groups.values() for text in members.values() if text), None)
    changed = {id_: text for members in groups.values() for id_, text in members.items()}
    _rewrite(store, name, changed, lambda _, payload: _grouped(payload, into, named))
    return len(changed), named


@dataclass(frozen=True, eq=False, slots=True)
class _Items:
    """The items of a collection.

    Attributes:
        ids: uint8 (N, 16).
        labels: The number of each one's group, int64 (N,); 0: none.
        names: Of groups.
        damaged: Items that were left out.
    """

    ids: NDArray[np.uint8]
    labels: Labels
    names: Mapping[int, str]
    damaged: int

    @classmethod
    def read(cls, records: Iterable[Record], vectors: Vectors) -> _Items:
        """Read items, and put their vectors into the rows of an array (N or more, E)."""
        ids, labels = np.empty((len(vectors), 16), np.uint8), np.zeros(len(vectors), np.int64)
        names: dict[int, str] = {}
        count = damaged = 0
        for record in islice(records, len(vectors)):
            if record.vector is None or record.damaged:
                damaged += 1
                continue
            vectors[count] = record.vector
            ids[count] = np.frombuffer(uuid.UUID(record.id).bytes, np.uint8)
            labels[count] = number = _number(record.payload)
            if number and isinstance(text := record.payload.get(CLUSTER_NAME), str):
                names.setdefault(number, text)
            count += 1
        return cls(ids[:count], labels[:count], names, damaged)


def _number(payload: Payload) -> int:
    """Return the number of an item's group; 0: it is in none.

    Raises:
        InvalidArgumentError: the field is something else.
    """
    value = payload.get(CLUSTER, 0)
    if type(value) is not int or value < 0:
        raise InvalidArgumentError(
            f"the field '{CLUSTER}' holds the number of an item's group, that of "
            f"{printable(str(payload.get('path')))} holds {value!r}; rename that column of "
            "--payload and index again"
        )
    return value


def _clusters(
    ids: NDArray[np.uint8], labels: Labels, known: Labels, names: Mapping[int, str]
) -> tuple[Cluster, ...]:
    """Return the groups, the largest first."""
    order = np.argsort(labels, kind="stable")
    numbers, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    added = np.bincount(labels[labels != known], minlength=int(labels.max(initial=0)) + 1)
    found = [
        Cluster(
            number,
            names.get(number),
            size,
            int(added[number]),
            tuple(_uuid(ids[row]) for row in order[start : start + min(size, EXAMPLES)].tolist()),
        )
        for number, start, size in zip(numbers.tolist(), starts.tolist(), sizes.tolist(), strict=True)
        if number
    ]
    return tuple(sorted(found, key=lambda cluster: (-cluster.size, cluster.number)))


def _uuid(row: NDArray[np.uint8]) -> str:
    return str(uuid.UUID(bytes=row.tobytes()))


def _members(store: VectorStore, name: str, number: int) -> dict[str, str | None]:
    """Return the items of a group, id to its name.

    Raises:
        InvalidArgumentError: there is no such group.
    """
    where = items_filter(store.info(name), Filter((Condition(CLUSTER, "=", number),)))
    found = {record.id: record.payload.get(CLUSTER_NAME) for record in store.scroll(name, where=where)}
    if not found:
        raise InvalidArgumentError(
            f"collection {name} has no group {number}; lookalike facets {CLUSTER} lists the groups, "
            "lookalike cluster finds some"
        )
    return found


def _grouped(payload: Payload, number: int, text: str | None) -> dict[str, Any]:
    """Return a payload with another group; 0: with none."""
    rest = {key: value for key, value in payload.items() if key not in (CLUSTER, CLUSTER_NAME)}
    return rest | ({CLUSTER: number} if number else {}) | ({CLUSTER_NAME: text} if number and text else {})


def _rewrite(
    store: VectorStore, name: str, ids: Iterable[str], change: Callable[[str, Payload], dict[str, Any]]
) -> None:
    """Store items again with other payloads."""
    left, written = iter(ids), False
    while some := list(islice(left, _TOGETHER)):
        records = [*store.get(name, some, with_vectors=True).values()]
        if not records:
            continue
        vectors = np.stack([record.undamaged_vector() for record in records])
        store.upsert(
            name,
            [record.id for record in records],
            vectors,
            [change(record.id, record.payload) for record in records],
        )
        written = True
    if written:
        store.flush(name)
