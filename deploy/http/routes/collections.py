"""The collections, their metadata fields, the models, and the problem codes."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from lookalike.deploy.http.errors import PROBLEMS
from lookalike.deploy.http.registry import ModelRegistry
from lookalike.deploy.http.state import State
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.indexer.store import damage_of, items_filter, parse_where, value_counts

router: Final = APIRouter(prefix="/api/v1", tags=["collections and models"])


class CollectionJson(BaseModel):
    """A collection; see lookalike collections show --json."""

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


class DamagedJson(BaseModel):
    """A collection that cannot be opened, and why."""

    name: str
    reason: str


class CollectionsResponse(BaseModel):
    """All collections of the store."""

    collections: list[CollectionJson]
    damaged: list[DamagedJson]


class FacetsResponse(BaseModel):
    """How many items have each value, the most frequent first."""

    field: str
    values: list[dict[str, Any]]


class ModelJson(BaseModel):
    """A model. Of a denoiser, which takes images of any size and has no latents, some fields are null."""

    name: str
    model_id: str
    kind: str
    size: int | None
    channels: int | None
    crop: str | None
    frame: str | None = Field(
        description="Where it has the landmarks of a face: lfw, arcface or x,y,...; null: not for faces."
    )
    latent: int | None
    classes: list[str]
    attributes: list[str]
    draws: bool
    cleans: bool
    sigma: list[float] | None = Field(
        description="Smallest and largest noise that a denoiser can be given, of 255."
    )
    calibrated: bool
    provider: str
    figures: dict[str, Any]


class ModelsResponse(BaseModel):
    """All models of the service."""

    models: list[ModelJson]


@router.get("/collections", response_model=CollectionsResponse, summary="List the collections")
async def collections(state: State) -> JSONResponse:
    """List the collections of the store; of their folders only the names."""
    return JSONResponse(await state.executor.run(lambda: _collections(state.registry)))


def _collections(registry: ModelRegistry) -> dict[str, list[dict[str, Any]]]:
    rows, damaged = [], []
    aliases = registry.store.aliases()
    for name in registry.store.list_collections():
        if (damage := damage_of(registry.store, name)) is not None:
            # The reason, without the place of the store: that is the service's own.
            damaged.append({"name": name, "reason": str(damage).replace(registry.store.address, "")})
            continue
        spec, index = registry.store.info(name), registry.store.index_state(name)
        count = registry.store.count(name, where=items_filter(spec)) if spec.has_faces else index.points
        models = [model.bundle.name for model in registry.models.values() if model.model_id == spec.model_id]
        rows.append(
            {
                "name": name,
                "count": count,
                "model_id": spec.model_id,
                "model": models[0] if models else None,
                "dimension": spec.dimension,
                "crop": spec.crop,
                "metric": spec.metric,
                "roots": sorted(spec.roots),
                "aliases": [alias for alias, collection in aliases.items() if collection == name],
                "index": index.to_json()["index"],
            }
        )
    return {"collections": rows, "damaged": damaged}


@router.get("/facets", response_model=FacetsResponse, summary="Count the values of a metadata field")
async def facets(
    state: State,
    collection: Annotated[str, Query(max_length=64, examples=["family"])],
    field: Annotated[str, Query(max_length=200, examples=["person"])] = "person",
    where: Annotated[str | None, Query(max_length=2000, description="Only items that match.")] = None,
    most: Annotated[int, Query(ge=1, le=1000, description="At most so many values.")] = 100,
) -> JSONResponse:
    """Count the items of a collection by the values of a metadata field."""

    def count() -> list[dict[str, Any]]:
        condition = None if where is None else parse_where(where)
        counts = value_counts(state.registry.store, collection, field, where=condition)
        return [{"value": value, "count": number} for value, number in counts[:most]]

    return JSONResponse({"field": field, "values": await state.executor.run(count)})


@router.get("/models", response_model=ModelsResponse, summary="List the models")
async def models(state: State) -> JSONResponse:
    """List the models of the service, denoisers included, with their metrics."""
    rows = [_model_json(model) for model in state.registry.models.values()]
    return JSONResponse(
        {"models": rows + [_denoiser_json(each) for each in state.registry.denoisers.values()]}
    )


def _model_json(model: Model) -> dict[str, Any]:
    spec, calibration = model.bundle.spec, model.bundle.calibration
    return {
        "name": model.bundle.name,
        "model_id": model.model_id,
        "kind": spec.kind,
        "size": spec.image.size,
        "channels": spec.image.channels,
        "crop": str(spec.image.crop),
        "frame": None if spec.frame is None else str(spec.frame),
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


def _denoiser_json(denoiser: Denoiser) -> dict[str, Any]:
    spec = denoiser.spec
    return {
        "name": denoiser.bundle.name,
        "model_id": denoiser.model_id,
        "kind": spec.kind,
        **dict.fromkeys(("size", "channels", "crop", "frame", "latent")),
        "classes": [],
        "attributes": [],
        "draws": False,
        "cleans": True,
        "sigma": [round(255 * sigma, 2) for sigma in spec.deviations],
        "calibrated": False,
        "provider": denoiser.provider,
        "figures": dict(spec.figures),
    }


@router.get("/problems", summary="List the problem codes")
async def problems() -> dict[str, dict[str, Any]]:
    """List every code that a response with a status other than 2xx can have, with its status and title."""
    return {code: {"status": each.status, "title": each.title} for code, each in PROBLEMS.items()}
