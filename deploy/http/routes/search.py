"""``POST /api/v1/search``: the images most similar to an image, or to a stored item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import JSONResponse

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.items import item_file
from lookalike.deploy.http.settings import DENOISER, MAX_IMAGES, MAX_K
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, describe_body, parse_body
from lookalike.encoder.images import Crop
from lookalike.indexer.store import parse_where
from lookalike.searcher.generation import parse_strengths
from lookalike.searcher.search import QueryDenoiser, QueryFaces, QueryResult, Searcher

router: Final = APIRouter(prefix="/api/v1", tags=["search"])


class SearchRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """Query images or an item ("more like this"); see lookalike search."""

    collection: str = Field(max_length=64, description="The collection to search.")
    images: list[str] | None = Field(
        None, max_length=MAX_IMAGES, description="Query images, each a file in Base64."
    )
    item: UUID | None = Field(None, description="More like this item, instead of images.")
    k: int = Field(10, ge=1, le=MAX_K, description="At most so many results for each query.")
    exclude_self: bool | None = Field(
        None, description="Leave out items with the query's exact bytes; default: true for an item only."
    )
    crop: str | None = Field(
        None,
        max_length=200,
        description="Part of the images: full, center:F or X,Y,W,H; default: as in the collection.",
    )
    faces: bool = Field(
        False, description="Search for the main face of each image; the default where items are faces."
    )
    face: int | None = Field(None, ge=1, description="Search for this face, from 1 at the left.")
    all_faces: bool = Field(False, description="Search for each face of an image: one answer for each.")
    where: str | None = Field(
        None, max_length=2000, description="Conditions for results: person=Ada_Lovelace, Smiling>0."
    )
    group_by: str | None = Field(
        None, max_length=200, description="Only the best result for each value of this field: person."
    )
    add: list[str] = Field(
        [], max_length=16, description="Edit the query first: Smiling=1.5, in standard deviations."
    )
    denoise: bool = Field(False, description="Denoise the query first, if it is noisy.")
    denoise_model: str = Field(DENOISER, max_length=200, description="Name of a denoiser.")
    prior: float | None = Field(
        None, description="Prior probability of a match, for each image of the collection."
    )
    fmr: float | None = Field(None, description="False match rate of the threshold for a match.")

    @model_validator(mode="after")
    def _images_or_item(self) -> SearchRequest:
        if self.face is not None and self.all_faces:
            raise ValueError("send face or all_faces, not both")
        if self.crop is not None and self.query_faces is not None:
            raise ValueError("send crop or faces, not both")
        if self.images is not None and self.item is not None:
            raise ValueError("send images or an item, not both")
        return self

    @property
    def query_faces(self) -> QueryFaces | None:
        """Which faces of the images are compared; None: as in the collection."""
        if not (self.faces or self.face is not None or self.all_faces):
            return None
        return QueryFaces(self.face, every=self.all_faces)


class ResultJson(BaseModel):
    """One hit; see lookalike search --json."""

    rank: int
    score: float
    probability: float | None
    match: bool | None = Field(
        description="Probability over one half, score above the threshold, and no warning; null: not calibrated."
    )
    same_file: bool = Field(description="The item has the query's exact bytes.")
    path: str
    person: str | None
    payload: dict[str, Any]
    id: str


class TreatmentJson(BaseModel):
    """How a query was denoised."""

    denoiser: str
    sigma: float = Field(description="Estimated standard deviation of the noise, of 255.")
    cleaned: bool = Field(description="False: it had hardly any noise and is unchanged.")


class AnswerJson(BaseModel):
    """The results of one query."""

    query: str
    model_id: str
    took_ms: float
    match: bool | None
    warning: str | None
    results: list[ResultJson]
    face: dict[str, Any] | None = Field(
        None, description="The face that was compared: number, count, box, landmarks, score, width."
    )
    treatment: TreatmentJson | None = None
    error: str | None = None


class SearchResponse(BaseModel):
    """The results of each query, in order."""

    answers: list[AnswerJson]


_EXAMPLE: Final = {"collection": "family", "item": "5d0cba5c-7e94-5e8c-b9cb-5b9a0b2a5b5e", "k": 5}


@router.post(
    "/search",
    response_model=SearchResponse,
    openapi_extra=describe_body(SearchRequest, _EXAMPLE),
    summary="Find the images most similar to an image or an item",
)
async def search(request: Request, state: State) -> JSONResponse:
    """Find the images most similar to an image, or to a stored item.

    Send a form with one or more files called ``image``, or JSON. Of several images, one that cannot be read
    has an ``error`` instead of results; if none can be read, the response is a problem.
    """
    params, uploads = await parse_body(request, SearchRequest)
    if params.item is None and not uploads:
        raise ApiError("invalid-request", "send an image (images, or files called image) or an item")
    if params.item is not None and uploads:
        raise ApiError("invalid-request", "send images or an item, not both")
    registry = state.registry
    denoiser = registry.query_denoiser(params.denoise_model) if params.denoise else None

    def answer(queries: Sequence[Upload]) -> list[QueryResult]:
        searcher = registry.searcher(params.collection)
        return _search(searcher, params, queries, denoiser, allowed=state.settings.roots)

    if params.item is None and len(uploads) == 1 and not params.all_faces:
        kind = (SearchRequest, params.model_dump_json(exclude={"images"}))
        result = await state.executor.submit_batched(
            kind, uploads[0], lambda batch: [result.error or result for result in answer(batch)]
        )
        results = [result]
    else:
        results = await state.executor.run(lambda: answer(uploads))
        if results[0].error is not None and all(result.error is not None for result in results):
            raise results[0].error
    return JSONResponse({"answers": [_to_json(result) for result in results]})


def _search(
    searcher: Searcher,
    params: SearchRequest,
    uploads: Sequence[Upload],
    denoiser: QueryDenoiser | None,
    *,
    allowed: Sequence[Path],
) -> list[QueryResult]:
    """Search with images, or with the item of the parameters."""
    options: dict[str, Any] = {
        "k": params.k,
        "where": None if params.where is None else parse_where(params.where),
        "group_by": params.group_by,
        "prior": params.prior,
        "fmr": params.fmr,
        "add": parse_strengths(params.add) if params.add else {},
        "denoiser": denoiser,
    }
    if params.item is not None:
        return [
            searcher.similar_to_item(
                str(params.item),
                exclude_self=params.exclude_self is not False,
                read=lambda payload: item_file(searcher.spec, payload, allowed=allowed),
                **options,
            )
        ]
    crop = None if params.crop is None else Crop.parse(params.crop)
    return list(
        searcher.similar(
            uploads,
            exclude_self=bool(params.exclude_self),
            crop=crop,
            faces=params.query_faces,
            **options,
        )
    )


def _to_json(result: QueryResult) -> dict[str, Any]:
    """Return the results of a query as the command prints them, each with its item's id."""
    record = result.to_json()
    for values, hit in zip(record["results"], result.results, strict=True):
        values["id"] = hit.id
    return record
