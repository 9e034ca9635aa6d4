"""What a service has open: a store, models, cleaners, and who answers for each collection. Safe for threads.

Legend: N images, H, W, C of a picture; D latent size, E embedding size; Q queries, k hits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from lookalike.deploy.http.errors import ApiError
from lookalike.encoder.bundle.registry import shipped_bundles
from lookalike.encoder.errors import BundleKindError, InvalidArgumentError, LookalikeError, ModelMismatchError
from lookalike.encoder.images.preprocess import Crop, ImageSpec
from lookalike.encoder.runtime.denoiser import Denoiser
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.runtime.session import Provider
from lookalike.encoder.text import printable
from lookalike.indexer.embedded.aliases import resolve_alias
from lookalike.indexer.store.base import Filter, Hit, VectorStore
from lookalike.indexer.store.spec import CollectionSpec
from lookalike.searcher.search.query_denoiser import DenoiseInfo, QueryDenoiser
from lookalike.searcher.search.searcher import Searcher

__all__ = ["ModelRegistry", "TimedModel"]

_LOG: Final = logging.getLogger("lookalike.service")
_FRESH_SECONDS: Final = 1.0
Timer = Callable[[str], AbstractContextManager[None]]


class TimedModel(Model):
    """A model whose steps are timed: ``embed``, ``check`` (its own errors), ``draw``."""

    timer: Timer

    def embed(
        self, pixels: NDArray[np.uint8], change: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """See :meth:`Model.embed`."""
        with self.timer("embed"):
            return super().embed(pixels, change)

    def reconstruction_errors(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See :meth:`Model.reconstruction_errors`."""
        with self.timer("check"):
            return super().reconstruction_errors(pixels)


class _TimedQueryCleaner(QueryDenoiser):
    """A cleaner of queries whose work is timed: ``clean``."""

    def __init__(self, cleaner: Denoiser, timer: Timer) -> None:
        super().__init__(cleaner)
        self._timer = timer

    def read(
        self, data: bytes, spec: ImageSpec, *, crop: Crop, name: str
    ) -> tuple[NDArray[np.uint8], DenoiseInfo]:
        """See :meth:`QueryDenoiser.read`."""
        with self._timer("clean"):
            return super().read(data, spec, crop=crop, name=name)


class _TimedStore:
    """A store whose searches are timed; all else is the store's own."""

    def __init__(self, store: VectorStore, timer: Timer) -> None:
        self._store, self._timer = store, timer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def search(
        self, name: str, queries: NDArray[np.float32], *, k: int, where: Filter | None = None
    ) -> list[list[Hit]]:
        """See :meth:`VectorStore.search`."""
        with self._timer("search"):
            return self._store.search(name, queries, k=k, where=where)


class ModelRegistry:
    """The open store, models and cleaners of a service. No two of these have one name.

    Args:
        store: Where the collections are; closed by :meth:`close`.
        timer: Times steps.

    Attributes:
        store: The same, its searches timed.
    """

    def __init__(self, store: VectorStore, *, timer: Timer) -> None:
        self.store = cast("VectorStore", _TimedStore(store, timer))
        self._timer = timer
        self._models: dict[str, TimedModel] = {}
        self._cleaners: dict[str, Denoiser] = {}
        self._searchers: dict[str, tuple[float, Searcher]] = {}
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._provider: Provider = "auto"

    @property
    def models(self) -> Mapping[str, TimedModel]:
        """The models that give latents by name, in the order in which they were opened."""
        return dict(self._models)

    @property
    def cleaners(self) -> Mapping[str, Denoiser]:
        """The cleaners by name, in the order in which they were opened."""
        return dict(self._cleaners)

    def open_models(self, names: tuple[str, ...], *, provider: Provider) -> None:
        """Open bundles (none named: the shipped ones) and those that the collections remember.

        Raises:
            BundleError: one that was named cannot be used.
            InvalidArgumentError: two have one name.
            StoreError: the store cannot say what it holds.
        """
        self._provider = provider
        for name in names or shipped_bundles():
            self._add(name, provider)
        for collection in self.store.names():
            try:
                spec = self.store.describe(collection)
                if not any(model.model_id == spec.model_id for model in self._models.values()):
                    self._add(spec.model_name, provider, only=spec.model_id)
            except LookalikeError as error:
                _LOG.warning("collection not served", extra={"collection": collection, "error": str(error)})

    def _add(self, where: str, provider: Provider, *, only: str | None = None) -> None:
        opened: TimedModel | Denoiser
        try:
            opened = TimedModel.open(where, provider=provider, threads=1)
            opened.timer = self._timer
        except BundleKindError:
            opened = Denoiser.open(where, provider=provider, threads=1)
        if only is not None and opened.model_id != only:
            raise ModelMismatchError(f"model {where} is {opened.model_id[:12]} now, not {only[:12]}")
        name = opened.bundle.name
        known = self._models.get(name) or self._cleaners.get(name)
        if known is not None:
            if known.model_id == opened.model_id:
                return
            raise InvalidArgumentError(
                f"two models are called {name!r}, which the service cannot tell apart; rename one"
            )
        opened.check()
        if isinstance(opened, Denoiser):
            self._cleaners[name] = opened
        else:
            self._models[name] = opened

    def model(self, name: str) -> TimedModel:
        """Return a model that gives latents by its name, never by a path.

        Raises:
            ApiError: none is served by that name, or it is a cleaner.
        """
        found = self._any(name)
        if isinstance(found, Denoiser):
            raise ApiError(
                "model-kind",
                f"model {printable(name)} is a cleaner, it gives no latents; those that do are "
                f"{', '.join(self._models) or 'none'}",
            )
        return found

    def query_cleaner(self, name: str) -> QueryDenoiser:
        """Return what takes noise off queries by the name of a cleaner.

        Raises:
            ApiError: none is served by that name, or it is no cleaner.
        """
        found = self._any(name)
        if not isinstance(found, Denoiser):
            raise ApiError(
                "model-kind",
                f"model {printable(name)} is no cleaner; those here are {', '.join(self._cleaners) or 'none'}",
            )
        return _TimedQueryCleaner(found, self._timer)

    def cleaning(self, name: str) -> TimedModel | Denoiser:
        """Return what takes noise off pictures by its name: a cleaner, or a model that was taught to clean.

        Raises:
            ApiError: none is served by that name, or it was taught no such thing.
        """
        found = self._any(name)
        if isinstance(found, TimedModel) and found.bundle.spec.denoises is None:
            taught = [each for each, model in self._models.items() if model.bundle.spec.denoises is not None]
            raise ApiError(
                "model-kind",
                f"model {printable(name)} was not taught to clean; those that were are "
                f"{', '.join([*self._cleaners, *taught]) or 'none'}",
            )
        return found

    def _any(self, name: str) -> TimedModel | Denoiser:
        found = self._models.get(name) or self._cleaners.get(name)
        if found is None:
            there = ", ".join([*self._models, *self._cleaners]) or "none"
            raise ApiError("model-not-found", f"the models here are {there}")
        return found

    def searcher(self, collection: str) -> Searcher:
        """Return who answers for a collection as it was a second ago or later, or for that of an alias now.

        Raises:
            CollectionNotFoundError: there is none of that name.
            ModelMismatchError: its model is not served and cannot be opened.
        """
        collection = resolve_alias(self.store, collection)
        with self._lock:
            made, known = self._searchers.get(collection, (0.0, None))
        if known is not None and time.monotonic() - made < _FRESH_SECONDS:
            return known
        spec = self.store.describe(collection)
        searcher = Searcher(self.store, collection, self._model_of(collection, spec))
        with self._lock:
            self._searchers[collection] = (time.monotonic(), searcher)
        return searcher

    def forget(self, collection: str) -> None:
        """Look at a collection anew when it is next asked."""
        collection = resolve_alias(self.store, collection)
        with self._lock:
            self._searchers.pop(collection, None)

    def _model_of(self, collection: str, spec: CollectionSpec) -> TimedModel:
        with self._opening:  # a collection may be newer than this service, and so may its model
            try:
                if (known := self._known(spec)) is None:
                    self._add(spec.model_name, self._provider, only=spec.model_id)
                    known = self._known(spec)
                if known is None:
                    raise BundleKindError("it is a cleaner")
            except (LookalikeError, OSError) as error:
                raise ModelMismatchError(
                    f"collection {collection!r} was made by model {spec.model_name} ({spec.model_id[:12]}), "
                    f"which is not served and cannot be opened ({error}); name it with --model"
                ) from error
            return known

    def _known(self, spec: CollectionSpec) -> TimedModel | None:
        return next((model for model in self.models.values() if model.model_id == spec.model_id), None)

    def close(self) -> None:
        """Flush the store and let it go."""
        self.store.close()
