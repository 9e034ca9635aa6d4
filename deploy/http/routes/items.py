"""Stored items: what is known of them, and their pictures."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.item_pictures import picture, thumbnail
from lookalike.deploy.http.state import AppState, State
from lookalike.indexer.store.spec import CollectionSpec

__all__ = ["found_item", "router"]

router: Final = APIRouter(prefix="/api/v1", tags=["items"])
_KEEP: Final = "private, max-age=3600"
_JPEG: Final = "image/jpeg"
_OUT_OF: Final = 50

Collection = Annotated[str, Query(max_length=64, description="Where the item is.", examples=["family"])]
_DRAWN: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {_JPEG: {"schema": {"type": "string", "format": "binary"}}},
        "description": "A JPEG file.",
    }
}


@router.get("/items/random", summary="Draw an item")
async def random_item(desk: State, collection: Collection) -> JSONResponse:
    """Draw an item by lot, to begin with; not every one is equally probable.

    It is one of the fifty that are most like a random direction.
    """
    return JSONResponse(await desk.lanes.run(lambda: _random(desk, collection)))


def _random(desk: AppState, collection: str) -> dict[str, Any]:
    store, rng = desk.holdings.store, np.random.default_rng()
    direction = rng.standard_normal((1, store.info(collection).dimension)).astype(np.float32)
    (hits,) = store.search(collection, direction, k=_OUT_OF)
    if not hits:
        raise ApiError("item-not-found", f"collection {collection} is empty")
    hit = hits[rng.integers(len(hits))]
    return {"id": hit.id, "collection": collection, "payload": dict(hit.payload)}


@router.get("/items/{item}", summary="Show an item")
async def item(desk: State, item: UUID, collection: Collection) -> JSONResponse:
    """Show what is stored beside an item's vector."""
    _, payload = await desk.lanes.run(lambda: found_item(desk, collection, item))
    return JSONResponse({"id": str(item), "collection": collection, "payload": payload})


@router.get(
    "/items/{item}/thumbnail", response_class=Response, responses=_DRAWN, summary="An item as a thumbnail"
)
async def item_thumbnail(
    request: Request,
    desk: State,
    item: UUID,
    collection: Collection,
    side: Annotated[int, Query(ge=16, le=512, description="In pixels.")] = 160,
) -> Response:
    """Return an item's picture, square, with a little more around it than the model sees."""

    def draw() -> tuple[str, bytes | None]:
        spec, payload = found_item(desk, collection, item)
        tag = f'"{payload.get("sha256", "")}-{side}"'
        known = request.headers.get("if-none-match") == tag
        return tag, None if known else thumbnail(spec, payload, side=side)

    return _sent(*await desk.drawn(draw))


@router.get("/items/{item}/image", response_class=Response, responses=_DRAWN, summary="An item's picture")
async def item_image(request: Request, desk: State, item: UUID, collection: Collection) -> Response:
    """Return an item's whole picture, at most 2048 pixels wide and high, without what else its file tells."""

    def draw() -> tuple[str, bytes | None]:
        spec, payload = found_item(desk, collection, item)
        tag = f'"{payload.get("sha256", "")}"'
        known = request.headers.get("if-none-match") == tag
        return tag, None if known else picture(spec, payload)

    return _sent(*await desk.drawn(draw))


def found_item(desk: AppState, collection: str, item: UUID) -> tuple[CollectionSpec, dict[str, Any]]:
    """Return what the collection remembers, and the item's payload.

    Raises:
        ApiError: there is no such item.
    """
    store = desk.holdings.store
    spec = store.info(collection)
    record = store.get(collection, [str(item)]).get(str(item))
    if record is None:
        raise ApiError("item-not-found", f"collection {collection} has no item {item}")
    return spec, dict(record.payload)


def _sent(tag: str, jpeg: bytes | None) -> Response:
    headers = {"ETag": tag, "Cache-Control": _KEEP}
    if jpeg is None:
        return Response(status_code=304, headers=headers)
    return Response(jpeg, media_type=_JPEG, headers=headers)
