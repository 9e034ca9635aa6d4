"""``POST /api/v1/index``, and the jobs that it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.jobs import Job
from lookalike.deploy.http.state import AppState, State
from lookalike.deploy.http.uploads import describe_body, parse_body
from lookalike.encoder.detect import INDEX_THRESHOLD, Faces, Framing
from lookalike.encoder.errors import printable
from lookalike.encoder.images import Crop
from lookalike.indexer.sources import Item, Refused, Source, SourceList
from lookalike.indexer.store import check_name
from lookalike.indexer.sync import check_faces, sync

router: Final = APIRouter(prefix="/api/v1", tags=["indexing"])


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


class JobJson(BaseModel):
    """A job and its progress."""

    id: str
    state: str
    kind: str
    collection: str
    source: str
    total: int | None
    done: int
    report: dict[str, Any] | None
    problem: dict[str, Any] | None
    created: float
    ended: float | None


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
    about = {"kind": "index", "collection": params.collection, "source": params.source}
    job = state.jobs.start(about, lambda job: _index(state, params, source, job))
    return JSONResponse(job.to_json(), status_code=202, headers={"Location": f"/api/v1/jobs/{job.id}"})


def allowed_source(roots: tuple[Path, ...], source: str) -> Path:
    """Return the real path of a source, which is or lies below a folder that may be indexed.

    Raises:
        ApiError: it does not, or does not exist; one error for both, so that nobody learns what lies
            elsewhere.
    """
    try:
        real = Path(source).resolve(strict=True) if Path(source).is_absolute() else None
    except (OSError, RuntimeError, ValueError):
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
    try:
        report = sync(
            state.registry.store,
            params.collection,
            model,
            _ConfinedSources(sources=[source], root_name=params.root_name, folders=folders),
            crop=_framing(params),
            prune=params.prune,
            max_pixels=state.settings.max_pixels,
            processes=True,
            on_total=job.on_total,
            on_progress=job.on_progress,
        )
    finally:
        state.registry.forget(params.collection)
    return report.to_json()


@router.get("/jobs", response_model=JobsResponse, summary="List the jobs")
async def jobs(state: State) -> JSONResponse:
    """List the jobs that wait or run, and the last hundred that ended since the service was started."""
    return JSONResponse({"jobs": [job.to_json() for job in state.jobs.all()]})


@router.get("/jobs/{job}", response_model=JobJson, summary="Get the progress of a job")
async def job(state: State, job: UUID) -> JSONResponse:
    """Return a job. Of ``total`` images to embed, ``done`` are stored durably, or failed."""
    return JSONResponse(state.jobs.get(str(job)).to_json())


@router.delete("/jobs/{job}", status_code=202, response_model=JobJson, summary="Cancel a job")
async def cancel_job(state: State, job: UUID) -> JSONResponse:
    """Make a job end soon. What it has stored stays; the same job again does the rest."""
    return JSONResponse(state.jobs.cancel(str(job)).to_json(), status_code=202)
