"""``POST /api/v1/embed``: the vectors of images, to be kept elsewhere or searched with later."""

from __future__ import annotations

import base64
from typing import Any, Final, Literal

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.generate import ImagesRequest, read_uploads
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import decode_base64, describe_body, parse_body
from lookalike.searcher.search import QueryEmbedder, no_vector

router: Final = APIRouter(prefix="/api/v1", tags=["vectors"])
Vector = NDArray[np.float32]
Encoding = Literal["float", "base64"]


class EmbedRequest(ImagesRequest):
    """Images, and how their vectors are written."""

    encoding: Encoding = Field(
        "float", description="A list of numbers, or their bytes as float32, little-endian, in Base64."
    )


class EmbeddingJson(BaseModel):
    """The vector of an image, of length 1."""

    name: str
    vector: list[float] | str
    warning: str | None = Field(description="Why it means little; null: nothing is known against it.")


class EmbedResponse(BaseModel):
    """The vector of each image, in order."""

    model: str
    model_id: str
    dimension: int
    embeddings: list[EmbeddingJson]


@router.post(
    "/embed",
    response_model=EmbedResponse,
    openapi_extra=describe_body(EmbedRequest, {"model": "faces", "images": ["iVBORw0KGgo="]}),
    summary="Get the vectors of images",
)
async def embed(request: Request, state: State) -> Response:
    """Return the vectors of images, as collections of this model hold them.

    POST /api/v1/search takes them as queries, together with the ``model_id``.
    """
    params, uploads = await parse_body(request, EmbedRequest)
    model = state.registry.model(params.model)

    def respond() -> Response:
        pixels = read_uploads(model, uploads, params.framing, max_pixels=state.settings.max_pixels)
        faces = params.chosen_face is not None
        embedder = QueryEmbedder(model, None if faces else model.bundle.spec.image.crop)
        rows, warnings = embedder.embed(list(pixels))
        found = []
        for upload, vector, warning in zip(uploads, rows, warnings, strict=True):
            if vector is None:
                raise no_vector(upload.name)
            written = _write(vector, params.encoding)
            found.append({"name": upload.name, "vector": written, "warning": warning})
        about = {"model": params.model, "model_id": model.model_id, "dimension": model.bundle.spec.embedding}
        return JSONResponse({**about, "embeddings": found})

    return await state.run_timed(respond, step="embed")


def _write(vector: Vector, encoding: Encoding) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(f"{value:.9g}") for value in vector]  # all digits of a float32


def read_vectors(vectors: list[list[float] | str], *, dimension: int) -> Vector:
    """Return vectors, float32 (N, E), that a request has as lists of numbers or as Base64.

    Args:
        vectors: N of them.
        dimension: E.

    Raises:
        ApiError: one is no vector, or has another dimension.
    """
    rows: list[Any] = []
    for number, vector in enumerate(vectors, start=1):
        row = _read(vector, number)
        if len(row) != dimension:
            raise ApiError(
                "invalid-request",
                f"vectors: number {number} has {len(row)} values, this collection's have {dimension}",
            )
        rows.append(row)
    return np.stack(rows)


def _read(vector: list[float] | str, number: int) -> Vector:
    if isinstance(vector, str):
        try:
            return np.frombuffer(decode_base64(vector), "<f4").astype(np.float32)
        except ValueError as error:  # also for a number of bytes that is no multiple of 4
            raise ApiError(
                "invalid-request", f"vectors: number {number} is not float32 values in Base64"
            ) from error
    with np.errstate(over="ignore"):  # the store refuses values that are not finite
        return np.array(vector, np.float64).astype(np.float32)
