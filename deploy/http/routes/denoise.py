"""``POST /api/v1/denoise``: noise taken off pictures, as ``lookalike denoise --format png`` does it.

What is asked of one request is bounded twice: in pixels, from the headers of its pictures, and in time. A
picture is cleaned in tiles, and when the time of the request is over no further one is begun.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, field_validator
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.draw import AS_PNG, wants_png
from lookalike.deploy.http.settings import MOST_CLEANED, MOST_PICTURES
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, described_body, parsed
from lookalike.encoder.errors import ImageTooLargeError
from lookalike.searcher.denoising.denoiser import DenoisedFile, FileDenoiser, file_denoiser_of

__all__ = ["router"]

router: Final = APIRouter(prefix="/api/v1", tags=["cleaning"])


class DenoiseRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """Pictures with noise, and how much of it there is; see lookalike denoise."""

    model: str = Field("denoise", max_length=200, description="Its name, as GET models has it.")
    images: list[str] | None = Field(None, max_length=MOST_PICTURES, description="Files in Base64.")
    sigma: float | Literal["auto"] = Field(
        "auto",
        description="Deviation of the noise, 0 to 255; auto: estimated of each picture.",
        json_schema_extra={"minimum": 0, "maximum": 255},
    )
    strength: float = Field(
        1.0, ge=0, le=1, description="How much of what the model takes away goes: 0.7 leaves some grain."
    )

    @field_validator("sigma", mode="before")
    @classmethod
    def _auto_or_number(cls, value: Any) -> Any:
        try:
            good = value == "auto" or 0 <= float(value) <= 255  # not NaN
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ValueError("neither auto nor a number from 0 to 255")
        return value


class DenoisedJson(BaseModel):
    """A picture without its noise: a PNG file in Base64, of the picture's own size and depth."""

    name: str
    status: Literal["cleaned", "clean"] = Field(
        description="clean: it was so before, and was left as it was."
    )
    sigma: float | None = Field(description="Deviation of the noise that was found, of 255.")
    image: str


class DenoiseResponse(BaseModel):
    """What became of each picture, in order."""

    model: str
    model_id: str
    images: list[DenoisedJson]


@router.post(
    "/denoise",
    response_model=DenoiseResponse,
    responses=AS_PNG,
    openapi_extra=described_body(DenoiseRequest, {"model": "denoise", "images": ["iVBORw0KGgo="], "sigma": 25}),
    summary="Take the noise from pictures",
)
async def denoise(request: Request, desk: State) -> Response:
    """Take the noise from pictures of any size.

    Size, depth, alpha, metadata and colour profile stay; EXIF orientation is applied. What is clean already
    is left as it is. With ``Accept: image/png`` the answer is the one picture that was sent, cleaned.
    """
    asked, uploads = await parsed(request, DenoiseRequest)
    alone = wants_png(request)
    if not uploads or (alone and len(uploads) > 1):
        one = "one picture for an answer that is a picture" if alone else "a picture"
        raise ApiError("invalid-request", f"send {one}: images, or files called image")
    model = desk.holdings.cleaning(asked.model)
    treatment = file_denoiser_of(
        model,
        sigma=None if isinstance(asked.sigma, str) else asked.sigma / 255,
        strength=asked.strength,
        kind="PNG",
        quality=None,
        max_pixels=MOST_CLEANED,
    )
    work = _Work(treatment, uploads, seconds=desk.settings.seconds)
    if alone:
        (treated,) = await desk.drawn(lambda: list(work.done()), step="clean")
        return Response(treated.data, media_type="image/png")

    def told() -> Response:
        images = [_told(upload, treated) for upload, treated in zip(uploads, work.done(), strict=True)]
        return JSONResponse({"model": asked.model, "model_id": model.model_id, "images": images})

    return await desk.drawn(told, step="clean")


def _told(upload: Upload, treated: DenoisedFile) -> dict[str, Any]:
    return {
        "name": upload.name,
        "status": treated.status,
        "sigma": None if treated.sigma is None else round(255 * treated.sigma, 2),
        "image": base64.b64encode(treated.data).decode(),
    }


class _Work:
    """The pictures of one request, cleaned within its bounds."""

    def __init__(self, treatment: FileDenoiser, uploads: list[Upload], *, seconds: float) -> None:
        self._treatment, self._uploads, self._seconds = treatment, uploads, seconds
        self._due = time.monotonic() + seconds
        self._left = MOST_CLEANED

    def done(self) -> Iterator[DenoisedFile]:
        """Clean one after the other.

        Raises:
            ImageTooLargeError: all pictures so far have more pixels than one request may have cleaned.
            ImageError: one cannot be read.
            ApiError: the time is over; nobody waits any more.
        """
        for upload in self._uploads:
            self._check_time()
            yield self._treatment(upload.data, upload.name, at_once=self._in_time, on_size=self._enter)

    def _enter(self, pixels: int) -> None:
        self._left -= pixels
        if self._left < 0:
            raise ImageTooLargeError(
                f"at most {MOST_CLEANED:,} pixels are cleaned for a request; send fewer pictures, or take "
                "lookalike denoise"
            )

    def _in_time(self, tile: Callable[..., Any], arguments: Iterable[Any]) -> Iterator[Any]:
        for argument in arguments:
            self._check_time()
            yield tile(argument)

    def _check_time(self) -> None:
        if time.monotonic() > self._due:
            raise ApiError("timeout", f"it took more than {self._seconds:g} s; send less, or later")
