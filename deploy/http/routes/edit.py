"""``POST /api/v1/edit``: the same face, smiling."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.generate import ImagesRequest, png_base64, read_uploads
from lookalike.deploy.http.routes.items import get_item, item_file
from lookalike.deploy.http.settings import DENOISER, MAX_GENERATED
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, describe_body, parse_body
from lookalike.encoder.images import Crop
from lookalike.searcher.generation import edit_steps, parse_steps, parse_strengths
from lookalike.searcher.search import stored_face

router: Final = APIRouter(prefix="/api/v1", tags=["generated images"])


class EditRequest(ImagesRequest):
    """Images or a stored item, and the attributes to add to them; see lookalike edit."""

    collection: str | None = Field(None, max_length=64, description="The item's collection.")
    item: UUID | None = Field(None, description="Edit this item's image, framed as in its collection.")
    denoise: bool = Field(False, description="Denoise the images first, as in search.")
    denoise_model: str = Field(DENOISER, max_length=200, description="Name of a denoiser.")

    add: list[str] = Field(
        min_length=1, max_length=16, description="NAME=STRENGTH, in standard deviations: Smiling=1.5."
    )
    steps: str | None = Field(None, max_length=100, description="A strip: FIRST:LAST:N multiples of it.")
    keep_detail: bool = Field(True, description="Add back the detail that the model does not keep.")

    @model_validator(mode="after")
    def _item_with_collection(self) -> EditRequest:
        if (self.item is None) != (self.collection is None):
            raise ValueError("send an item together with its collection")
        return self


class EditResponse(BaseModel):
    """For each image, in order, the result of each step; PNG in Base64."""

    model: str
    model_id: str
    steps: list[float]
    rows: list[list[str]]


@router.post(
    "/edit",
    response_model=EditResponse,
    openapi_extra=describe_body(
        EditRequest, {"model": "faces", "images": ["iVBORw0KGgo="], "add": ["Smiling=1.5"]}
    ),
    summary="Add attributes to images",
)
async def edit(request: Request, state: State) -> Response:
    """Move the latents of images, sent or of a stored item, along attributes and decode them."""
    params, uploads = await parse_body(request, EditRequest)
    model, strengths = state.registry.model(params.model), parse_strengths(params.add)
    denoiser = state.registry.query_denoiser(params.denoise_model) if params.denoise else None
    if params.item is not None and uploads:
        raise ApiError("invalid-request", "send images or an item, not both")
    steps = [1.0] if params.steps is None else parse_steps(params.steps)
    if len(steps) * len(uploads) > MAX_GENERATED:
        raise ApiError(
            "invalid-request", f"a request generates at most {MAX_GENERATED} images; ask for fewer"
        )

    def respond() -> Response:
        images, framing = uploads, params.framing
        if params.item is not None:
            spec, payload = get_item(state, str(params.collection), params.item)
            images = [Upload(str(payload["path"]), item_file(spec, payload, allowed=state.settings.roots))]
            if framing is None:
                face = stored_face(payload)
                framing = Crop.parse(spec.crop) if face is None else face.face
        pixels = read_uploads(model, images, framing, denoiser, max_pixels=state.settings.max_pixels)
        rows = edit_steps(model, pixels, strengths, steps, keep_detail=params.keep_detail)
        results = [[png_base64(image) for image in row] for row in rows]
        return JSONResponse(
            {"model": params.model, "model_id": model.model_id, "steps": steps, "rows": results}
        )

    return await state.run_timed(respond)
