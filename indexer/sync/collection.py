"""A collection before and after it is filled: created or checked, then indexed when it has grown large."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lookalike.encoder.bundle import Bundle
from lookalike.encoder.errors import CollectionNotFoundError
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.indexer.store import CollectionSpec, StorageConfig, VectorStore, differing_options

INDEX_ABOVE: Final = 100_000
"""Vectors that one search compares in some 5 ms at 128 dimensions: below, an index gains nothing."""


def known_roots(store: VectorStore, name: str) -> Mapping[str, str]:
    """Return the roots of a collection, root name to folder; empty when there is no such collection."""
    try:
        return store.info(name).roots
    except CollectionNotFoundError:
        return {}


def new_spec(bundle: Bundle, *, crop: Crop | None) -> CollectionSpec:
    """Return the spec of a new collection for this model's vectors; crop None: the model's own crop."""
    return CollectionSpec(
        model_id=bundle.model_id,
        model_name=bundle.address,
        dimension=bundle.spec.embedding,
        crop=str(crop if crop is not None else bundle.spec.image.crop),
    )


def prepare_collection(
    store: VectorStore,
    name: str,
    model: Model,
    *,
    crop: Crop | None = None,
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
        InvalidArgumentError: the name is not allowed.
    """
    try:
        spec = store.info(name)
    except CollectionNotFoundError:
        spec = new_spec(model.bundle, crop=crop)
        store.create(name, spec, storage)
        return spec
    # A collection remembers its crop: only one that is given can differ.
    spec.check_model(name, model_id=model.model_id, crop=spec.crop if crop is None else str(crop))
    return spec


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
    if state.unindexed <= (INDEX_ABOVE if above is None else above):
        return False
    log(f"{name}: building the search index of {state.points} vectors")
    store.build_index(name)
    return True
