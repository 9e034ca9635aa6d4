"""The application state: settings, open store and models, workers, jobs and metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Self, TypeVar, cast

from fastapi import Depends, Request

from lookalike.deploy.http.executor import CLIENT_GONE, BatchingExecutor
from lookalike.deploy.http.jobs import Jobs
from lookalike.deploy.http.metrics import Metrics
from lookalike.deploy.http.registry import ModelRegistry
from lookalike.deploy.http.settings import MAX_DECODING_PIXELS, Settings
from lookalike.encoder.images import DECODING
from lookalike.indexer.store import VectorStore
from lookalike.searcher.maps import UmapProcess

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AppState:
    """Everything that the handlers of requests share."""

    settings: Settings
    registry: ModelRegistry
    executor: BatchingExecutor
    jobs: Jobs
    metrics: Metrics
    umap: UmapProcess = field(default_factory=UmapProcess)

    @classmethod
    def open(cls, settings: Settings, store: VectorStore) -> Self:
        """Load the models of a service whose store is open.

        Raises:
            BundleError, InvalidArgumentError, StoreError: as :meth:`ModelRegistry.open_models`.
        """
        metrics = Metrics()
        DECODING.limit = MAX_DECODING_PIXELS
        registry = ModelRegistry(store, timer=metrics.time_step, max_pixels=settings.max_pixels)
        registry.open_models(settings.models, provider=settings.provider)
        executor = BatchingExecutor(
            settings.workers,
            queue_size=settings.queue_size,
            seconds=settings.seconds,
            on_wait=lambda seconds: metrics.observe_step("wait", seconds),
        )
        return cls(settings, registry, executor, Jobs(root_path=settings.root_path), metrics)

    async def run_timed(self, work: Callable[[], T], *, step: str = "draw") -> T:
        """Run blocking work on a worker, and add its time to a step of the metrics."""

        def timed() -> T:
            with self.metrics.time_step(step):
                return work()

        return await self.executor.run(timed)

    async def run_long(self, work: Callable[[threading.Event], T], *, step: str, expected: float = 0.0) -> T:
        """Run work that takes long, and add its time to a step; see :meth:`BatchingExecutor.run_long`."""

        def timed(stop: threading.Event) -> T:
            with self.metrics.time_step(step):
                return work(stop)

        return await self.executor.run_long(timed, expected=expected)

    def close(self) -> None:
        """End the jobs, finish the running work, close the store."""
        try:
            self.jobs.close()
            self.executor.close()
        finally:
            self.registry.close()


async def _state(request: Request) -> AppState:  # async: FastAPI runs a plain function on a thread
    """Return the state, and let the executor see when the client of this request has gone."""

    async def gone() -> None:
        # Called once the body was read, so nothing else can arrive; else what is left of it is discarded.
        while (await request.receive())["type"] != "http.disconnect":
            pass

    CLIENT_GONE.set(gone)
    return cast("AppState", request.app.state.lookalike)


State = Annotated[AppState, Depends(_state)]
"""The parameter through which a handler gets the application state."""
