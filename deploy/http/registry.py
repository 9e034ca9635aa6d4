"""The models and searchers that a service has loaded. Safe for several threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final, Literal

from lookalike.deploy.http.errors import ApiError
from lookalike.encoder.bundle import shipped_bundles
from lookalike.encoder.errors import (
    BundleKindError,
    InvalidArgumentError,
    LookalikeError,
    ModelMismatchError,
    printable,
)
from lookalike.encoder.runtime import Denoiser, Model, Provider
from lookalike.indexer.store import (
    Closed,
    CollectionSpec,
    VectorStore,
    closed_by,
    opening_error,
    resolve_alias,
)
from lookalike.searcher.search import QueryDenoiser, Searcher, Timer

_LOG: Final = logging.getLogger("lookalike.service")
_SEARCHER_SECONDS: Final = 1.0
_CONDITION_SECONDS: Final = 10.0

Condition = Literal["open"] | Closed
"""Of a collection: it can be searched, or why it cannot be opened."""


class ModelRegistry:
    """The open store, the loaded models and denoisers (no two have one name), and a searcher per collection.

    Args:
        store: Where the collections are; :meth:`close` closes it.
        timer: Times the steps of searches.
        max_pixels: Larger queries are refused; None: the default limit.
    """

    def __init__(self, store: VectorStore, *, timer: Timer, max_pixels: int | None = None) -> None:
        self.store = store
        self._max_pixels = max_pixels
        self._timer = timer
        self._models: dict[str, Model | Denoiser] = {}
        self._searchers: dict[str, tuple[float, Searcher]] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._condition: dict[str, tuple[float, Condition]] = {}
        self._provider: Provider = "auto"

    @property
    def models(self) -> Mapping[str, Model]:
        """The models with latents by name, in the order in which they were loaded."""
        return {name: model for name, model in list(self._models.items()) if isinstance(model, Model)}

    @property
    def denoisers(self) -> Mapping[str, Denoiser]:
        """The denoisers by name, in the order in which they were loaded."""
        return {name: model for name, model in list(self._models.items()) if isinstance(model, Denoiser)}

    def open_models(self, names: tuple[str, ...], *, provider: Provider) -> None:
        """Load models (the shipped ones if none is named), and those that made the collections.

        Raises:
            BundleError: a model cannot be loaded.
            InvalidArgumentError: two models have the same name.
            StoreError: the collections cannot be listed.
        """
        self._provider = provider
        for name in names or shipped_bundles():
            self._load(name)
        for collection in self.store.list_collections():
            try:
                spec = self.store.info(collection)
                if self._by_id(spec.model_id) is None:
                    self._load(spec.model_name, model_id=spec.model_id)
            except LookalikeError as error:
                _LOG.warning("collection not served", extra={"collection": collection, "error": str(error)})

    def _load(self, where: str, *, model_id: str | None = None) -> None:
        model: Model | Denoiser
        try:
            model = Model.open(where, provider=self._provider, threads=1)
        except BundleKindError:
            model = Denoiser.open(where, provider=self._provider, threads=1)
        if model_id is not None and model.model_id != model_id:
            raise ModelMismatchError(f"model {where} is {model.model_id[:12]} now, not {model_id[:12]}")
        name = model.bundle.name
        loaded = self._models.get(name)
        if loaded is None:
            model.check()
            self._models[name] = model
        elif loaded.model_id != model.model_id:
            raise InvalidArgumentError(
                f"two models are called {name!r}, and requests name a model; rename one of the folders"
            )

    def model(self, name: str) -> Model:
        """Return a model with latents by its name, never by a path.

        Raises:
            ApiError: there is no such model, or it is a denoiser.
        """
        model = self._any(name)
        if isinstance(model, Denoiser):
            raise ApiError(
                "model-kind",
                f"model {printable(name)} is a denoiser and has no latents; models with latents: "
                f"{', '.join(self.models) or 'none'}",
            )
        return model

    def query_denoiser(self, name: str) -> QueryDenoiser:
        """Return what denoises queries, by the name of a denoiser.

        Raises:
            ApiError: there is no such model, or it is not a denoiser.
        """
        model = self._any(name)
        if not isinstance(model, Denoiser):
            names = ", ".join(self.denoisers) or "none"
            raise ApiError("model-kind", f"model {printable(name)} is not a denoiser; denoisers: {names}")
        return QueryDenoiser(model)

    def denoising_model(self, name: str) -> Model | Denoiser:
        """Return a denoiser or a model trained with ``--denoise``, by its name.

        Raises:
            ApiError: there is no such model, or it does not denoise.
        """
        model = self._any(name)
        if isinstance(model, Model) and model.bundle.spec.denoises is None:
            trained = [each for each, one in self.models.items() if one.bundle.spec.denoises is not None]
            raise ApiError(
                "model-kind",
                f"model {printable(name)} does not denoise; models that do: "
                f"{', '.join([*self.denoisers, *trained]) or 'none'}",
            )
        return model

    def _any(self, name: str) -> Model | Denoiser:
        model = self._models.get(name)
        if model is None:
            names = ", ".join([*self.models, *self.denoisers]) or "none"
            raise ApiError("model-not-found", f"no model of this name; the models are {names}")
        return model

    def searcher(self, collection: str) -> Searcher:
        """Return the searcher of a collection or alias, made at most a second ago.

        Raises:
            CollectionNotFoundError: there is no such collection.
            ModelMismatchError: its model is not loaded and cannot be.
        """
        collection = resolve_alias(self.store, collection)
        with self._lock:
            made_at, searcher = self._searchers.get(collection, (0.0, None))
        if searcher is not None and time.monotonic() - made_at < _SEARCHER_SECONDS:
            return searcher
        spec = self.store.info(collection)
        searcher = Searcher(
            self.store,
            collection,
            self._model_of(collection, spec),
            timer=self._timer,
            max_pixels=self._max_pixels,
        )
        with self._lock:
            self._searchers[collection] = (time.monotonic(), searcher)
        return searcher

    def forget(self, collection: str) -> None:
        """Drop the searcher of a collection that has changed."""
        collection = resolve_alias(self.store, collection)
        with self._lock:
            self._searchers.pop(collection, None)

    def _model_of(self, collection: str, spec: CollectionSpec) -> Model:
        """Return the model of a collection, loaded if the collection is newer than the service."""
        with self._loading:
            try:
                if (model := self._by_id(spec.model_id)) is None:
                    self._load(spec.model_name, model_id=spec.model_id)
                    model = self._by_id(spec.model_id)
                if model is None:
                    raise BundleKindError("it is a denoiser")
            except (LookalikeError, OSError) as error:
                raise ModelMismatchError(
                    f"collection {collection!r} was made by model {spec.model_name} ({spec.model_id[:12]}), "
                    f"which is not served and cannot be loaded ({error}); name it with --model"
                ) from error
            return model

    def _by_id(self, model_id: str) -> Model | None:
        return next((model for model in self.models.values() if model.model_id == model_id), None)

    def conditions(self) -> list[Condition]:
        """Return the condition of each collection; each is opened and read at most every ten seconds.

        Raises:
            StoreError: the store does not answer.
        """
        names = self.store.list_collections()
        now = time.monotonic()
        with self._lock:
            known = {
                name: made
                for name, made in self._condition.items()
                if name in names and now < made[0] + _CONDITION_SECONDS
            }
        for name in names:
            if name not in known:
                known[name] = now, self._condition_of(name)
        with self._lock:
            self._condition = known
        return [condition for _, condition in known.values()]

    def _condition_of(self, name: str) -> Condition:
        error = opening_error(self.store, name)
        return "open" if error is None else closed_by(error)

    def close(self) -> None:
        """Flush and close the store."""
        self.store.close()
