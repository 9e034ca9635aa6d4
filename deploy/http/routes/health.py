"""``GET /healthz``, ``/readyz`` and ``/metrics``: the state of the service itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.metrics import MEDIA_TYPE
from lookalike.deploy.http.state import State
from lookalike.encoder.errors import LookalikeError

router: Final = APIRouter(tags=["the service itself"])
_READY_SECONDS: Final = 5


@router.get("/healthz", summary="Check that the process answers")
async def healthz() -> dict[str, str]:
    """Return ``ok``."""
    return {"status": "ok"}


@router.get("/readyz", summary="Check that searches can be answered")
async def readyz(state: State) -> dict[str, Any]:
    """Check that every collection opens and can be read, and return the execution provider of each model.

    Where some do not, the status is ``degraded``; ``damaged`` and ``held`` say how many cannot be opened and
    how many another process holds. Searches of the others are answered; if there are no others, the service
    is not ready. GET /api/v1/collections names them.
    """
    try:
        # Not on a worker: a full queue does not make the service unready.
        conditions = await asyncio.wait_for(asyncio.to_thread(state.registry.conditions), _READY_SECONDS)
    except (LookalikeError, TimeoutError) as error:
        raise ApiError("not-ready", "the store does not answer") from error
    count = Counter(conditions)
    if conditions and not count["open"]:
        raise ApiError(
            "not-ready",
            f"no collection can be opened: {count['damaged']} are damaged, "
            f"{count['held']} are held by another process",
        )
    providers = {name: model.provider for name, model in state.registry.models.items()}
    providers |= {name: denoiser.provider for name, denoiser in state.registry.denoisers.items()}
    if count["open"] < len(conditions):
        counts = {"damaged": count["damaged"], "held": count["held"]}
        return {"status": "degraded", **counts, "providers": providers}
    return {"status": "ready", "providers": providers}


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
async def metrics(state: State) -> Response:
    """Return requests by route and status, seconds by step, and the length of the queue."""
    text = state.metrics.export(
        waiting=state.executor.waiting, busy=state.executor.busy, jobs=state.jobs.open
    )
    return Response(text, media_type=MEDIA_TYPE)
