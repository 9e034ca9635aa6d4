"""``POST /api/v1/compare``: do two images show one person?"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.generate import ImagesRequest
from lookalike.deploy.http.settings import DENOISER
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import describe_body, parse_body
from lookalike.encoder.images import Crop
from lookalike.searcher.search import QueryFaces, compare

router: Final = APIRouter(prefix="/api/v1", tags=["vectors"])
_TWO: Final = 2


class CompareRequest(ImagesRequest):
    """Two images, and what is known of them beforehand."""

    denoise: bool = Field(False, description="Denoise the images first, as in search.")
    denoise_model: str = Field(DENOISER, max_length=200, description="Name of a denoiser.")
    prior: float | None = Field(
        None, description="Probability of one person before the comparison; default: 0.5."
    )
    fmr: float | None = Field(None, description="False match rate of a threshold for a match.")


class CompareResponse(BaseModel):
    """How similar the two images are."""

    model: str
    model_id: str
    score: float = Field(description="Cosine similarity, -1 to 1; it is not a probability.")
    probability: float | None = Field(description="That both show one person; null: not calibrated.")
    match: bool | None = Field(
        description="Probability over 1/2, score over the threshold of fmr, no warning; null: not calibrated."
    )
    same_file: bool = Field(description="Both have exactly the same bytes.")
    warning: str | None = Field(description="Why the score means little.")
    faces: list[dict[str, Any] | None] = Field(
        description="The face of each image that was compared; null: the whole image."
    )


@router.post(
    "/compare",
    response_model=CompareResponse,
    openapi_extra=describe_body(
        CompareRequest, {"model": "faces", "images": ["iVBORw0KGgo=", "iVBORw0KGgo="]}
    ),
    summary="Compare two images",
)
async def compare_images(request: Request, state: State) -> Response:
    """Compare two images with each other: score, probability, and whether they are a match.

    Similarity is no proof of identity: the score says how similar the images are to a small model.
    """
    params, uploads = await parse_body(request, CompareRequest)
    if len(uploads) != _TWO:
        raise ApiError("invalid-request", f"send two images, not {len(uploads)}")
    model = state.registry.model(params.model)
    denoiser = state.registry.query_denoiser(params.denoise_model) if params.denoise else None
    wanted = None if params.chosen_face is None else QueryFaces(params.face)

    def respond() -> Response:
        found = compare(
            model,
            *uploads,
            crop=None if params.crop is None else Crop.parse(params.crop),
            faces=wanted,
            prior=params.prior,
            fmr=params.fmr,
            denoiser=denoiser,
            max_pixels=state.settings.max_pixels,
            timer=state.metrics.time_step,
        )
        return JSONResponse({"model": params.model, "model_id": model.model_id, **found.to_json()})

    return await state.executor.run(respond)
