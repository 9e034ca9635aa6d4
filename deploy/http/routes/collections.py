"""The collections, their metadata fields and aliases, the models, and the problem codes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated, Any, Final, Literal, get_args

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.access import Writing
from lookalike.deploy.http.errors import PROBLEMS, ApiError
from lookalike.deploy.http.registry import ModelRegistry
from lookalike.deploy.http.state import AppState, State
from lookalike.deploy.http.uploads import describe_body, parse_body
from lookalike.encoder.errors import CollectionNotFoundError, printable
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.indexer.store import (
    CLUSTER_NAME,
    Closed,
    closed_by,
    counts_to_json,
    items_filter,
    opening_error,
    parse_where,
    summarize,
    value_counts,
)
from lookalike.searcher.maps import (
    LEAST,
    Method,
    Sample,
    check_method,
    default_method,
    project,
    take_sample,
)

router: Final = APIRouter(prefix="/api/v1", tags=["collections and models"])


_MAX_POINTS: Final = 5000
_READ_FOR_MAP: Final = 20_000
"""Items of which those of a map are chosen: so many are read in a second or two."""
_MIN_UMAP: Final = 100
"""Items of a map below which neighborhoods say little, and UMAP is not worth its time."""
_UMAP_SHARE: Final = 0.8
"""Of the time that a request may take; a map that is not done then is made by principal components."""

Name = Annotated[str, Path(max_length=64, examples=["family"])]
Alias = Annotated[str, Path(max_length=64, examples=["family"])]
Where = Annotated[str | None, Query(max_length=2000, description="Only items that match.")]


class IndexJson(BaseModel):
    """How a collection is searched."""

    search: Literal["exact", "hnsw"]
    indexed: int = Field(description="Vectors in the search index.")


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
    index: IndexJson


class CountJson(BaseModel):
    """A value and the number of items that have it."""

    value: Any
    count: int


class FieldJson(BaseModel):
    """A metadata field: the most frequent values of text, the range of numbers."""

    name: str
    kind: Literal["text", "number"]
    values: list[CountJson] | None = Field(None, description="At most 50; left out above 1,000 values.")
    min: float | None = None
    max: float | None = None


class CollectionDetailJson(CollectionJson):
    """A collection, and the fields and people of its items, of which 100,000 at most are read."""

    sample: list[str] = Field(description="Ids of up to 12 items.")
    fields: list[FieldJson] = Field(description="Metadata fields beside the person and the file's own.")
    people: list[CountJson] = Field(description="The 50 most frequent people; empty above 1,000.")


class PointJson(BaseModel):
    """An item on a map."""

    id: str
    x: float = Field(description="To the right, from 0 to 1.")
    y: float = Field(description="Downwards, from 0 to 1.")
    path: str
    name: str | None = Field(description="Of its group of similar images, else the person.")


class MapJson(BaseModel):
    """Items of a collection on a plane, similar ones near each other."""

    method: Method = Field(description="How they were placed: UMAP, or two principal components.")
    total: int = Field(description="Items of the collection.")
    points: list[PointJson]


class AliasRequest(BaseModel, extra="forbid"):
    """What an alias stands for."""

    collection: str = Field(max_length=64, description="Name of a collection.")


class AliasJson(BaseModel):
    """An alias and the collection that it stands for."""

    alias: str
    collection: str


class ClosedJson(BaseModel):
    """A collection that cannot be opened, and why."""

    name: str
    reason: str


class CollectionsResponse(BaseModel):
    """All collections of the store."""

    collections: list[CollectionJson]
    damaged: list[ClosedJson]
    held: list[ClosedJson] = Field(description="Another process has them open.")
    unreachable: list[ClosedJson] = Field(description="The server of the store does not answer for them.")


class FacetsResponse(BaseModel):
    """How many items have each value, the most frequent first."""

    field: str
    values: list[CountJson]


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
    text: bool = Field(description="Whether it can be searched with words.")
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
    store = registry.store
    found: dict[str, list[dict[str, Any]]] = {"collections": [], **{each: [] for each in get_args(Closed)}}
    aliases = store.aliases()
    for name in store.list_collections():
        if (error := opening_error(store, name)) is not None:
            # The reason, without the place of the store: that is the service's own.
            reason, place = str(error), store.address
            for form in (f" at {place}", f" on {place}", f"{place}/", place):
                reason = reason.replace(form, "")
            found[closed_by(error)].append({"name": name, "reason": reason})
            continue
        with suppress(CollectionNotFoundError):  # it was deleted meanwhile
            found["collections"].append(_row(registry, name, aliases))
    return found


def _row(registry: ModelRegistry, name: str, aliases: Mapping[str, str]) -> dict[str, Any]:
    spec, index = registry.store.info(name), registry.store.index_state(name)
    count = registry.store.count(name, where=items_filter(spec)) if spec.has_faces else index.points
    models = [model.bundle.name for model in registry.models.values() if model.model_id == spec.model_id]
    return {
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


@router.get("/collections/{name}", response_model=CollectionDetailJson, summary="Get a collection")
async def collection(state: State, name: Name) -> JSONResponse:
    """Return a collection, also by an alias: its size and model, some items, its fields and people."""
    registry = state.registry

    def detail() -> dict[str, Any]:
        aliases = registry.store.aliases()
        real = aliases.get(name, name)
        row, summary = _row(registry, real, aliases), summarize(registry.store, real)
        return row | {
            "sample": list(summary.sample),
            "fields": [field.to_json() for field in summary.fields],
            "people": counts_to_json(summary.people or ()),
        }

    return JSONResponse(await state.executor.run(detail))


@router.get("/collections/{name}/map", response_model=MapJson, summary="Place the items on a plane")
async def collection_map(
    state: State,
    name: Name,
    limit: Annotated[int, Query(ge=LEAST, le=_MAX_POINTS, description="Most items.")] = 2000,
    method: Annotated[Method | None, Query()] = None,
    where: Where = None,
) -> JSONResponse:
    """Place the items of a collection on a plane, similar ones near each other.

    Of more than ``limit``, some are chosen at random. The default method is UMAP where the extra ``map`` is
    installed, there are 100 items or more, and it was never too slow; else two principal components.
    """
    due = time.monotonic() + _UMAP_SHARE * state.settings.seconds

    def work(stop: threading.Event) -> dict[str, Any]:
        if method is not None:
            check_method(method)
        sample = take_sample(
            state.registry.store,
            name,
            count=limit,
            where=None if where is None else parse_where(where),
            among=_READ_FOR_MAP,
            on_read=lambda: _check_wanted(stop),
        )
        return _place(state, sample, method, stop, due)

    return JSONResponse(await state.run_long(work, step="map"))


class _TooSlowError(Exception):
    """A map is not done in time."""


def _place(
    state: AppState, sample: Sample, method: Method | None, stop: threading.Event, due: float
) -> dict[str, Any]:
    """Return a map; by principal components where no method is asked for and UMAP is not done in time."""

    def on_wait() -> None:
        _check_wanted(stop)
        if method is None and time.monotonic() > due:
            raise _TooSlowError

    count, places = len(sample.ids), None
    usual: Method = default_method() if _MIN_UMAP <= count < state.umap.too_many else "pca"
    if (method or usual) == "umap":
        try:
            places = state.umap.project(sample.vectors, on_wait=on_wait)
        except _TooSlowError:
            state.umap.too_many = min(count, state.umap.too_many)
    used: Method = "pca" if places is None else "umap"
    places = project(sample.vectors, "pca") if places is None else places
    points = [
        {
            "id": id_,
            "x": round(x, 4),
            "y": round(y, 4),
            "path": payload["path"],
            "name": None
            if (named := payload.get(CLUSTER_NAME, payload.get("person"))) is None
            else str(named),
        }
        for id_, payload, (x, y) in zip(sample.ids, sample.payloads, places.tolist(), strict=True)
    ]
    return {"method": used, "total": sample.total, "points": points}


def _check_wanted(stop: threading.Event) -> None:
    """Stop where nobody waits for the result any more."""
    if stop.is_set():
        raise ApiError("client-gone", "the client closed the connection before the response")


@router.delete("/collections/{name}", status_code=204, response_class=Response, summary="Delete a collection")
async def delete_collection(state: State, name: Name, _: Writing) -> Response:
    """Delete a collection and everything in it. The images that it was made of stay where they are."""
    await state.executor.run(lambda: _delete(state, name))
    return Response(status_code=204)


def _delete(state: AppState, name: str) -> None:
    store = state.registry.store
    aliases = store.aliases()
    if name in aliases:
        raise ApiError(
            "collection-in-use",
            f"{printable(name)} is an alias of collection {aliases[name]}; delete that, or the alias "
            f"with DELETE /api/v1/aliases/{printable(name)}",
        )
    if pointing := sorted(alias for alias, real in aliases.items() if real == name):
        raise ApiError(
            "collection-in-use",
            f"the alias {pointing[0]} stands for it; delete that first: DELETE /api/v1/aliases/{pointing[0]}",
        )
    filled = {job.collection for job in state.jobs.all() if not job.over}
    if name in {aliases.get(each, each) for each in filled if each is not None}:
        raise ApiError("collection-in-use", "a job is indexing it; cancel the job or wait until it has ended")
    store.info(name)  # raises where there is none
    store.delete_collection(name)
    state.registry.forget(name)


@router.put(
    "/aliases/{alias}",
    response_model=AliasJson,
    openapi_extra=describe_body(AliasRequest, {"collection": "family-2"}, images=False),
    summary="Point an alias to a collection",
)
async def set_alias(
    request: Request,
    state: State,
    alias: Alias,
    _: Writing,
) -> JSONResponse:
    """Make an alias stand for a collection, in one step: a search reads the old or the new one."""
    params, uploads = await parse_body(request, AliasRequest)
    if uploads:
        raise ApiError("invalid-request", "an alias takes no images, but the name of a collection")
    await state.executor.run(lambda: state.registry.store.set_alias(alias, params.collection))
    return JSONResponse({"alias": alias, "collection": params.collection})


@router.delete("/aliases/{alias}", status_code=204, response_class=Response, summary="Delete an alias")
async def delete_alias(state: State, alias: Alias, _: Writing) -> Response:
    """Delete an alias; the collection that it stands for stays."""

    def delete() -> None:
        if alias not in state.registry.store.aliases():
            raise ApiError("alias-not-found", "no alias of this name; GET /api/v1/collections lists them")
        state.registry.store.set_alias(alias, None)

    await state.executor.run(delete)
    return Response(status_code=204)


@router.get("/facets", response_model=FacetsResponse, summary="Count the values of a metadata field")
async def facets(
    state: State,
    collection: Annotated[str, Query(max_length=64, examples=["family"])],
    field: Annotated[str, Query(max_length=200, examples=["person"])] = "person",
    where: Where = None,
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
        "text": model.takes_text and find_spec("tokenizers") is not None,
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
        "text": False,
        "sigma": [round(255 * sigma, 2) for sigma in spec.deviations],
        "calibrated": False,
        "provider": denoiser.provider,
        "figures": dict(spec.figures),
    }


@router.get("/problems", summary="List the problem codes")
async def problems() -> dict[str, dict[str, Any]]:
    """List every code that a response with a status other than 2xx can have, with its status and title."""
    return {code: {"status": each.status, "title": each.title} for code, each in PROBLEMS.items()}
