"""A collection before and after it is filled: created or checked, then indexed when it has grown large."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lookalike.encoder.bundle.bundle import Bundle
from lookalike.encoder.errors import CollectionNotFoundError
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.layout import StorageConfig
from lookalike.indexer.store.spec import CollectionSpec

INDEX_ABOVE: Final = 100_000
"""Vectors that one search compares in some 5 ms at 128 dimensions: below, an index gains nothing."""


def known_roots(store: VectorStore, name: str) -> Mapping[str, str]:
    """Return the roots of a collection, name to folder; none of one that is still to be made."""
    try:
        return store.info(name).roots
    except CollectionNotFoundError:
        return {}


def new_spec(bundle: Bundle, *, crop: Crop | None) -> CollectionSpec:
    """Return what a new collection of this model's vectors is to remember; crop None: the model's."""
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
    crop: Crop | None,
    options: StorageConfig | None = None,
) -> CollectionSpec:
    """Make the collection for this model, or check that it is this model's.

    Args:
        store: Where.
        name: Of it.
        model: Whose vectors it holds, or is to hold.
        crop: How its pictures are framed; None: as it remembers, or the model's.
        options: How a new one is to lie in the store; of one that is there they change nothing.

    Raises:
        ModelMismatchError: it holds vectors of another model or another crop.
        InvalidArgumentError: the name cannot be.
    """
    try:
        spec = store.info(name)
    except CollectionNotFoundError:
        spec = new_spec(model.bundle, crop=crop)
        store.create(name, spec, options)
        return spec
    # A collection remembers its crop: only one that is given can differ.
    spec.check_model(name, model_id=model.model_id, crop=spec.crop if crop is None else str(crop))
    return spec


def index_when_large(
    store: VectorStore,
    name: str,
    *,
    above: int | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> bool:
    """Build the index of a collection when more than ``above`` vectors are in none; say whether it was done.

    Args:
        store: The store.
        name: The collection.
        above: How many vectors may be compared one by one; None: :data:`INDEX_ABOVE`.
        tell: Told in a line what is about to take its time.

    Raises:
        StoreError: it could not be built; the collection is as it was.
    """
    state = store.index_state(name)
    if state.unindexed <= (INDEX_ABOVE if above is None else above):
        return False
    tell(f"{name}: building the search index of {state.points} vectors")
    store.build_index(name)
    return True
