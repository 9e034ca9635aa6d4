"""``POST /api/v1/denoise``: noise removed from images, as ``lookalike denoise --format png`` does it.

A request is limited in pixels, by the headers of its images, and in time: images are denoised in tiles, and
    no
further tile is begun when the time is over.
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
from lookalike.deploy.http.routes.generate import PNG_RESPONSE, wants_png
from lookalike.deploy.http.settings import DENOISER, MAX_DENOISED_PIXELS, MAX_IMAGES
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, describe_body, parse_body
from lookalike.encoder.errors import ImageTooLargeError
from lookalike.encoder.images import DECODING
from lookalike.searcher.denoising import DenoisedFile, FileDenoiser, make_file_denoiser

router: Final = APIRouter(prefix="/api/v1", tags=["denoising"])


class DenoiseRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """Noisy images, and how much noise they have; see lookalike denoise."""

    model: str = Field(DENOISER, max_length=200, description="Name of a model, as in GET models.")
    images: list[str] | None = Field(None, max_length=MAX_IMAGES, description="Image files in Base64.")
    sigma: float | Literal["auto"] = Field(
        "auto",
        description="Standard deviation of the noise, 0 to 255; auto: estimated for each image.",
        json_schema_extra={"minimum": 0, "maximum": 255},
    )
    strength: float = Field(
        1.0,
        ge=0,
        le=2,
        description="How much of the noise is removed: 0.7 leaves some grain; above 1 it counts as stronger.",
    )

    @field_validator("sigma", mode="before")
    @classmethod
    def _auto_or_number(cls, value: Any) -> Any:
        try:
            valid = value == "auto" or 0 <= float(value) <= 255  # NaN is not
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError("neither auto nor a number from 0 to 255")
        return value


class DenoisedJson(BaseModel):
    """A denoised image: a PNG file in Base64, of the image's own size and bit depth."""

    name: str
    status: Literal["cleaned", "clean"] = Field(
        description="clean: it is unchanged, as it had hardly any noise, or nothing to change."
    )
    sigma: float | None = Field(
        description="Standard deviation of the noise, of 255: as estimated, or as given."
    )
    image: str


class DenoiseResponse(BaseModel):
    """The denoised images, in order."""

    model: str
    model_id: str
    images: list[DenoisedJson]


@router.post(
    "/denoise",
    response_model=DenoiseResponse,
    responses=PNG_RESPONSE,
    openapi_extra=describe_body(DenoiseRequest, {"model": DENOISER, "images": ["iVBORw0KGgo="], "sigma": 25}),
    summary="Remove noise from images",
)
async def denoise(request: Request, state: State) -> Response:
    """Remove noise from images of any size.

    Size, bit depth, alpha, metadata and color profile stay; EXIF orientation is applied. An image with hardly
    any noise is left as it is. With ``Accept: image/png`` the response is the denoised image, of one that was
    sent.
    """
    params, uploads = await parse_body(request, DenoiseRequest)
    png = wants_png(request)
    if not uploads or (png and len(uploads) > 1):
        one = "one image for a response that is an image" if png else "an image"
        raise ApiError("invalid-request", f"send {one}: images, or files called image")
    model = state.registry.denoising_model(params.model)
    denoiser = make_file_denoiser(
        model,
        sigma=None if isinstance(params.sigma, str) else params.sigma / 255,
        strength=params.strength,
        kind="PNG",
        quality=None,
        max_pixels=MAX_DENOISED_PIXELS,
    )
    work = _Work(denoiser, uploads, seconds=state.settings.seconds)
    if png:
        (result,) = await state.run_timed(lambda: list(work.results()), step="denoise")
        return Response(result.data, media_type="image/png")

    def respond() -> Response:
        images = [_to_json(upload, result) for upload, result in zip(uploads, work.results(), strict=True)]
        return JSONResponse({"model": params.model, "model_id": model.model_id, "images": images})

    return await state.run_timed(respond, step="denoise")


def _to_json(upload: Upload, result: DenoisedFile) -> dict[str, Any]:
    return {
        "name": upload.name,
        "status": result.status,
        "sigma": None if result.sigma is None else round(255 * result.sigma, 2),
        "image": base64.b64encode(result.data).decode(),
    }


class _Work:
    """The images of one request, denoised within its limits."""

    def __init__(self, denoiser: FileDenoiser, uploads: list[Upload], *, seconds: float) -> None:
        self._denoiser, self._uploads, self._seconds = denoiser, uploads, seconds
        self._due = time.monotonic() + seconds
        self._pixels_left = MAX_DENOISED_PIXELS

    def results(self) -> Iterator[DenoisedFile]:
        """Denoise one image after the other.

        Raises:
            ImageTooLargeError: the images together have too many pixels.
            ImageError: an image cannot be read.
            ApiError: the time is over; nobody waits any more.
        """
        for upload in self._uploads:
            self._check_time()
            with DECODING.acquire() as wait_for:

                def count(pixels: int, wait_for: Callable[[int], None] = wait_for) -> None:
                    self._count_pixels(pixels)
                    wait_for(pixels)

                yield self._denoiser(upload.data, upload.name, map_tiles=self._map_in_time, on_size=count)

    def _count_pixels(self, pixels: int) -> None:
        self._pixels_left -= pixels
        if self._pixels_left < 0:
            raise ImageTooLargeError(
                f"a request denoises at most {MAX_DENOISED_PIXELS:,} pixels; send fewer images, or use "
                "lookalike denoise"
            )

    def _map_in_time(self, function: Callable[..., Any], tiles: Iterable[Any]) -> Iterator[Any]:
        for tile in tiles:
            self._check_time()
            yield function(tile)

    def _check_time(self) -> None:
        if time.monotonic() > self._due:
            raise ApiError("timeout", f"it took more than {self._seconds:g} s; send less, or try again later")
