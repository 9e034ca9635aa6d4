"""``POST /api/v1/search``: the pictures most like a picture, or like a stored item."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import JSONResponse

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.item_pictures import original
from lookalike.deploy.http.settings import MOST_PICTURES, MOST_RESULTS
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, described_body, parsed
from lookalike.encoder.images.preprocess import Crop, read_pixels
from lookalike.indexer.store.base import Filter
from lookalike.indexer.store.where import parse_where
from lookalike.searcher.generation.edit import parse_strengths
from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.retrieval import SearchParams, retrieve
from lookalike.searcher.search.searcher import QueryResult, Searcher

__all__ = ["router"]

router: Final = APIRouter(prefix="/api/v1", tags=["search"])


class SearchRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """What is looked for: pictures, or an item ("more like this")."""

    collection: str = Field(max_length=64, description="Where to look.")
    images: list[str] | None = Field(
        None, max_length=MOST_PICTURES, description="Query pictures, each a file in Base64."
    )
    item: UUID | None = Field(None, description="More like this item, in place of pictures.")
    k: int = Field(10, ge=1, le=MOST_RESULTS, description="Most results for each query.")
    exclude_self: bool | None = Field(
        None,
        description="Leave out items with the query's very bytes; by default of an item, not of a picture.",
    )
    crop: str | None = Field(
        None,
        max_length=200,
        description="How the pictures are framed, if otherwise: full, center:F or X,Y,W,H.",
    )
    where: str | None = Field(
        None, max_length=2000, description="What results must pass: person=Ada_Lovelace, Smiling>0."
    )
    group_by: str | None = Field(
        None, max_length=200, description="Of each value of this field, only the best result: person."
    )
    add: list[str] = Field(
        [], max_length=16, description="Edit the query first: Smiling=1.5, in standard deviations."
    )
    clean: bool = Field(False, description="Take noise off the query first, where there is any.")
    clean_model: str = Field("denoise", max_length=200, description="What takes it off: a cleaner's name.")
    prior: float | None = Field(
        None, description="How probable a match is before looking, for each picture of the collection."
    )
    fmr: float | None = Field(None, description="False match rate that a match's score lies beyond.")

    @model_validator(mode="after")
    def _one_kind(self) -> SearchRequest:
        if self.images is not None and self.item is not None:
            raise ValueError("give images or an item, not both")
        return self


class ResultJson(BaseModel):
    """One picture that was found; see lookalike search --json."""

    rank: int
    score: float
    probability: float | None
    match: bool | None
    path: str
    person: str | None
    payload: dict[str, Any]
    id: str


class TreatmentJson(BaseModel):
    """What was done to a query before."""

    cleaner: str
    sigma: float = Field(description="Deviation of the noise that was found, of 255.")
    cleaned: bool = Field(description="False: it was left as it is, clean enough.")


class AnswerJson(BaseModel):
    """What one query got."""

    query: str
    model_id: str
    took_ms: float
    match: bool | None
    warning: str | None
    results: list[ResultJson]
    treatment: TreatmentJson | None = None
    error: str | None = None


class SearchResponse(BaseModel):
    """An answer for each query, in order."""

    answers: list[AnswerJson]


_EXAMPLE: Final = {"collection": "family", "item": "5d0cba5c-7e94-5e8c-b9cb-5b9a0b2a5b5e", "k": 5}


@router.post(
    "/search",
    response_model=SearchResponse,
    openapi_extra=described_body(SearchRequest, _EXAMPLE),
    summary="Find the pictures most like a picture or an item",
)
async def search(request: Request, desk: State) -> JSONResponse:
    """Find the pictures most like a picture, or like a stored item.

    Send a form with one or more files called ``image``, or JSON. Of several pictures, one that cannot be read
    has an ``error`` in place of results; when none can, the answer is a problem.
    """
    asked, uploads = await parsed(request, SearchRequest)
    if asked.item is None and not uploads:
        raise ApiError("invalid-request", "send a picture (images, or files called image) or an item")
    if asked.item is not None and uploads:
        raise ApiError("invalid-request", "send pictures or an item, not both")
    holdings = desk.holdings
    cleaner = holdings.query_cleaner(asked.clean_model) if asked.clean else None
    if asked.item is not None:
        answers = [
            await desk.lanes.run(lambda: _like_item(holdings.searcher(asked.collection), asked, cleaner))
        ]
    elif len(uploads) == 1:
        kind = (SearchRequest, asked.model_dump_json(exclude={"images"}))
        answers = [
            await desk.lanes.together(
                kind,
                uploads[0],
                lambda some: _each(holdings.searcher(asked.collection), asked, some, cleaner),
            )
        ]
    else:
        answers = await desk.lanes.run(
            lambda: _some(holdings.searcher(asked.collection), asked, uploads, cleaner)
        )
    return JSONResponse({"answers": [answer_json(answer) for answer in answers]})


def answer_json(answer: QueryResult) -> dict[str, Any]:
    """Return an answer as the command prints it, each result with its item's id."""
    told = answer.to_json()
    for values, result in zip(told["results"], answer.results, strict=True):
        values["id"] = result.id
    return told


def _answered(
    searcher: Searcher, asked: SearchRequest, uploads: Sequence[Upload], cleaner: QueryDenoiser | None
) -> list[QueryResult]:
    return list(
        searcher.similar(
            uploads,
            k=asked.k,
            exclude_self=bool(asked.exclude_self),
            crop=None if asked.crop is None else Crop.parse(asked.crop),
            prior=asked.prior,
            fmr=asked.fmr,
            cleaner=cleaner,
            where=_filter(asked),
            group_by=asked.group_by,
            add=parse_strengths(asked.add),
        )
    )


def _filter(asked: SearchRequest) -> Filter | None:
    return None if asked.where is None else parse_where(asked.where)


def _each(
    searcher: Searcher, asked: SearchRequest, uploads: Sequence[Upload], cleaner: QueryDenoiser | None
) -> Sequence[QueryResult | Exception]:
    """Answer requests of one picture each, all asked alike; what is wrong with one is its own."""
    answers = _answered(searcher, asked, uploads, cleaner)
    return [
        answer if answer.failure is None else _failure(searcher, upload, answer)
        for answer, upload in zip(answers, uploads, strict=True)
    ]


def _some(
    searcher: Searcher, asked: SearchRequest, uploads: Sequence[Upload], cleaner: QueryDenoiser | None
) -> list[QueryResult]:
    """Answer one request of several pictures.

    Raises:
        ImageError, ApiError: none of them can be used; that of the first is raised.
    """
    answers = _answered(searcher, asked, uploads, cleaner)
    if all(answer.failure is not None for answer in answers):
        raise _failure(searcher, uploads[0], answers[0])
    return answers


def _failure(searcher: Searcher, upload: Upload, answer: QueryResult) -> Exception:
    """Return why a picture got no answer, as it was raised."""
    try:
        read_pixels(upload.data, searcher.model.bundle.spec.image, name=upload.name)
    except Exception as error:
        return error
    return ApiError("vector-unusable", answer.failure or "")


def _like_item(searcher: Searcher, asked: SearchRequest, cleaner: QueryDenoiser | None) -> QueryResult:
    """Find what is most like a stored item, by the vector that is stored; edited or cleaned, by its picture.

    Raises:
        ApiError: there is no such item.
    """
    began, point = time.perf_counter(), str(asked.item)
    record = searcher.store.fetch(searcher.collection, [point], with_vectors=True).get(point)
    if record is None or record.vector is None:
        raise ApiError("item-not-found", f"collection {searcher.collection} has no item {point}")
    asked = asked.model_copy(update={"exclude_self": asked.exclude_self is not False})
    name, payload = str(record.payload["path"]), dict(record.payload)
    if asked.add or cleaner is not None:  # its latent is not stored, its picture is there
        upload = Upload(name, original(searcher.spec, payload))
        return _some(searcher, asked, [upload], cleaner)[0]
    wanted = SearchParams(
        k=asked.k, where=_filter(asked), exclude_self=bool(asked.exclude_self), group_by=asked.group_by
    )
    digests = [[str(payload["sha256"])]]
    (hits,) = retrieve(searcher.store, searcher.collection, record.vector[None], digests, wanted)
    judge = searcher.judge(prior=asked.prior, fmr=asked.fmr)
    results = judge.ranked(hits)
    took = (time.perf_counter() - began) * 1000
    return QueryResult(name, searcher.model.model_id, took, results, None, judge.matched(results))
