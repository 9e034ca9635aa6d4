"""A collection before and after it is filled: created or checked, then indexed when it has grown large.

Of each of a million items a run keeps 16 bytes of its id and some tens of the rest, in compact containers.
"""

from __future__ import annotations

import os
import pickle  # reads nothing but what this process wrote into its own memory
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.detect import Framing, face_finder
from lookalike.encoder.errors import BundleError, CollectionNotFoundError, ModelMismatchError
from lookalike.encoder.runtime import Model, Provider
from lookalike.indexer.sources import Source, SourceList, Sources, as_sources, merge_roots
from lookalike.indexer.store import (
    CollectionSpec,
    StorageConfig,
    VectorStore,
    create_or_open,
    differing_options,
)

INDEX_ABOVE: Final = 100_000
"""Vectors that one search compares in some 5 ms at 128 dimensions: below, an index gains nothing."""


def open_sources(store: VectorStore, name: str, sources: Sources) -> list[Source]:
    """Open sources under the names that a collection gives their roots.

    What lies in a root that only a file of latents told is not part of that root: the file may have named any
    folder, and all below it would become the user's own.

    Raises:
        DataError, InvalidArgumentError: as :func:`as_sources` says.
    """
    if not isinstance(sources, SourceList | str | os.PathLike | Source):
        sources = list(sources)
    try:
        spec = store.info(name)
    except CollectionNotFoundError:
        return as_sources(sources, {})
    opened = as_sources(sources, spec.roots)
    inside = {source.root_name for source in opened if source.only is not None or source.listed is not None}
    if inside.isdisjoint(spec.foreign_roots):
        return opened
    untold = {
        root: folder for root, folder in spec.roots.items() if root not in inside & {*spec.foreign_roots}
    }
    return as_sources(sources, untold)


def with_sources(spec: CollectionSpec, sources: Sequence[Source]) -> CollectionSpec:
    """Return a spec that knows the roots of these sources as the user's own.

    Raises:
        InvalidArgumentError: as :func:`merge_roots` says.
    """
    own = {source.root_name for source in sources}
    foreign = tuple(name for name in spec.foreign_roots if name not in own)
    return replace(spec, roots=merge_roots(spec.roots, sources), foreign_roots=foreign)


def new_spec(bundle: Bundle, *, crop: Framing | None) -> CollectionSpec:
    """Return the spec of a new collection for this model's vectors; crop None: the model's own crop."""
    return CollectionSpec(
        model_id=bundle.model_id,
        model_name=bundle.address,
        dimension=bundle.spec.embedding,
        crop=str(crop if crop is not None else bundle.spec.image.crop),
    )


def open_model(
    name: str, spec: CollectionSpec, *, provider: Provider = "auto", threads: int | None = None
) -> Model:
    """Open the model that a collection remembers.

    Args:
        name: The collection.
        spec: Its spec.
        provider: As for :meth:`Model.open`.
        threads: As for :meth:`Model.open`.

    Raises:
        ModelMismatchError: it cannot be opened here.
    """
    try:
        return Model.open(spec.model_name, provider=provider, threads=threads)
    except BundleError as error:
        raise ModelMismatchError(
            f"collection {name!r} was made by model {spec.model_name} ({spec.model_id[:12]}), "
            f"which cannot be opened here ({error}); pass --model with the folder it is in"
        ) from error


def prepare_collection(
    store: VectorStore,
    name: str,
    model: Model,
    *,
    crop: Framing | None = None,
    storage: StorageConfig | None = None,
) -> CollectionSpec:
    """Create the collection for this model, or check that an existing one belongs to it.

    Args:
        store: The store.
        name: The collection.
        model: The model whose vectors it holds, or will hold.
        crop: How its images are framed; None: as the collection remembers, or the model's own crop.
        storage: Storage options of a new collection; they change nothing about an existing one.

    Raises:
        ModelMismatchError: it holds vectors of another model or another crop.
        InvalidArgumentError: the name is not allowed, or the model does not say where faces lie.
        MissingExtraError: it is to hold faces, and what finds them is not installed.
    """
    try:
        spec = store.info(name)
    except CollectionNotFoundError:
        spec = new_spec(model.bundle, crop=crop)
        if spec.has_faces:
            check_faces(model.bundle)
        spec = create_or_open(store, name, spec, storage)
    # A collection remembers its crop: only one that is given can differ.
    spec.check_model(name, model_id=model.model_id, crop=spec.crop if crop is None else str(crop))
    return spec


def check_faces(bundle: Bundle) -> None:
    """Check that faces can be found and cut out for a model, before anything is read or stored.

    Raises:
        InvalidArgumentError: the model does not say where faces lie.
        MissingExtraError: what finds them is not installed.
    """
    _ = bundle.face_frame, face_finder()


def ignored_options_warning(store: VectorStore, name: str, storage: StorageConfig) -> str | None:
    """Return a warning when storage options would change an existing collection, which stays as it is."""
    if not storage.explicit:
        return None
    try:
        layout = store.index_state(name).layout
    except CollectionNotFoundError:
        return None
    if layout is None or not (different := differing_options(storage, layout)):
        return None
    return (
        f"{name} was made with {', '.join(different.values())} and stays so; for {', '.join(different)} "
        "copy it (lookalike collections copy), or index into a new one"
    )


def index_when_large(
    store: VectorStore,
    name: str,
    *,
    above: int | None = None,
    log: Callable[[str], object] = lambda _: None,
) -> bool:
    """Build the search index of a collection when more than ``above`` vectors are not in one.

    Args:
        store: The store.
        name: The collection.
        above: How many vectors may be compared one by one; None: :data:`INDEX_ABOVE`.
        log: Called with one line before the build, which may take minutes.

    Returns:
        Whether an index was built.

    Raises:
        StoreError: it could not be built; the collection is unchanged.
    """
    state = store.index_state(name)
    if state.deferred:
        log(f"{name}: no search index is built yet; lookalike collections optimize {name} builds it")
        return False
    if state.unindexed <= (INDEX_ABOVE if above is None else above):
        return False
    log(f"{name}: building the search index of {state.points} vectors")
    store.build_index(name)
    return True


T = TypeVar("T")
_BLOCK: Final = 1024
_UUID: Final = "S16"
_STEP: Final = 128
_AHEAD: Final = 4


class CompressedList(Generic[T]):
    """A list that only grows, kept compressed; elements are made anew each time it is iterated."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._tail: list[T] = []

    def __len__(self) -> int:
        return len(self._blocks) * _BLOCK + len(self._tail)

    def __iter__(self) -> Iterator[T]:
        for block in self._blocks:
            yield from _decompress(block)
        yield from self._tail

    def append(self, element: T) -> None:
        """Add an element, which must be picklable."""
        self._tail.append(element)
        if len(self._tail) == _BLOCK:
            self._blocks.append(_compress(self._tail))
            self._tail = []


def prefetch(elements: Iterable[T], on_total: Callable[[int], object]) -> Iterator[T]:
    """Yield all elements, reading four from the input for each that is yielded; those waiting are compressed.

    So work begins with the first of a million, and the total is known long before the last.

    Args:
        elements: Picklable; all of them must fit into memory when compressed.
        on_total: Called with their number once it is known.
    """
    chunks, waiting = _counted_chunks(elements, on_total), deque[bytes]()
    while chunk := _decompress(waiting.popleft()) if waiting else next(chunks, []):
        yield from chunk
        waiting.extend(_compress(more) for more in islice(chunks, _AHEAD))


def _counted_chunks(elements: Iterable[T], on_total: Callable[[int], object]) -> Iterator[list[T]]:
    left, total = iter(elements), 0
    while chunk := list(islice(left, _STEP)):
        total += len(chunk)
        yield chunk
    on_total(total)


def _compress(elements: list[Any]) -> bytes:
    return zlib.compress(pickle.dumps(elements, pickle.HIGHEST_PROTOCOL), level=1)


def _decompress(block: bytes) -> list[Any]:
    elements: list[Any] = pickle.loads(zlib.decompress(block))  # noqa: S301  # of our own
    return elements


class IdSet:
    """A set of UUIDs (strings with dashes) that only grows; what was added counts after :meth:`settle`."""

    def __init__(self) -> None:
        self._sorted: NDArray[np.bytes_] = np.empty(0, _UUID)
        self._added = bytearray()

    def add(self, key: str) -> None:
        """Add an id that is not in the set."""
        self._added += _to_bytes(key)

    def settle(self) -> None:
        """Make the ids that were added visible to :meth:`contains`."""
        if self._added:
            new = np.frombuffer(self._added, _UUID)
            self._sorted = np.concatenate([self._sorted, new]) if self._sorted.size else new
            self._sorted.sort()  # in place: the first time there is no second copy
            self._added = bytearray()

    def contains(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of n ids are in the set, bool (n,)."""
        if not self._sorted.size:
            return np.zeros(len(keys), np.bool_)
        queries = np.frombuffer(b"".join(map(_to_bytes, keys)), _UUID)
        places = np.searchsorted(self._sorted, queries).clip(max=self._sorted.size - 1)
        return np.asarray(self._sorted[places] == queries)


def _to_bytes(key: str) -> bytes:
    return bytes.fromhex(key.replace("-", ""))
