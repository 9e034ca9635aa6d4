"""``POST /api/v1/search``: the images most similar to an image, or to a stored item."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import JSONResponse

from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.routes.embed import read_vectors
from lookalike.deploy.http.routes.items import item_file
from lookalike.deploy.http.settings import DENOISER, MAX_IMAGES, MAX_K
from lookalike.deploy.http.state import State
from lookalike.deploy.http.uploads import Upload, describe_body, parse_body
from lookalike.encoder.errors import printable
from lookalike.encoder.images import Crop
from lookalike.indexer.store import parse_where
from lookalike.searcher.generation import parse_strengths
from lookalike.searcher.search import (
    QueryDenoiser,
    QueryFaces,
    QueryResult,
    Searcher,
    SearchParams,
    StoredItem,
    TextQuery,
)

router: Final = APIRouter(prefix="/api/v1", tags=["search"])
_MAX_EXAMPLES: Final = 64
_MAX_OFFSET: Final = 10_000


class SearchRequest(BaseModel, extra="forbid", allow_inf_nan=False):
    """Query images or an item ("more like this"); see lookalike search."""

    collection: str = Field(max_length=64, description="The collection to search.")
    images: list[str] | None = Field(
        None, max_length=MAX_IMAGES, description="Query images, each a file in Base64."
    )
    text: str = Field("", max_length=1000, description="Words, for a model that takes text.")
    item: UUID | None = Field(None, description="More like this item, instead of images.")
    vectors: list[list[float] | str] | None = Field(
        None,
        min_length=1,
        max_length=MAX_IMAGES,
        description="Query vectors as POST embed returns them, instead of images; with model_id.",
    )
    model_id: str | None = Field(None, max_length=64, description="The model that made the vectors.")
    like: list[UUID] = Field(
        [], max_length=_MAX_EXAMPLES, description="Items that are one query with the images."
    )
    unlike: list[UUID] = Field(
        [], max_length=_MAX_EXAMPLES, description="Items that this query is moved away from."
    )
    offset: int = Field(0, ge=0, le=_MAX_OFFSET, description="Leave out so many of the best results.")
    k: int = Field(10, ge=1, le=MAX_K, description="At most so many results for each query.")
    exclude_self: bool | None = Field(
        None, description="Leave out items with the query's bytes; default: for an item only."
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
    fold_duplicates: bool = Field(
        False, description="Of results that are copies of one another only the best."
    )
    add: list[str] = Field([], max_length=16, description="Edit the query first: Smiling=1.5.")
    denoise: bool = Field(False, description="Denoise the query first, if it is noisy.")
    denoise_model: str = Field(DENOISER, max_length=200, description="Name of a denoiser.")
    prior: float | None = Field(None, description="Prior probability that the person is there.")
    fmr: float | None = Field(None, description="False match rate of a threshold for matches.")

    @model_validator(mode="after")
    def _images_or_item(self) -> SearchRequest:
        if self.face is not None and self.all_faces:
            raise ValueError("send face or all_faces, not both")
        if self.crop is not None and self.query_faces is not None:
            raise ValueError("send crop or faces, not both")
        if self.text and self.item is not None and not self.combined:
            raise ValueError("send text or an item, not both; like takes items beside text")
        if self.group_by is not None and self.fold_duplicates:
            raise ValueError("send group_by or fold_duplicates, not both")
        if self.images is not None and self.item is not None:
            raise ValueError("send images or an item, not both")
        if self.vectors is not None:
            self._check_vectors()
        if self.combined and (self.all_faces or self.prior is not None or self.fmr is not None):
            raise ValueError("all_faces, prior and fmr are for one image, not for like and unlike")
        return self

    def _check_vectors(self) -> None:
        if self.images is not None or self.item is not None or self.text or self.combined:
            raise ValueError("send vectors or images or items, not several of them")
        if self.model_id is None:
            raise ValueError("send vectors together with their model_id, as POST embed returns it")
        of_images = {"crop", "faces", "face", "all_faces", "add", "denoise", "exclude_self"}
        if given := sorted(of_images & self.model_fields_set):
            raise ValueError(f"{given[0]} is for images, not for vectors")

    @property
    def combined(self) -> bool:
        """Whether several images or items are one query."""
        return bool(self.like or self.unlike)

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
        description="Probability over 1/2, score above the threshold, no warning; null: not calibrated."
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
    like: list[str] | None = Field(None, description="Of a query of several images or items: those.")
    unlike: list[str] | None = Field(None, description="And those that it was moved away from.")
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


_EXAMPLE: Final = {"collection": "family", "images": ["iVBORw0KGgo="], "k": 5}


@router.post(
    "/search",
    response_model=SearchResponse,
    openapi_extra=describe_body(SearchRequest, _EXAMPLE),
    summary="Find the images most similar to an image or an item",
)
async def search(request: Request, state: State) -> JSONResponse:
    """Find the images most similar to an image, or to a stored item.

    Send a form with files called ``image``, or JSON. An image that cannot be read has an ``error`` in place
    of results; if none can be read, the response is a problem. With ``like``, ``unlike`` or ``text`` all is
    one query: the mean, moved away from ``unlike``.
    """
    params, uploads = await parse_body(request, SearchRequest)
    if params.item is not None and uploads:
        raise ApiError("invalid-request", "send images or an item, not both")
    if params.vectors is not None and uploads:
        raise ApiError("invalid-request", "send vectors or images or items, not several of them")
    if not (uploads or params.item or params.vectors or params.like or params.text):
        raise ApiError("invalid-request", "send an image (images, or files called image), text or an item")
    registry = state.registry
    denoiser = registry.query_denoiser(params.denoise_model) if params.denoise else None

    def answer(queries: Sequence[Upload]) -> list[QueryResult]:
        searcher = registry.searcher(params.collection)
        return _Search(searcher, params, denoiser, tuple(state.settings.roots)).run(queries)

    alone = not (params.item or params.vectors or params.text or params.combined or params.all_faces)
    if alone and len(uploads) == 1:
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


@dataclass(frozen=True, slots=True)
class _Search:
    """A search as a request describes it.

    Attributes:
        searcher: Of the request's collection.
        params: The request.
        denoiser: Denoises the queries first.
        allowed: Folders that requests may index.
    """

    searcher: Searcher
    params: SearchRequest
    denoiser: QueryDenoiser | None
    allowed: tuple[Path, ...]

    def run(self, uploads: Sequence[Upload]) -> list[QueryResult]:
        """Search with images, or with the item, items or vectors of the request."""
        params = self.params
        if params.vectors is not None:
            return self._with_vectors(params.vectors)
        if params.combined or (params.text and uploads):
            return [self._with_examples(uploads)]
        options: dict[str, Any] = {
            **self._results,
            "prior": params.prior,
            "fmr": params.fmr,
            "add": self._added,
            "denoiser": self.denoiser,
        }
        if params.item is not None:
            excluded, read = params.exclude_self is not False, self._read
            item = str(params.item)
            return [self.searcher.similar_to_item(item, exclude_self=excluded, read=read, **options)]
        return list(
            self.searcher.similar(
                self._words or uploads,
                exclude_self=bool(params.exclude_self),
                crop=self._crop,
                faces=params.query_faces,
                **options,
            )
        )

    @property
    def _results(self) -> dict[str, Any]:
        """Which results are wanted."""
        params = self.params
        where = None if params.where is None else parse_where(params.where)
        return {
            "k": params.k,
            "offset": params.offset,
            "where": where,
            "group_by": params.group_by,
            "fold_copies": params.fold_duplicates,
        }

    @property
    def _words(self) -> list[TextQuery]:
        return [TextQuery(self.params.text)] if self.params.text else []

    @property
    def _added(self) -> dict[str, float]:
        return parse_strengths(self.params.add) if self.params.add else {}

    @property
    def _crop(self) -> Crop | None:
        return None if self.params.crop is None else Crop.parse(self.params.crop)

    def _read(self, payload: dict[str, Any]) -> bytes:
        return item_file(self.searcher.spec, payload, allowed=self.allowed)

    def _with_examples(self, uploads: Sequence[Upload]) -> QueryResult:
        params = self.params
        liked = [*([] if params.item is None else [params.item]), *params.like]
        like, unlike = (
            [StoredItem(str(item), self._read) for item in items] for items in (liked, params.unlike)
        )
        excluded = bool(liked) if params.exclude_self is None else params.exclude_self
        return self.searcher.similar_to_examples(
            [*uploads, *self._words, *like],
            unlike,
            params=SearchParams(**self._results, exclude_self=excluded),
            crop=self._crop,
            faces=params.query_faces,
            add=self._added,
            denoiser=self.denoiser,
        )

    def _with_vectors(self, vectors: list[list[float] | str]) -> list[QueryResult]:
        params, spec, model_id = self.params, self.searcher.spec, self.searcher.model.model_id
        if params.model_id != model_id:
            raise ApiError(
                "vectors-mismatch",
                f"the vectors are of model {printable(str(params.model_id))[:12]}, the collection is of "
                f"{spec.model_name} ({model_id[:12]}); embed the images with that",
            )
        began, scorer = time.perf_counter(), self.searcher.match_scorer()
        rows = read_vectors(vectors, dimension=spec.dimension)
        found = self.searcher.similar_to_vectors(rows, **self._results, prior=params.prior, fmr=params.fmr)
        took_ms = (time.perf_counter() - began) * 1000 / len(rows)
        return [
            QueryResult(
                f"vector-{number}",
                model_id,
                took_ms,
                hits,
                match=scorer.any_match(hits),
            )
            for number, hits in enumerate(found, start=1)
        ]


def _to_json(result: QueryResult) -> dict[str, Any]:
    """Return the results of a query as the command prints them, each with its item's id."""
    record = result.to_json()
    for values, hit in zip(record["results"], result.results, strict=True):
        values["id"] = hit.id
    return record
