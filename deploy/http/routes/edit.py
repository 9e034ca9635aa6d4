"""``POST /api/v1/edit``: the same face, smiling; and ``GET /api/v1/facets``: what can be filtered by."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.draw import DrawRequest, png_text, read_uploads
from lookalike.deploy.http.routes.item_pictures import original
from lookalike.deploy.http.routes.items import found_item
from lookalike.deploy.http.settings import MOST_DRAWN
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, described_body, parsed
from lookalike.indexer.store.facets import value_counts
from lookalike.indexer.store.where import parse_where
from lookalike.searcher.generation.edit import edit_steps, parse_steps, parse_strengths

__all__ = ["router"]

router: Final = APIRouter(prefix="/api/v1", tags=["editing"])


class EditRequest(DrawRequest):
    """Pictures or a stored item, and what to add to them; see lookalike edit."""

    collection: str | None = Field(None, max_length=64, description="Where the item is.")
    item: UUID | None = Field(None, description="This item's picture, framed as its collection is.")
    clean: bool = Field(False, description="Take noise off first, as search does with clean.")
    clean_model: str = Field("denoise", max_length=200, description="What takes it off: a cleaner's name.")

    add: list[str] = Field(
        min_length=1, max_length=16, description="NAME=STRENGTH, in standard deviations: Smiling=1.5."
    )
    steps: str | None = Field(None, max_length=100, description="A strip: FIRST:LAST:N multiples of it.")
    keep_detail: bool = Field(True, description="Add back what the model does not keep of a picture.")

    @model_validator(mode="after")
    def _item_of_a_collection(self) -> EditRequest:
        if (self.item is None) != (self.collection is None):
            raise ValueError("an item and its collection are named together")
        return self


class EditResponse(BaseModel):
    """For each picture, in order, what it became at each step; PNG in Base64."""

    model: str
    model_id: str
    steps: list[float]
    rows: list[list[str]]


class FacetsResponse(BaseModel):
    """How many items have each value, the most frequent first."""

    field: str
    values: list[dict[str, Any]]


@router.post(
    "/edit",
    response_model=EditResponse,
    openapi_extra=described_body(
        EditRequest, {"model": "faces", "images": ["iVBORw0KGgo="], "add": ["Smiling=1.5"]}
    ),
    summary="Draw the same face, smiling",
)
async def edit(request: Request, desk: State) -> Response:
    """Draw pictures again from latents that were moved along attributes: those sent, or a stored item's."""
    asked, uploads = await parsed(request, EditRequest)
    model, strengths = desk.holdings.model(asked.model), parse_strengths(asked.add)
    cleaner = desk.holdings.query_cleaner(asked.clean_model) if asked.clean else None
    if asked.item is not None and uploads:
        raise ApiError("invalid-request", "send pictures or an item, not both")
    steps = [1.0] if asked.steps is None else parse_steps(asked.steps)
    if len(steps) * len(uploads) > MOST_DRAWN:
        raise ApiError(
            "invalid-request", f"at most {MOST_DRAWN} pictures are drawn for a request; ask for less"
        )

    def draw() -> Response:
        sent, framing = uploads, asked.crop
        if asked.item is not None:
            spec, payload = found_item(desk, str(asked.collection), asked.item)
            sent, framing = [Upload(str(payload["path"]), original(spec, payload))], framing or spec.crop
        pixels = read_uploads(model, sent, framing, cleaner)
        rows = edit_steps(model, pixels, strengths, steps, keep_detail=asked.keep_detail)
        drawn = [[png_text(picture) for picture in row] for row in rows]
        told = {"model": asked.model, "model_id": model.model_id, "steps": steps, "rows": drawn}
        return JSONResponse(told)

    return await desk.drawn(draw)


@router.get("/facets", response_model=FacetsResponse, summary="Count the values of a field")
async def facets(
    desk: State,
    collection: Annotated[str, Query(max_length=64, examples=["family"])],
    field: Annotated[str, Query(max_length=200, examples=["person"])] = "person",
    where: Annotated[str | None, Query(max_length=2000, description="Only of items that pass.")] = None,
    most: Annotated[int, Query(ge=1, le=1000, description="Values at most.")] = 100,
) -> JSONResponse:
    """Count the items of a collection by the values of a field."""

    def count() -> list[dict[str, Any]]:
        condition = None if where is None else parse_where(where)
        counts = value_counts(desk.holdings.store, collection, field, where=condition)
        return [{"value": value, "count": number} for value, number in counts[:most]]

    return JSONResponse({"field": field, "values": await desk.lanes.run(count)})
