"""``POST /api/v1/index`` and the jobs that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.jobs import Job
from lookalike.deploy.http.state import AppState, State
from lookalike.deploy.http.uploads import described_body, parsed
from lookalike.encoder.images.preprocess import Crop, printable
from lookalike.indexer.store.spec import check_name
from lookalike.indexer.sync.sync import sync

__all__ = ["router"]

router: Final = APIRouter(prefix="/api/v1", tags=["indexing"])


class IndexRequest(BaseModel, extra="forbid"):
    """What is to be indexed; see lookalike index."""

    source: str = Field(
        min_length=1, max_length=4096, description="A folder, picture or tar archive under an allowed folder."
    )
    collection: str = Field(max_length=64, description="Made when it is not there.")
    model: str = Field("faces", max_length=200, description="Its name, as GET models has it.")
    crop: str | None = Field(None, max_length=200, description="How the pictures are framed, if otherwise.")
    prune: bool = Field(False, description="Remove what is stored and no longer in the folder.")


class JobJson(BaseModel):
    """A job, and how far it is."""

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
    openapi_extra=described_body(
        IndexRequest, {"source": "/srv/photos/family", "collection": "family"}, pictures=False
    ),
    summary="Index a folder",
)
async def index(request: Request, desk: State) -> JSONResponse:
    """Begin to put the pictures of a folder into a collection; ask for the job to see how far it is."""
    asked, uploads = await parsed(request, IndexRequest)
    if uploads:
        raise ApiError("invalid-request", "index takes no pictures, but a folder's name")
    check_name(asked.collection)
    desk.holdings.model(asked.model)
    if asked.crop is not None:
        Crop.parse(asked.crop)
    source = await desk.lanes.run(lambda: allowed(desk.settings.roots, asked.source))
    about = {"kind": "index", "collection": asked.collection, "source": asked.source}
    job = desk.jobs.start(about, lambda job: _index(desk, asked, source, job))
    return JSONResponse(job.to_json(), status_code=202, headers={"Location": f"/api/v1/jobs/{job.id}"})


def allowed(roots: tuple[Path, ...], source: str) -> Path:
    """Return where a source really is, when that is in or below a folder that may be indexed.

    Raises:
        ApiError: it is not, or is not there (which is not told apart: nobody learns what lies elsewhere).
    """
    try:
        real = Path(source).resolve(strict=True) if Path(source).is_absolute() else None
    except (OSError, RuntimeError, ValueError):
        real = None
    if real is None or not any(real.is_relative_to(root.resolve()) for root in roots):
        raise ApiError(
            "folder-not-allowed",
            f"'{printable(source)}' is not there, or lies under no folder that the service may index; "
            "they are named when it is started (--allow)",
        )
    return real


def _index(desk: AppState, asked: IndexRequest, source: Path, job: Job) -> dict[str, Any]:
    """Do what the command does."""
    store, model = desk.holdings.store, desk.holdings.model(asked.model)
    crop = None if asked.crop is None else Crop.parse(asked.crop)
    try:
        report = sync(
            store,
            asked.collection,
            model,
            source,
            crop=crop,
            prune=asked.prune,
            processes=True,
            on_total=job.on_total,
            on_progress=job.on_progress,
        )
    finally:
        desk.holdings.forget(asked.collection)
    return report.to_json()


@router.get("/jobs", response_model=JobsResponse, summary="List the jobs")
async def jobs(desk: State) -> JSONResponse:
    """List the jobs since the service was started: those that are open, and the last hundred that ended."""
    return JSONResponse({"jobs": [job.to_json() for job in desk.jobs.all()]})


@router.get("/jobs/{job}", response_model=JobJson, summary="How far a job is")
async def job(desk: State, job: UUID) -> JSONResponse:
    """Say how far a job is. Of ``total`` pictures to embed, ``done`` are stored, durably, or failed."""
    return JSONResponse(desk.jobs.get(str(job)).to_json())


@router.delete("/jobs/{job}", status_code=202, response_model=JobJson, summary="Cancel a job")
async def cancel_job(desk: State, job: UUID) -> JSONResponse:
    """Have a job end soon. What it has stored stays; the same job again does the rest."""
    return JSONResponse(desk.jobs.cancel(str(job)).to_json(), status_code=202)
