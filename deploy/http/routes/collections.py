"""What is there: collections, models, the problems there can be; and how the service itself is."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http import metrics as service_metrics
from lookalike.deploy.http.errors import PROBLEMS, ApiError
from lookalike.deploy.http.registry import ModelRegistry
from lookalike.deploy.http.state import State
from lookalike.encoder.errors import LookalikeError
from lookalike.encoder.runtime.denoiser import Denoiser
from lookalike.encoder.runtime.model import Model

__all__ = ["router", "state_router"]

router: Final = APIRouter(prefix="/api/v1", tags=["what is there"])
state_router: Final = APIRouter(tags=["the service itself"])
_READY_SECONDS: Final = 5


class CollectionJson(BaseModel):
    """What a collection remembers; see lookalike collections show --json."""

    name: str
    count: int
    model_id: str
    model: str | None
    dimension: int
    crop: str
    metric: str
    roots: list[str]
    aliases: list[str]
    index: dict[str, Any]


class CollectionsResponse(BaseModel):
    """All collections of the store."""

    collections: list[CollectionJson]


class ModelJson(BaseModel):
    """A model that is served. A cleaner takes pictures of any size, and gives no latents: these are null."""

    name: str
    model_id: str
    kind: str
    size: int | None
    channels: int | None
    crop: str | None
    latent: int | None
    classes: list[str]
    attributes: list[str]
    draws: bool
    cleans: bool
    sigma: list[float] | None = Field(description="Of 255: the least and greatest noise it can be told.")
    calibrated: bool
    provider: str
    figures: dict[str, Any]


class ModelsResponse(BaseModel):
    """All models that are served."""

    models: list[ModelJson]


@router.get("/collections", response_model=CollectionsResponse, summary="List the collections")
async def collections(desk: State) -> JSONResponse:
    """List the collections of the store. Where their folders are is not told, only what they are called."""
    return JSONResponse({"collections": await desk.lanes.run(lambda: _collections(desk.holdings))})


def _collections(holdings: ModelRegistry) -> list[dict[str, Any]]:
    rows = []
    aliases = holdings.store.aliases()
    for name in holdings.store.names():
        spec, state = holdings.store.describe(name), holdings.store.index_state(name)
        served = [model.bundle.name for model in holdings.models.values() if model.model_id == spec.model_id]
        rows.append(
            {
                "name": name,
                "count": state.points,
                "model_id": spec.model_id,
                "model": next(iter(served), None),
                "dimension": spec.dimension,
                "crop": spec.crop,
                "metric": spec.metric,
                "roots": sorted(spec.roots),
                "aliases": [alias for alias, real in aliases.items() if real == name],
                "index": state.to_json()["index"],
            }
        )
    return rows


@router.get("/models", response_model=ModelsResponse, summary="List the models")
async def models(desk: State) -> JSONResponse:
    """List the models that are served, cleaners among them, with what was measured of them."""
    told = [_model_json(model) for model in desk.holdings.models.values()]
    return JSONResponse({"models": told + [_cleaner_json(each) for each in desk.holdings.cleaners.values()]})


def _model_json(model: Model) -> dict[str, Any]:
    spec, calibration = model.bundle.spec, model.bundle.calibration
    return {
        "name": model.bundle.name,
        "model_id": model.model_id,
        "kind": spec.kind,
        "size": spec.image.size,
        "channels": spec.image.channels,
        "crop": str(spec.image.crop),
        "latent": spec.latent,
        "classes": list(spec.classes),
        "attributes": [] if model.bundle.attributes is None else list(model.bundle.attributes.names),
        "draws": model.has_decoder,
        "cleans": spec.denoises is not None,
        "sigma": None,
        "calibrated": calibration is not None and calibration.scores is not None,
        "provider": model.provider,
        "figures": dict(spec.figures),
    }


def _cleaner_json(cleaner: Denoiser) -> dict[str, Any]:
    spec = cleaner.spec
    return {
        "name": cleaner.bundle.name,
        "model_id": cleaner.model_id,
        "kind": spec.kind,
        **dict.fromkeys(("size", "channels", "crop", "latent")),
        "classes": [],
        "attributes": [],
        "draws": False,
        "cleans": True,
        "sigma": [round(255 * each, 2) for each in spec.deviations],
        "calibrated": False,
        "provider": cleaner.provider,
        "figures": dict(spec.figures),
    }


@router.get("/problems", summary="List the problems there can be")
async def problems() -> dict[str, dict[str, Any]]:
    """List every code that an answer of another status than 2xx can have, with its status and title."""
    return {code: {"status": each.status, "title": each.title} for code, each in PROBLEMS.items()}


@state_router.get("/healthz", summary="Whether it runs")
async def healthz() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@state_router.get("/readyz", summary="Whether it can answer searches")
async def readyz(desk: State) -> dict[str, Any]:
    """Say that the store answers and the models are loaded, and what they really run on."""
    try:
        # Not in the lanes: that they are full does not make the service unready.
        await asyncio.wait_for(asyncio.to_thread(desk.holdings.store.names), _READY_SECONDS)
    except (LookalikeError, TimeoutError) as error:
        raise ApiError("not-ready", "the store does not answer") from error
    providers = {name: model.provider for name, model in desk.holdings.models.items()}
    providers |= {name: cleaner.provider for name, cleaner in desk.holdings.cleaners.items()}
    return {"status": "ready", "providers": providers}


@state_router.get("/metrics", response_class=Response, summary="Numbers for Prometheus")
async def metrics(desk: State) -> Response:
    """Return counts and times: requests by route and status, seconds by step, what waits."""
    told = desk.metrics.told(waiting=desk.lanes.waiting, busy=desk.lanes.busy, jobs=desk.jobs.open)
    return Response(told, media_type=service_metrics.MEDIA_TYPE)
