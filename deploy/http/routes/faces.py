"""``POST /api/v1/faces``: where the faces of photographs are, as ``lookalike faces --json`` says it."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.settings import MAX_IMAGES
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, describe_body, parse_body
from lookalike.encoder.detect import FaceFinder, face_finder, labeled_face
from lookalike.encoder.errors import ImageError, one_line
from lookalike.encoder.images import decoded_rgb

router: Final = APIRouter(prefix="/api/v1", tags=["faces"])


class FacesRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """Photographs; see lookalike faces."""

    images: list[str] | None = Field(None, max_length=MAX_IMAGES, description="Image files in Base64.")
    threshold: float | None = Field(
        None, ge=0.1, lt=1, description="Smallest score of a face; default: 0.8, and 0.6 where there is none."
    )


class FaceJson(BaseModel):
    """A face; coordinates are fractions of the photograph as shown, upright."""

    box: list[float] = Field(description="x, y, width, height; may reach out of the photograph.")
    landmarks: list[list[float]] = Field(
        description="x, y of the eyes, the tip of the nose and the corners of the mouth."
    )
    score: float = Field(description="Of the detector, 0 to 1.")
    width: int = Field(description="In pixels of the photograph.")


class PhotographJson(BaseModel):
    """The faces of a photograph, from left to right."""

    name: str
    width: int | None
    height: int | None
    count: int
    faces: list[FaceJson]
    main: int | None = Field(description="Number of the most prominent, which queries take; null: no face.")
    error: str | None = None


class FacesResponse(BaseModel):
    """The faces of each photograph, in order."""

    images: list[PhotographJson]


@router.post(
    "/faces",
    response_model=FacesResponse,
    openapi_extra=describe_body(FacesRequest, {"images": ["iVBORw0KGgo="]}),
    summary="Find the faces of photographs",
)
async def faces(request: Request, state: State) -> JSONResponse:
    """Find the faces of photographs.

    A photograph without a face has a count of 0. Of several photographs, one that cannot be read has an
    ``error``; if none can be read, the response is a problem. Where the service runs without the extra
    ``faces``, it is the problem ``extra-missing``.
    """
    params, uploads = await parse_body(request, FacesRequest)
    if not uploads:
        raise ApiError("invalid-request", "send an image: images, or files called image")
    seconds = state.settings.seconds
    due = time.monotonic() + seconds

    def respond() -> JSONResponse:
        finder, errors, rows = face_finder(), [], []
        for upload in uploads:
            if time.monotonic() > due:
                raise ApiError("timeout", f"it took more than {seconds:g} s; send less, or try again later")
            try:
                rows.append(_find(finder, upload, params.threshold, state.settings.max_pixels))
            except ImageError as error:
                errors.append(error)
                rows.append(_unreadable(upload, error))
        if len(errors) == len(uploads):
            raise errors[0]
        return JSONResponse({"images": rows})

    return await state.run_timed(respond, step="faces")


def _unreadable(upload: Upload, error: ImageError) -> dict[str, Any]:
    row: dict[str, Any] = {"name": upload.name, "width": None, "height": None, "main": None}
    return row | {"count": 0, "faces": [], "error": one_line(error)}


def _find(
    finder: FaceFinder, upload: Upload, threshold: float | None, max_pixels: int | None
) -> dict[str, Any]:
    # The photograph counts against the pixels in progress until its faces are found.
    with decoded_rgb(upload.data, max_pixels=max_pixels, name=upload.name) as pixels:
        found = (
            finder.find_for_query(pixels) if threshold is None else finder.find(pixels, threshold=threshold)
        )
    height, width = pixels.shape[:2]
    main = labeled_face(found, centered=False)
    return {
        "name": upload.name,
        "width": width,
        "height": height,
        "count": len(found),
        "faces": [face.to_json() for face in found],
        "main": None if main is None else main + 1,
    }
