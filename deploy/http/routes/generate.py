"""``POST /api/v1/reconstruct``, ``interpolate`` and ``generate``: images that a model decodes.

The response is JSON with PNG files in Base64 or, for ``Accept: image/png``, the contact sheet that the
    command of
the same name writes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.settings import MAX_GENERATED, MAX_IMAGES
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, describe_body, parse_body
from lookalike.encoder.detect import ChosenFace, CutFace
from lookalike.encoder.images import Crop, encode_png, grid, to_uint8
from lookalike.encoder.metrics import psnr
from lookalike.encoder.runtime import Model
from lookalike.searcher import generation
from lookalike.searcher.figures import caption, classes_sheet, interpolation_sheet, reconstruction_sheet
from lookalike.searcher.generation import InputFraming, Interpolation, Sampler, cut_face, read_input
from lookalike.searcher.search import QueryDenoiser

Pixels = NDArray[np.uint8]
router: Final = APIRouter(prefix="/api/v1", tags=["generated images"])

_PNG: Final = "image/png"
_ALL: Final = "all"
_BINARY: Final[dict[str, Any]] = {_PNG: {"schema": {"type": "string", "format": "binary"}}}
PNG_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": _BINARY, "description": "An image."}}
"""The OpenAPI description of a response that may be an image."""


class ImagesRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """Images for a model with a decoder."""

    model: str = Field("faces", max_length=200, description="Name of a model, as in GET models.")
    images: list[str] | None = Field(None, max_length=MAX_IMAGES, description="Image files in Base64.")
    crop: str | None = Field(None, max_length=200, description="Part of the images; default: the model's.")
    faces: bool = Field(False, description="Take the main face of each image, turned upright.")
    face: int | None = Field(None, ge=1, description="Take this face, from 1 at the left.")

    @model_validator(mode="after")
    def _crop_or_faces(self) -> Self:
        if self.crop is not None and self.chosen_face is not None:
            raise ValueError("send crop or faces, not both")
        return self

    @property
    def chosen_face(self) -> ChosenFace | None:
        """Which face of the images is taken; None: they are framed."""
        return ChosenFace(self.face) if self.faces or self.face is not None else None

    @property
    def framing(self) -> InputFraming:
        """How the images are framed.

        Raises:
            InvalidArgumentError: there is no such crop.
        """
        return self.chosen_face or (None if self.crop is None else Crop.parse(self.crop))


class InterpolateRequest(ImagesRequest):
    """Two or more images, and how many to decode between them."""

    steps: int = Field(8, ge=2, le=32, description="Images from one to the next, both ends included.")
    interpolation: Interpolation | None = Field(
        None, description="In a straight line, or keeping the length of latents."
    )


class GenerateRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """How to generate images; see lookalike generate."""

    model_config = ConfigDict(populate_by_name=True)

    model: str = Field("faces", max_length=200, description="Name of a model, as in GET models.")
    n: int = Field(16, ge=1, le=MAX_GENERATED, description="Number of images; with class all, of latents.")
    of_class: str | None = Field(
        None,
        alias="class",
        max_length=200,
        description="Of this class only; all: each latent in every class.",
    )
    sampler: Sampler | None = Field(None, description="The distribution that latents are sampled from.")
    seed: int = Field(0, ge=0, lt=2**63, description="The same seed gives the same images.")
    temperature: float = Field(
        1.0, ge=0, le=100, description="Below 1 closer to the mean, above 1 more varied."
    )


class ReconstructionJson(BaseModel):
    """An image as the model sees it, and its reconstruction."""

    name: str
    original: str
    reconstruction: str
    psnr: float


class ReconstructResponse(BaseModel):
    """The reconstruction of each image, in order; PNG in Base64."""

    model: str
    model_id: str
    images: list[ReconstructionJson]


class RowsResponse(BaseModel):
    """Rows of images; PNG in Base64."""

    model: str
    model_id: str
    rows: list[list[str]]
    classes: list[str] | None = None


def png_base64(pixels: Pixels) -> str:
    """Return ``uint8 (H, W, C)`` as a PNG file in Base64."""
    return base64.b64encode(encode_png(pixels)).decode()


def read_uploads(
    model: Model,
    uploads: Sequence[Upload],
    framing: InputFraming,
    denoiser: QueryDenoiser | None = None,
    *,
    max_pixels: int | None,
) -> Pixels:
    """Return uint8 (N, H, W, C): images as the model sees them, denoised first if there is a denoiser.

    Raises:
        ApiError: there is no image.
        ImageError: an image cannot be read, or has no such face.
    """
    if not uploads:
        raise ApiError("invalid-request", "send an image: images, or files called image")
    options: dict[str, Any] = {"max_pixels": max_pixels}
    if denoiser is None:
        return np.stack([read_input(model, up.data, framing, **options, name=up.name) for up in uploads])
    return np.stack([_denoised(model, up, framing, denoiser, **options) for up in uploads])


def _denoised(
    model: Model, upload: Upload, framing: InputFraming, denoiser: QueryDenoiser, *, max_pixels: int | None
) -> Pixels:
    """Return an image as the model sees it, without its noise, uint8 (H, W, C)."""
    spec = model.bundle.spec.image
    if framing is None or isinstance(framing, Crop):
        crop = spec.crop if framing is None else framing
        return denoiser.read(upload.data, spec, crop=crop, max_pixels=max_pixels, name=upload.name)[0]
    cut = cut_face(model, upload.data, framing, max_pixels=max_pixels, name=upload.name)
    part, _ = denoiser.face(cut.photograph, cut.face, spec.size)
    return CutFace.of(part, cut.face, model.bundle.face_frame, spec).pixels


def wants_png(request: Request) -> bool:
    """Whether the client asks for an image instead of JSON."""
    return _PNG in request.headers.get("accept", "")


def _captions(uploads: Sequence[Upload]) -> list[str]:
    return [caption(Path(each.name)) for each in uploads]


@router.post(
    "/reconstruct",
    response_model=ReconstructResponse,
    responses=PNG_RESPONSE,
    openapi_extra=describe_body(ImagesRequest, {"model": "faces", "images": ["iVBORw0KGgo="]}),
    summary="Reconstruct images",
)
async def reconstruct(request: Request, state: State) -> Response:
    """Encode and decode images: what the model keeps of them, with the PSNR of each in dB."""
    params, uploads = await parse_body(request, ImagesRequest)
    model, png = state.registry.model(params.model), wants_png(request)

    def respond() -> Response:
        pixels = read_uploads(model, uploads, params.framing, max_pixels=state.settings.max_pixels)
        results = generation.reconstruct(model, pixels)
        if png:
            return _png(reconstruction_sheet(model, pixels, results, _captions(uploads)))
        images = [
            {
                "name": upload.name,
                "original": png_base64(original),
                "reconstruction": png_base64(result),
                "psnr": min(round(float(psnr(original, result)), 2), 100.0),
            }
            for upload, original, result in zip(uploads, pixels, results, strict=True)
        ]
        return JSONResponse({"model": params.model, "model_id": model.model_id, "images": images})

    return await state.run_timed(respond)


@router.post(
    "/interpolate",
    response_model=RowsResponse,
    responses=PNG_RESPONSE,
    openapi_extra=describe_body(
        InterpolateRequest, {"model": "faces", "images": ["iVBORw0KGgo=", "iVBORw0KGgo="], "steps": 8}
    ),
    summary="Interpolate between images",
)
async def interpolate(request: Request, state: State) -> Response:
    """Decode a row of images from each image to the next, evenly through the latents."""
    params, uploads = await parse_body(request, InterpolateRequest)
    model, png = state.registry.model(params.model), wants_png(request)

    def respond() -> Response:
        pixels = read_uploads(model, uploads, params.framing, max_pixels=state.settings.max_pixels)
        rows = generation.interpolate(model, pixels, params.steps, interpolation=params.interpolation)
        if png:
            return _png(interpolation_sheet(model, pixels, rows, _captions(uploads)))
        return _rows(model, params.model, rows)

    return await state.run_timed(respond)


@router.post(
    "/generate",
    response_model=RowsResponse,
    responses=PNG_RESPONSE,
    openapi_extra=describe_body(
        GenerateRequest, {"model": "digits", "n": 8, "class": "7", "seed": 1}, images=False
    ),
    summary="Generate new images",
)
async def generate(request: Request, state: State) -> Response:
    """Generate new images: one row, or with class ``all`` a row for each latent."""
    params, uploads = await parse_body(request, GenerateRequest)
    if uploads:
        raise ApiError("invalid-request", "generate takes no images")
    model, png = state.registry.model(params.model), wants_png(request)
    classes = len(model.bundle.spec.classes)
    if params.of_class == _ALL and params.n * classes > MAX_GENERATED:
        raise ApiError(
            "invalid-request",
            f"a request generates at most {MAX_GENERATED} images, {params.n} in {classes} classes are more",
        )
    return await state.run_timed(lambda: _generate(model, params, png=png))


def _generate(model: Model, params: GenerateRequest, *, png: bool) -> Response:
    options: dict[str, Any] = params.model_dump(include={"sampler", "seed", "temperature"})
    if params.of_class == _ALL:
        table = generation.sample_classes(model, params.n, **options)
        if png:
            return _png(classes_sheet(model, table))
        return _rows(model, params.model, table, classes=list(model.bundle.spec.classes))
    latents = generation.sample_latents(model, params.n, of_class=params.of_class, **options)
    images = to_uint8(model.decode(latents))
    if png:
        return _png(grid(list(images)))
    one_class = params.of_class is not None
    classes = (
        [str(params.of_class)] * params.n if one_class else generation.most_likely_classes(model, latents)
    )
    return _rows(model, params.model, images[None], classes=classes)


def _rows(model: Model, name: str, rows: Pixels, *, classes: list[str] | None = None) -> JSONResponse:
    """Return a response with images uint8 (rows, columns, H, W, C)."""
    images = [[png_base64(image) for image in row] for row in rows]
    return JSONResponse({"model": name, "model_id": model.model_id, "rows": images, "classes": classes})


def _png(pixels: Pixels) -> Response:
    return Response(encode_png(pixels), media_type=_PNG)
