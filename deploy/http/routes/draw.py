"""``POST /api/v1/reconstruct``, ``generate`` and ``interpolate``: pictures that a model draws.

An answer is JSON with PNG files in Base64 or, where ``Accept: image/png`` asks for it, the one sheet that the
command of the same name would write.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.settings import MOST_DRAWN, MOST_PICTURES
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, described_body, parsed
from lookalike.encoder.images.contact_sheet import grid
from lookalike.encoder.images.preprocess import Crop, encode_png, read_pixels, to_uint8
from lookalike.encoder.metrics import psnr
from lookalike.encoder.runtime.model import Model
from lookalike.searcher.figures import caption, classes_sheet, interpolation_sheet, reconstruction_sheet
from lookalike.searcher.generation import sample as drawing
from lookalike.searcher.generation.sample import Interpolation, Sampler
from lookalike.searcher.search.query_denoiser import QueryDenoiser

__all__ = ["AS_PNG", "png_text", "read_uploads", "router", "wants_png"]

Pixels = NDArray[np.uint8]
router: Final = APIRouter(prefix="/api/v1", tags=["drawing"])

_PNG: Final = "image/png"
_ALL: Final = "all"
_SHEET: Final[dict[str, Any]] = {_PNG: {"schema": {"type": "string", "format": "binary"}}}
AS_PNG: Final[dict[int | str, dict[str, Any]]] = {200: {"content": _SHEET, "description": "What was drawn."}}
"""What OpenAPI says of an answer that may be one picture."""


class DrawRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """Pictures for a model that draws."""

    model: str = Field("faces", max_length=200, description="Its name, as GET models has it.")
    images: list[str] | None = Field(None, max_length=MOST_PICTURES, description="Files in Base64.")
    crop: str | None = Field(None, max_length=200, description="How they are framed, if otherwise.")


class InterpolateRequest(DrawRequest):
    """Two or more pictures, and how many to draw between them."""

    steps: int = Field(8, ge=2, le=32, description="Pictures from one to the next, both ends counted.")
    way: Interpolation | None = Field(
        None, description="In a straight line, or keeping the length of latents."
    )


class GenerateRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """How to draw pictures that never were; see lookalike generate."""

    model_config = ConfigDict(populate_by_name=True)

    model: str = Field("faces", max_length=200, description="Its name, as GET models has it.")
    n: int = Field(16, ge=1, le=MOST_DRAWN, description="How many; with class all, how many latents.")
    of_class: str | None = Field(
        None,
        alias="class",
        max_length=200,
        description="Of this class only; all: each latent in every class.",
    )
    sampler: Sampler | None = Field(None, description="What latents are drawn from.")
    seed: int = Field(0, ge=0, lt=2**63, description="The same seed draws the same pictures.")
    temperature: float = Field(1.0, ge=0, le=100, description="Under 1 tamer, over 1 wilder.")


class ReconstructedJson(BaseModel):
    """A picture as the model sees it, and what it keeps of it."""

    name: str
    original: str
    reconstruction: str
    psnr: float


class ReconstructResponse(BaseModel):
    """What the model keeps of each picture, in order; PNG in Base64."""

    model: str
    model_id: str
    images: list[ReconstructedJson]


class DrawnResponse(BaseModel):
    """Rows of drawn pictures; PNG in Base64."""

    model: str
    model_id: str
    rows: list[list[str]]
    classes: list[str] | None = None


def png_text(pixels: Pixels) -> str:
    """Return ``uint8 (H, W, C)`` as a PNG file in Base64."""
    return base64.b64encode(encode_png(pixels)).decode()


def read_uploads(
    model: Model, uploads: Sequence[Upload], crop: str | None, cleaner: QueryDenoiser | None = None
) -> Pixels:
    """Return uint8 (N, H, W, C): pictures as the model sees them; with a cleaner, without their noise.

    Raises:
        ApiError: there is none.
        ImageError: one cannot be read.
    """
    if not uploads:
        raise ApiError("invalid-request", "send a picture: images, or files called image")
    image = model.bundle.spec.image
    framing = image.crop if crop is None else Crop.parse(crop)
    if cleaner is not None:
        return np.stack([cleaner.read(up.data, image, crop=framing, name=up.name)[0] for up in uploads])
    return np.stack([read_pixels(up.data, image, crop=framing, name=up.name) for up in uploads])


def wants_png(request: Request) -> bool:
    """Whether a picture is asked for in place of JSON."""
    return _PNG in request.headers.get("accept", "")


def _captions(uploads: Sequence[Upload]) -> list[str]:
    return [caption(Path(each.name)) for each in uploads]


@router.post(
    "/reconstruct",
    response_model=ReconstructResponse,
    responses=AS_PNG,
    openapi_extra=described_body(DrawRequest, {"model": "faces", "images": ["iVBORw0KGgo="]}),
    summary="Draw what a model keeps of pictures",
)
async def reconstruct(request: Request, desk: State) -> Response:
    """Draw what a model keeps of pictures, with the PSNR of each in dB."""
    asked, uploads = await parsed(request, DrawRequest)
    model, sheet = desk.holdings.model(asked.model), wants_png(request)

    def draw() -> Response:
        pixels = read_uploads(model, uploads, asked.crop)
        back = drawing.reconstruct(model, pixels)
        if sheet:
            return _png(reconstruction_sheet(model, pixels, back, _captions(uploads)))
        images = [
            {
                "name": upload.name,
                "original": png_text(one),
                "reconstruction": png_text(two),
                "psnr": min(round(float(psnr(one, two)), 2), 100.0),
            }
            for upload, one, two in zip(uploads, pixels, back, strict=True)
        ]
        return JSONResponse({"model": asked.model, "model_id": model.model_id, "images": images})

    return await desk.drawn(draw)


@router.post(
    "/interpolate",
    response_model=DrawnResponse,
    responses=AS_PNG,
    openapi_extra=described_body(
        InterpolateRequest, {"model": "faces", "images": ["iVBORw0KGgo=", "iVBORw0KGgo="], "steps": 8}
    ),
    summary="Draw what lies between pictures",
)
async def interpolate(request: Request, desk: State) -> Response:
    """Draw a row from each picture to the next, evenly through the latents."""
    asked, uploads = await parsed(request, InterpolateRequest)
    model, sheet = desk.holdings.model(asked.model), wants_png(request)

    def draw() -> Response:
        pixels = read_uploads(model, uploads, asked.crop)
        rows = drawing.interpolate(model, pixels, asked.steps, way=asked.way)
        if sheet:
            return _png(interpolation_sheet(model, pixels, rows, _captions(uploads)))
        return _rows(model, asked.model, rows)

    return await desk.drawn(draw)


@router.post(
    "/generate",
    response_model=DrawnResponse,
    responses=AS_PNG,
    openapi_extra=described_body(
        GenerateRequest, {"model": "digits", "n": 8, "class": "7", "seed": 1}, pictures=False
    ),
    summary="Draw pictures that never were",
)
async def generate(request: Request, desk: State) -> Response:
    """Draw pictures that never were: one row, or with class ``all`` a row for each latent."""
    asked, uploads = await parsed(request, GenerateRequest)
    if uploads:
        raise ApiError("invalid-request", "generate takes no pictures")
    model, sheet = desk.holdings.model(asked.model), wants_png(request)
    classes = len(model.bundle.spec.classes)
    if asked.of_class == _ALL and asked.n * classes > MOST_DRAWN:
        raise ApiError(
            "invalid-request",
            f"at most {MOST_DRAWN} pictures are drawn for a request, {asked.n} in {classes} classes are more",
        )
    return await desk.drawn(lambda: _generated(model, asked, sheet=sheet))


def _generated(model: Model, asked: GenerateRequest, *, sheet: bool) -> Response:
    if asked.of_class == _ALL:
        table = drawing.sample_classes(
            model, asked.n, sampler=asked.sampler, seed=asked.seed, temperature=asked.temperature
        )
        if sheet:
            return _png(classes_sheet(model, table))
        return _rows(model, asked.model, table, classes=list(model.bundle.spec.classes))
    latents = drawing.sample_latents(
        model,
        asked.n,
        sampler=asked.sampler,
        of_class=asked.of_class,
        seed=asked.seed,
        temperature=asked.temperature,
    )
    pictures = to_uint8(model.decode(latents))
    if sheet:
        return _png(grid(list(pictures)))
    drawn = [asked.of_class] * asked.n if asked.of_class is not None else drawing.classes_of(model, latents)
    return _rows(model, asked.model, pictures[None], classes=drawn)


def _rows(model: Model, name: str, rows: Pixels, *, classes: list[str] | None = None) -> JSONResponse:
    """Answer with pictures uint8 (rows, columns, H, W, C)."""
    drawn = [[png_text(picture) for picture in row] for row in rows]
    return JSONResponse({"model": name, "model_id": model.model_id, "rows": drawn, "classes": classes})


def _png(pixels: Pixels) -> Response:
    return Response(encode_png(pixels), media_type=_PNG)
