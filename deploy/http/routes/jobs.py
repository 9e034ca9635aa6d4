"""``POST /api/v1/index``, and the jobs of the service, with their progress as it comes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.jobs import Job
from lookalike.deploy.http.routes.generate import PNG_RESPONSE
from lookalike.deploy.http.state import AppState, State
from lookalike.deploy.http.uploads import describe_body, parse_body
from lookalike.encoder.detect import INDEX_THRESHOLD, Faces, Framing
from lookalike.encoder.errors import printable
from lookalike.encoder.images import Crop
from lookalike.indexer.sources import Item, Refused, Source, SourceList
from lookalike.indexer.store import check_name
from lookalike.indexer.sync import SyncEvent, check_faces, sync

router: Final = APIRouter(prefix="/api/v1", tags=["jobs"])
_BATCH: Final = 64
"""Images after which a job says how far it is, and ends if it was cancelled."""
_EVENT_STREAM: Final = "text/event-stream"
_EVENT_SECONDS: Final = 0.25
"""Shortest time between two events."""
_QUIET_SECONDS: Final = 15.0
"""Longest time without a byte: proxies close what is silent for a minute."""


class IndexRequest(BaseModel, extra="forbid"):
    """What to index; see lookalike index."""

    source: str = Field(
        min_length=1,
        max_length=4096,
        description="A folder, image file or tar archive below a folder that may be indexed.",
    )
    collection: str = Field(max_length=64, description="Created if there is none.")
    model: str = Field("faces", max_length=200, description="Name of a model, as in GET models.")
    crop: str | None = Field(None, max_length=200, description="Part of the images; default: the model's.")
    faces: bool = Field(False, description="Store each face of the images, turned upright.")
    face_threshold: float | None = Field(
        None, ge=0.1, lt=1, description="Smallest score of a face; default: 0.8. Only with faces."
    )
    prune: bool = Field(False, description="Remove items whose files are gone.")
    root_name: str | None = Field(
        None, max_length=200, description="Name of the folder in the collection, if it was renamed."
    )


class FailureJson(BaseModel):
    """An image that failed, relative to the source, and why."""

    path: str
    error: str


class JobJson(BaseModel):
    """A job and its progress. Of ``total`` images or tiles, ``done`` are done for good, or failed."""

    id: str
    kind: Literal["index", "denoise"]
    state: Literal["queued", "running", "cancelling", "cancelled", "done", "failed"]
    unit: Literal["images", "tiles"]
    total: int | None = Field(description="null: not known yet.")
    done: int
    rate: float | None = Field(description="Images or tiles a second.")
    current: str | None = Field(description="Name of the last image, relative to the source.")
    failures: list[FailureJson] = Field(description="At most 100.")
    failed: int
    created: str = Field(description="ISO 8601, in UTC, as the next two.")
    started: str | None
    ended: str | None
    report: dict[str, Any] | None
    problem: dict[str, Any] | None
    collection: str | None
    source: str | None = Field(description="Relative to what may be indexed.")


class JobsResponse(BaseModel):
    """The jobs since the service was started, oldest first."""

    jobs: list[JobJson]


@router.post(
    "/index",
    status_code=202,
    response_model=JobJson,
    openapi_extra=describe_body(
        IndexRequest, {"source": "/srv/photos/family", "collection": "family"}, images=False
    ),
    summary="Index a folder",
)
async def index(request: Request, state: State) -> JSONResponse:
    """Start a job that brings a collection up to date with a folder of images."""
    params, uploads = await parse_body(request, IndexRequest)
    if uploads:
        raise ApiError("invalid-request", "index takes no images, but the name of a folder")
    check_name(params.collection)
    state.registry.model(params.model)
    if (framing := _framing(params)) is not None and not isinstance(framing, Crop):
        check_faces(state.registry.model(params.model).bundle)
    source = await state.executor.run(lambda: allowed_source(state.settings.roots, params.source))
    roots = tuple(root.resolve() for root in state.settings.roots)
    job = Job(
        "index",
        collection=params.collection,
        source=_named(source, roots),
        shown=lambda text: _without_folders(text, source, roots),
    )
    return job_response(state.jobs.start(job, lambda job: _index(state, params, source, job)))


def job_response(job: Job) -> JSONResponse:
    """Return the response for a job that was started."""
    return JSONResponse(job.to_json(), status_code=202, headers={"Location": f"/api/v1/jobs/{job.id}"})


def _named(source: Path, roots: tuple[Path, ...]) -> str:
    """Return a source by the name of the folder that may be indexed, which it is below or is."""
    root = max((root for root in roots if source.is_relative_to(root)), key=lambda root: len(root.parts))
    return printable("/".join(part for part in (root.name, *source.relative_to(root).parts) if part))


def _without_folders(text: str, source: Path, roots: tuple[Path, ...]) -> str:
    """Return a text in which files are named relative to the source, and folders by their names."""
    for written in (str, lambda path: printable(str(path))):
        text = text.replace(f"{written(source)}/", "")
        for folder in sorted({source, *roots}, key=lambda folder: len(folder.parts), reverse=True):
            if folder.name:  # "/" is in every path
                text = text.replace(written(folder), printable(folder.name))
    return text


def allowed_source(roots: tuple[Path, ...], source: str) -> Path:
    """Return the real path of a source, which is or lies below a folder that may be indexed.

    Raises:
        ApiError: it does not, or does not exist; one error for both, so that nobody learns what lies
            elsewhere.
    """
    try:
        named = Path(source)
        if not named.is_absolute():  # by the name of a folder that may be indexed
            folder = next(root for root in roots if root.name and root.name == named.parts[0])
            named = folder.joinpath(*named.parts[1:])
        real = named.resolve(strict=True)
    except (OSError, RuntimeError, ValueError, LookupError, StopIteration):
        real = None
    if real is None or not _is_within(real, tuple(root.resolve() for root in roots)):
        raise ApiError(
            "folder-not-allowed",
            f"'{printable(source)}' does not exist, or is in no folder that may be indexed; such folders are "
            "named when the service is started (--index-root)",
        )
    return real


@dataclass(frozen=True)
class _ConfinedSource(Source):
    """A source whose links are followed within some folders only."""

    folders: tuple[Path, ...] = ()

    def items(self, *arguments: Any) -> Iterator[Item]:
        """See :meth:`Source.items`; a link that leads out is an image that must not be read."""
        for item in Source.items(self, *arguments):
            if item.member is None and item.file.is_symlink() and not _is_within(item.file, self.folders):
                reason = "it is a link out of the folders that may be indexed"
                yield replace(item, member=Refused(str(item.file), reason))
            else:
                yield item


def _is_within(path: Path, folders: tuple[Path, ...]) -> bool:
    """Whether the real path of a file is below one of these real folders."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return False
    return any(real.is_relative_to(folder) for folder in folders)


@dataclass(frozen=True, kw_only=True)
class _ConfinedSources(SourceList):
    """Sources whose links are followed within some folders only."""

    folders: tuple[Path, ...] = ()

    def open(self, known_roots: Mapping[str, str]) -> list[Source]:
        """See :meth:`SourceList.open`."""
        found = SourceList.open(self, known_roots)
        names = [each.name for each in fields(Source)]
        return [
            _ConfinedSource(**{name: getattr(source, name) for name in names}, folders=self.folders)
            for source in found
        ]


def _framing(params: IndexRequest) -> Framing | None:
    """Return how images are framed; None: as the collection remembers."""
    if params.face_threshold is not None and not params.faces:
        raise ApiError("invalid-request", "face_threshold needs faces: true")
    if params.faces and params.crop is not None:
        raise ApiError("invalid-request", "send crop or faces, not both")
    if params.faces:
        return Faces(INDEX_THRESHOLD if params.face_threshold is None else params.face_threshold)
    return None if params.crop is None else Crop.parse(params.crop)


def _index(state: AppState, params: IndexRequest, source: Path, job: Job) -> dict[str, Any]:
    model = state.registry.model(params.model)
    folders = tuple(root.resolve() for root in state.settings.roots)

    def on_event(event: SyncEvent) -> None:
        job.current = job.shown(event.path)
        if event.status == "failed":
            job.on_failure(event.path, event.detail.removeprefix(f"{event.path}: "))

    try:
        report = sync(
            state.registry.store,
            params.collection,
            model,
            _ConfinedSources(sources=[source], root_name=params.root_name, folders=folders),
            crop=_framing(params),
            prune=params.prune,
            max_pixels=state.settings.max_pixels,
            processes=False,  # they would decode outside the budget of pixels that all images share
            batch=_BATCH,
            stopping=job.stop.is_set,
            on_event=on_event,
            on_total=job.on_total,
            on_progress=job.on_progress,
        )
    finally:
        state.registry.forget(params.collection)
    return report.to_json()


_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {_EVENT_STREAM: {"schema": {"type": "string"}}},
        "description": "JSON; for Accept: text/event-stream, an event for each change until no job runs.",
    }
}


@router.get("/jobs", response_model=JobsResponse, responses=_EVENTS, summary="List the jobs")
async def jobs(request: Request, state: State) -> Response:
    """List the jobs that wait or run, and the last hundred that ended since the service was started."""

    def now() -> tuple[dict[str, Any], bool]:
        all_jobs = state.jobs.all()
        over = all(job.over for job in all_jobs)
        return {"jobs": [job.to_json() for job in all_jobs]}, over

    return _progress(request, state, now)


@router.get("/jobs/{job}", response_model=JobJson, responses=_EVENTS, summary="Get the progress of a job")
async def job(request: Request, state: State, job: UUID) -> Response:
    """Return a job. Of ``total`` images to embed, ``done`` are stored durably, or failed."""
    found = state.jobs.get(str(job))

    def now() -> tuple[dict[str, Any], bool]:
        over = found.over
        return found.to_json(), over

    return _progress(request, state, now)


def _progress(request: Request, state: AppState, now: Callable[[], tuple[dict[str, Any], bool]]) -> Response:
    """Return JSON values, or each change of them as it comes.

    Args:
        request: Its ``Accept`` header decides.
        state: Of the service; when it is about to end, so do the events.
        now: Returns the values, and whether they will not change any more.
    """
    if _EVENT_STREAM not in request.headers.get("accept", ""):
        return JSONResponse(now()[0])

    async def events() -> AsyncIterator[str]:
        sent, sent_at = "", time.monotonic()
        while True:
            values, over = now()
            text = json.dumps(values)
            if text != sent:
                yield f"data: {text}\n\n"
                sent, sent_at = text, time.monotonic()
            elif time.monotonic() - sent_at > _QUIET_SECONDS:
                yield ":\n\n"
                sent_at = time.monotonic()
            if over or state.jobs.closing or await request.is_disconnected():
                return
            await asyncio.sleep(_EVENT_SECONDS)

    return StreamingResponse(events(), media_type=_EVENT_STREAM, headers={"X-Accel-Buffering": "no"})


@router.get(
    "/jobs/{job}/image", response_class=Response, responses=PNG_RESPONSE, summary="Get the image of a job"
)
async def job_image(state: State, job: UUID) -> Response:
    """Return the image that a job of ``POST denoise`` made, a PNG file; those of the last jobs are kept."""
    data = await state.executor.run(lambda: state.jobs.image(str(job)))
    return Response(data, media_type="image/png")


@router.delete("/jobs/{job}", status_code=202, response_model=JobJson, summary="Cancel a job")
async def cancel_job(state: State, job: UUID) -> JSONResponse:
    """Make a job end soon. What it has stored stays; the same job again does the rest."""
    return JSONResponse(state.jobs.cancel(str(job)).to_json(), status_code=202)
