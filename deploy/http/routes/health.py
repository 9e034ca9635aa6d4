"""``GET /healthz``, ``/readyz``, ``/metrics`` and ``/api/v1/service``: the state of the service itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from importlib.metadata import version
from typing import Any, Final, get_args

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.access import may_write
from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.metrics import MEDIA_TYPE
from lookalike.deploy.http.settings import MAX_DENOISED_PIXELS
from lookalike.deploy.http.state import State
from lookalike.encoder.errors import LookalikeError
from lookalike.indexer.store import Closed

router: Final = APIRouter(tags=["the service itself"])
_READY_SECONDS: Final = 5


class ServiceJson(BaseModel):
    """What the service is, and what it takes."""

    version: str
    can_write: bool = Field(description="Whether you may index, delete and change aliases.")
    roots: list[str] = Field(description="Folders that you may index.")
    max_pixels_denoise: int = Field(description="Pixels that a request may have denoised.")
    body_bytes: int = Field(description="Largest request.")
    seconds: float = Field(description="Longest time for a request.")
    root_path: str = Field(description="Path below which a reverse proxy serves it; empty: at the top.")


@router.get("/api/v1/service", response_model=ServiceJson, summary="Get what the service offers")
async def service(request: Request, state: State) -> JSONResponse:
    """Return the version and the limits of the service, and what the sender may change."""
    settings, can_write = state.settings, may_write(request)
    return JSONResponse(
        {
            "version": version("lookalike"),
            "can_write": can_write,
            "roots": [str(root) for root in settings.roots] if can_write else [],
            "max_pixels_denoise": MAX_DENOISED_PIXELS,
            "body_bytes": settings.body_bytes,
            "seconds": settings.seconds,
            "root_path": settings.root_path,
        }
    )


@router.get("/healthz", summary="Check that the process answers")
async def healthz() -> dict[str, str]:
    """Return ``ok``."""
    return {"status": "ok"}


@router.get("/readyz", summary="Check that searches can be answered")
async def readyz(state: State) -> dict[str, Any]:
    """Check that every collection opens and can be read, and return the execution provider of each model.

    Where some do not, the status is ``degraded``; ``damaged``, ``held`` and ``unreachable`` say how many
    cannot be opened, are held by another process, and are not answered for by the server of the store.
    Searches of the others are answered; if there are no others, the service is not ready.
    GET /api/v1/collections names them.
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
            f"no collection can be opened: {count['damaged']} are damaged, {count['unreachable']} do not "
            f"answer, {count['held']} are held by another process",
        )
    providers = {name: model.provider for name, model in state.registry.models.items()}
    providers |= {name: denoiser.provider for name, denoiser in state.registry.denoisers.items()}
    if count["open"] < len(conditions):
        counts = {each: count[each] for each in get_args(Closed)}
        return {"status": "degraded", **counts, "providers": providers}
    return {"status": "ready", "providers": providers}


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
async def metrics(state: State) -> Response:
    """Return requests by route and status, seconds by step, and the length of the queue."""
    text = state.metrics.export(
        waiting=state.executor.waiting, busy=state.executor.busy, jobs=state.jobs.open
    )
    return Response(text, media_type=MEDIA_TYPE)
