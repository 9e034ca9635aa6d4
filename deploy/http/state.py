"""What every handler of the service works with: the settings, the open store and models, workers, jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Self, TypeVar, cast

from fastapi import Depends, Request

from lookalike.deploy.http.executor import BatchingExecutor
from lookalike.deploy.http.jobs import Jobs
from lookalike.deploy.http.metrics import Metrics
from lookalike.deploy.http.registry import ModelRegistry
from lookalike.deploy.http.settings import Settings
from lookalike.indexer.store.base import VectorStore

__all__ = ["AppState", "State"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AppState:
    """All that a service has."""

    settings: Settings
    holdings: ModelRegistry
    lanes: BatchingExecutor
    jobs: Jobs
    metrics: Metrics

    @classmethod
    def open(cls, settings: Settings, store: VectorStore) -> Self:
        """Open the models of a service; its store is open.

        Raises:
            BundleError, OptionError, StoreError: as :meth:`ModelRegistry.open_models` says.
        """
        metrics = Metrics()
        holdings = ModelRegistry(store, timer=metrics.step)
        holdings.open_models(settings.models, provider=settings.provider)
        lanes = BatchingExecutor(
            settings.workers,
            waiting=settings.waiting,
            seconds=settings.seconds,
            on_wait=lambda seconds: metrics.took("wait", seconds),
        )
        return cls(settings, holdings, lanes, Jobs(), metrics)

    async def drawn(self, work: Callable[[], T], *, step: str = "draw") -> T:
        """Do work that draws, timed as that; or as another step."""

        def timed() -> T:
            with self.metrics.step(step):
                return work()

        return await self.lanes.run(timed)

    def close(self) -> None:
        """End the jobs, finish what runs, flush the store."""
        try:
            self.jobs.close()
            self.lanes.close()
        finally:
            self.holdings.close()


async def _desk(request: Request) -> AppState:  # on the loop: FastAPI gives a plain function a thread
    return cast("AppState", request.app.state.desk)


State = Annotated[AppState, Depends(_desk)]
"""The parameter by which a handler gets it."""
