"""``POST /api/v1/denoise``: noise removed from images, as ``lookalike denoise --format png`` does it.

A request is limited in pixels, by the headers of its images, and in time: what would take too long, by the
speed measured so far, is refused at once. Images are denoised in tiles, and no further tile is begun when the
time is over or the client has gone. With ``?job=1`` an image is denoised by a job, however long it takes.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, field_validator
from starlette.responses import JSONResponse, Response, StreamingResponse

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.jobs import Job
from lookalike.deploy.http.routes.generate import PNG_RESPONSE, wants_png
from lookalike.deploy.http.routes.jobs import JobJson, job_response
from lookalike.deploy.http.settings import (
    DENOISED_PER_SECOND,
    DENOISER,
    MAX_DECODING_PIXELS,
    MAX_DENOISED_PIXELS,
    MAX_IMAGES,
)
from lookalike.deploy.http.state import AppState, State
from lookalike.deploy.http.uploads import Upload, describe_body, parse_body
from lookalike.encoder.errors import ImageTooLargeError
from lookalike.encoder.images import DEFAULT_MAX_PIXELS, PixelBudget, image_size
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.searcher.denoising import DenoisedFile, FileDenoiser, make_file_denoiser

router: Final = APIRouter(prefix="/api/v1", tags=["denoising"])
_IN_PROGRESS: Final = PixelBudget(MAX_DECODING_PIXELS)
"""The images of requests that are being denoised. Apart from those that are only decoded: nobody who searches
waits for a minute until there is room."""
_PIECE: Final = 3 << 18
"""Bytes that become Base64 at a time."""


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
    responses={
        **PNG_RESPONSE,
        202: {"model": JobJson, "description": "With job=1: the job that denoises the image."},
    },
    openapi_extra=describe_body(DenoiseRequest, {"model": DENOISER, "images": ["iVBORw0KGgo="], "sigma": 25}),
    summary="Remove noise from images",
)
async def denoise(
    request: Request,
    state: State,
    job: Annotated[bool, Query(description="Denoise one image by a job, however long it takes.")] = False,
) -> Response:
    """Remove noise from images of any size.

    Size, bit depth, alpha, metadata and color profile stay; EXIF orientation is applied. An image with hardly
    any noise is left as it is. With ``Accept: image/png`` the response is the denoised image, of one that was
    sent. What would take longer than a request may take is refused at once. With ``job=1`` the response is a
    job: its image is at ``/api/v1/jobs/{id}/image`` once it is done.
    """
    params, uploads = await parse_body(request, DenoiseRequest)
    png = wants_png(request)
    if not uploads or ((png or job) and len(uploads) > 1):
        why = " for a job" if job else " for a response that is an image" if png else ""
        one = f"one image{why}" if why else "an image"
        raise ApiError("invalid-request", f"send {one}: images, or files called image")
    model = state.registry.denoising_model(params.model)
    largest = state.settings.max_pixels or DEFAULT_MAX_PIXELS
    limit = largest if job else min(largest, MAX_DENOISED_PIXELS)
    denoiser = make_file_denoiser(
        model,
        sigma=None if isinstance(params.sigma, str) else params.sigma / 255,
        strength=params.strength,
        kind="PNG",
        quality=None,
        max_pixels=limit,
    )
    sizes = await state.executor.run(lambda: _sizes(denoiser, uploads, limit, largest=largest))
    if job:
        tiles = sum(denoiser.workload(*size).tiles for size in sizes)
        work = partial(_run_job, state, denoiser, model, uploads[0], tiles)
        return job_response(state.jobs.start(Job("denoise"), work))
    expected = _check_seconds(denoiser, sizes, seconds=state.settings.seconds)
    results = await state.run_long(
        partial(_denoise_all, denoiser, uploads), step="denoise", expected=expected
    )
    if png:
        return Response(results[0].data, media_type="image/png")
    about = {"model": params.model, "model_id": model.model_id}
    parts = list(_json_parts(about, uploads, results))
    length = sum(4 * -(-len(each.data) // 3) for each in results)
    length += sum(len(part) for part in parts if isinstance(part, bytes))
    return StreamingResponse(
        _pieces(parts), media_type=JSONResponse.media_type, headers={"Content-Length": str(length)}
    )


def _sizes(
    denoiser: FileDenoiser, uploads: Sequence[Upload], limit: int, *, largest: int
) -> list[tuple[int, int]]:
    """Return height and width of images; only their headers are read.

    Args:
        denoiser: The denoiser.
        uploads: The images.
        limit: Pixels that all may have together, if they are denoised in tiles.
        largest: Pixels that one may have.

    Raises:
        ImageTooLargeError: the images together have too many pixels.
        ImageError: an image cannot be read.
    """
    sizes, left = [], limit
    for upload in uploads:
        width, height = image_size(upload.data, max_pixels=largest, name=upload.name)
        left -= width * height if denoiser.workload(height, width).pixels else 0
        if left < 0:
            raise ImageTooLargeError(
                f"a request denoises at most {limit:,} pixels; send fewer images, or one image as a job "
                "(POST /api/v1/denoise?job=1)"
            )
        sizes.append((height, width))
    return sizes


def _check_seconds(denoiser: FileDenoiser, sizes: Iterable[tuple[int, int]], *, seconds: float) -> float:
    """Refuse what would take longer than a request may take; return the seconds that it will take, about.

    Raises:
        ApiError: it would (``too-slow``).
    """
    pixels = sum(denoiser.workload(*size).pixels for size in sizes)
    expected = pixels / (denoiser.pixels_per_second or DENOISED_PER_SECOND)
    if expected > seconds:
        raise ApiError(
            "too-slow",
            f"this would take about {expected:.0f} s, and a request may take {seconds:g} s; send it as a job "
            "(POST /api/v1/denoise?job=1), or send fewer pixels",
        )
    return expected


class _Stopped(Exception):  # noqa: N818  # not an error
    """Nobody waits for the result any more."""


def _denoise_all(
    denoiser: FileDenoiser, uploads: Sequence[Upload], stop: threading.Event
) -> list[DenoisedFile]:
    """Denoise one image after the other.

    Raises:
        ImageError: an image cannot be read.
        _Stopped: it was told to stop.
    """

    def check() -> None:
        if stop.is_set():
            raise _Stopped

    results = []
    for upload in uploads:
        check()
        with _IN_PROGRESS.acquire() as wait_for:
            results.append(_denoise(denoiser, upload, check, on_size=wait_for))
    return results


def _denoise(
    denoiser: FileDenoiser,
    upload: Upload,
    check: Callable[[], object],
    *,
    on_tile: Callable[[int], object] = lambda _: None,
    on_size: Callable[[int], object] | None = None,
) -> DenoisedFile:
    """Denoise an image.

    Args:
        denoiser: The denoiser.
        upload: The image.
        check: Called before each tile; raises to stop.
        on_tile: Called with 1 after each tile.
        on_size: Called with the number of pixels before they are decoded.
    """

    def map_tiles(function: Callable[..., Any], tiles: Iterable[Any]) -> Iterator[Any]:
        for tile in tiles:
            check()
            yield function(tile)
            on_tile(1)

    try:
        return denoiser(upload.data, upload.name, map_tiles=map_tiles, on_size=on_size)
    finally:
        denoiser.release_memory()


def _run_job(
    state: AppState, denoiser: FileDenoiser, model: Model | Denoiser, upload: Upload, tiles: int, job: Job
) -> dict[str, Any]:
    """Denoise an image by a job, and return its report."""
    job.current = upload.name
    job.on_total(tiles)
    with state.metrics.time_step("denoise"):
        result = _denoise(denoiser, upload, job.check_cancelled, on_tile=job.on_progress)
    job.done = tiles  # an image without noise is left as it is after the estimate
    state.jobs.keep_image(job, result.data)
    about = {"model": model.bundle.name, "model_id": model.model_id}
    return {**about, **_about(upload, result), "bytes": len(result.data)}


def _about(upload: Upload, result: DenoisedFile) -> dict[str, Any]:
    return {
        "name": upload.name,
        "status": result.status,
        "sigma": None if result.sigma is None else round(255 * result.sigma, 2),
    }


def _json_parts(
    about: dict[str, Any], uploads: Sequence[Upload], results: Sequence[DenoisedFile]
) -> Iterator[bytes | DenoisedFile]:
    """Yield the parts of a response in JSON; an image stands for its Base64, which is made when it is sent.

    As one text a large image would be in memory five times, in one form or another.
    """
    text = json.dumps({**about, "images": []}).removesuffix("]}")
    for upload, result in zip(uploads, results, strict=True):
        text += json.dumps({**_about(upload, result), "image": ""}).removesuffix('"}')
        yield text.encode()
        yield result
        text = '"}, '
    yield b'"}]}'


def _pieces(parts: Iterable[bytes | DenoisedFile]) -> Iterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
        else:
            for start in range(0, len(part.data), _PIECE):
                yield base64.b64encode(part.data[start : start + _PIECE])
