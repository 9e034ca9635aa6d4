"""Who looks like this? Query pictures in, ranked answers out.

Legend: Q queries, k results, E embedding size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import (
    BundleError,
    DataError,
    ImageError,
    InvalidArgumentError,
    ModelMismatchError,
)
from lookalike.encoder.images.preprocess import Crop, ImageSpec, printable, read_pixels
from lookalike.encoder.runtime.model import Model, Provider
from lookalike.indexer.sources.source import as_path
from lookalike.indexer.sources.tar import located
from lookalike.indexer.store.aliases import resolve_alias
from lookalike.indexer.store.base import VectorStore
from lookalike.indexer.store.filters import Filter
from lookalike.indexer.store.points import Hit
from lookalike.indexer.store.spec import CollectionSpec
from lookalike.indexer.sync.sync import DEGENERATE
from lookalike.searcher.generation.edit import attributes_of
from lookalike.searcher.search.query_denoiser import DenoiseInfo, QueryDenoiser
from lookalike.searcher.search.results import MatchScorer, QueryResult, SearchHit
from lookalike.searcher.search.retrieval import SearchParams, combine_examples, retrieve

__all__ = ["Query", "QueryResult", "SearchHit", "Searcher"]

_TOGETHER: Final = 64
UNLIKE: Final = (
    "this picture is unlike what the model was trained on (reconstruction error {:.1f} times the usual); "
    "results mean little"
)


class Query(Protocol):
    """A query picture: a ``Path``, or whatever has bytes and, as ``str``, a name."""

    def read_bytes(self) -> bytes:
        """Return the whole file.

        Raises:
            OSError: it cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False, slots=True)
class _Read:
    """A query: its pixels and the SHA-256 of its file, or why it could not be read."""

    pixels: NDArray[np.uint8] | None = None
    digest: str = ""
    treatment: DenoiseInfo | None = None
    failure: str | None = None


class Searcher:
    """A collection and the model that made it, ready to answer.

    Attributes:
        store: Where the collection is.
        collection: Its name; of an alias, what it stood for when this was made.
        model: What made it.
        spec: What the collection remembers.
        size: How many items it held when this was made.
    """

    def __init__(self, store: VectorStore, collection: str, model: Model) -> None:
        self.store = store
        self.collection = resolve_alias(store, collection)  # so that the model is its model to the end
        self.model = model
        self.spec: CollectionSpec = store.info(self.collection)
        self.spec.check_model(self.collection, model_id=model.model_id, crop=self.spec.crop)
        self.size = store.count(self.collection)
        _ = model.provider  # loads the model now: no query waits for it
        calibration = model.bundle.calibration
        self._usual = None if calibration is None or not model.draws else calibration.errors
        if self._usual is not None:
            model.errors(np.empty((0, *model.bundle.spec.image.shape), np.uint8))  # the decoder too

    @classmethod
    def open(
        cls,
        store: VectorStore,
        collection: str,
        *,
        model: str | None = None,
        provider: Provider = "auto",
        threads: int | None = None,
    ) -> Self:
        """Open a collection with the model it remembers, or with ``model``.

        Raises:
            CollectionNotFoundError: there is no such collection.
            ModelMismatchError: the model at hand is not the one that made it.
            BundleError: the model cannot be opened.
        """
        spec = store.info(collection)
        try:
            opened = Model.open(model or spec.model_name, provider=provider, threads=threads)
        except BundleError as error:
            if model is not None:
                raise
            raise ModelMismatchError(
                f"collection {collection!r} was made by model {spec.model_name} ({spec.model_id[:12]}), "
                f"which cannot be opened here ({error}); pass --model with the folder it is in"
            ) from error
        return cls(store, collection, opened)

    def similar(
        self,
        queries: Sequence[Query],
        *,
        k: int = 10,
        exclude_self: bool = False,
        crop: Crop | None = None,
        prior: float | None = None,
        fmr: float | None = None,
        cleaner: QueryDenoiser | None = None,
        where: Filter | None = None,
        group_by: str | None = None,
        add: Mapping[str, float] | None = None,
    ) -> Iterator[QueryResult]:
        """Yield an answer for each query picture, in order. One that cannot be read fails alone.

        Args:
            queries: Picture files, or what stands for them.
            k: Most results for each.
            exclude_self: Leave out items with exactly the query's bytes.
            crop: How the queries are framed; None: as the collection is.
            prior: That a picture of the collection shows the query's person, before it is looked at, in
                (0, 1); None: one match is expected in the collection.
            fmr: False match rate of the threshold; None: the smallest that the calibration supports.
            cleaner: Takes noise off the queries first; None: they are compared as they are.
            where: What results must pass.
            group_by: Payload field: of each of its values, only the best result.
            add: Attribute to strength: the query is edited in latent space first, see
                :func:`edit`.

        Raises:
            InvalidArgumentError: the prior or the rate cannot be, or is given for a model that is not calibrated; the
                model has no such attribute; there can be no such field.
        """
        framing = Crop.parse(self.spec.crop) if crop is None else crop
        judge = self.judge(prior=prior, fmr=fmr)
        wanted = SearchParams(k=k, where=where, exclude_self=exclude_self, group_by=group_by)
        change = self._change(add)
        for start in range(0, len(queries), _TOGETHER):
            some = queries[start : start + _TOGETHER]
            yield from self._together(some, wanted, framing, judge, change, cleaner)

    def like(
        self,
        like: Sequence[Path],
        unlike: Sequence[Path] = (),
        *,
        wanted: SearchParams | None = None,
        crop: Crop | None = None,
        add: Mapping[str, float] | None = None,
        cleaner: QueryDenoiser | None = None,
    ) -> QueryResult:
        """Return what is like all of some pictures, and unlike others; see :func:`~.retrieving.opposed`.

        Args:
            like: At least one file; ``add`` edits these.
            unlike: Files.
            wanted: Which results.
            crop: As for :meth:`similar`.
            add: As for :meth:`similar`.
            cleaner: As for :meth:`similar`.

        Raises:
            InvalidArgumentError: nothing to be like, or as for :meth:`similar`.
        """
        if not like:
            raise InvalidArgumentError(
                "what is unlike some pictures must be like another; give an IMAGE or --like"
            )
        framing = Crop.parse(self.spec.crop) if crop is None else crop
        judge, change = self.judge(), self._change(add)
        began = time.perf_counter()
        read = [self._read(file, framing, cleaner) for file in (*like, *unlike)]
        pictures = [each.pixels for each in read]
        rows = self._embed(pictures[: len(like)], change) + self._embed(pictures[len(like) :], None)
        name = " + ".join(map(str, like)) + "".join(f" - {file}" for file in unlike)
        results: tuple[SearchHit, ...] = ()
        failure = None
        there = [row for row in rows if row is not None]
        if len(there) < len(rows):
            bad = [row is None for row in rows].index(True)
            failure = read[bad].failure or f"{printable(str((*like, *unlike)[bad]))}: {DEGENERATE}"
        else:
            query = combine_examples(np.stack(there[: len(like)]), np.array(there[len(like) :], np.float32))
            digests = [[each.digest for each in read]]
            (hits,) = retrieve(self.store, self.collection, query, digests, wanted or SearchParams())
            results = judge.ranked(hits)
        took = (time.perf_counter() - began) * 1000
        match = None if failure else judge.matched(results)
        asked = {"like": tuple(map(str, like)), "unlike": tuple(map(str, unlike))}
        return QueryResult(name, self.model.model_id, took, results, failure, match, asked=asked)

    def similar_to(
        self,
        embeddings: NDArray[np.float32],
        *,
        k: int,
        where: Filter | None = None,
        prior: float | None = None,
        fmr: float | None = None,
    ) -> list[tuple[SearchHit, ...]]:
        """Return results for embeddings float32 (Q, E) of this model; see :meth:`similar`."""
        judge = self.judge(prior=prior, fmr=fmr)
        found = self.store.search(self.collection, embeddings, k=k, where=where)
        return [judge.ranked(hits) for hits in found]

    def judge(self, *, prior: float | None = None, fmr: float | None = None) -> MatchScorer:
        """Return what says how much a score is worth in this collection; see :meth:`similar`."""
        return MatchScorer.of(self.model.bundle, size=self.size, prior=prior, fmr=fmr)

    def picture(self, payload: dict[str, Any], *, side: int) -> NDArray[np.uint8] | None:
        """Return a stored item's picture for people, uint8 (side, side, 3), or None when its file is gone.

        Shown with a little more around it than the model sees.
        """
        root = self.spec.roots.get(payload["root"])
        if root is None:
            return None
        return self.query_picture(as_path(root) / as_path(payload["path"]), side=side)

    def query_picture(self, file: Path, *, side: int, crop: Crop | None = None) -> NDArray[np.uint8] | None:
        """Return the picture in a file as :meth:`picture` does."""
        framing = (Crop.parse(self.spec.crop) if crop is None else crop).widened(1.5)
        try:
            place = located(file)
            data = place.read_bytes() if isinstance(place, Path) else place.read()[0]
            return read_pixels(data, ImageSpec(size=side, crop=framing), name=str(file))
        except (DataError, ImageError, OSError, ValueError):  # ValueError: a null byte in the path
            return None

    def _change(self, add: Mapping[str, float] | None) -> NDArray[np.float32] | None:
        return attributes_of(self.model).change(add) if add else None

    def _together(
        self,
        queries: Sequence[Query],
        wanted: SearchParams,
        crop: Crop,
        judge: MatchScorer,
        change: NDArray[np.float32] | None,
        cleaner: QueryDenoiser | None,
    ) -> Iterator[QueryResult]:
        began = time.perf_counter()
        read = [self._read(query, crop, cleaner) for query in queries]
        pictures = [each.pixels for each in read]
        rows, warnings = self._embed(pictures, change), self._warnings(pictures)
        asked = [(row, [each.digest]) for row, each in zip(rows, read, strict=True) if row is not None]
        found = iter(self._retrieved(asked, wanted) if asked else ())
        answers = [None if row is None else judge.ranked(next(found)) for row in rows]
        took = (time.perf_counter() - began) * 1000 / len(queries)
        for query, results, warning, each in zip(queries, answers, warnings, read, strict=True):
            if results is None:
                reason = each.failure or f"{printable(str(query))}: {DEGENERATE}"
                yield QueryResult(str(query), self.model.model_id, took, (), reason)
            else:
                match = judge.matched(results)
                yield QueryResult(
                    str(query), self.model.model_id, took, results, None, match, warning, each.treatment
                )

    def _retrieved(
        self, asked: Sequence[tuple[NDArray[np.float32], list[str]]], wanted: SearchParams
    ) -> list[list[Hit]]:
        rows, digests = np.stack([row for row, _ in asked]), [digests for _, digests in asked]
        return retrieve(self.store, self.collection, rows, digests, wanted)

    def _warnings(self, pictures: Sequence[NDArray[np.uint8] | None]) -> list[str | None]:
        """Return a line for each picture that the model draws far worse than those it was made for."""
        good = [pixels for pixels in pictures if pixels is not None]
        if self._usual is None or not good:
            return [None] * len(pictures)
        times = iter(self._usual.times_usual(self.model.errors(np.stack(good))))
        found = [None if each is None else next(times) for each in pictures]
        return [None if far is None else UNLIKE.format(far) for far in found]

    def _embed(
        self, pictures: Sequence[NDArray[np.uint8] | None], change: NDArray[np.float32] | None
    ) -> list[NDArray[np.float32] | None]:
        """Return a row for each picture that is there and has anything to compare."""
        good = [pixels for pixels in pictures if pixels is not None]
        rows = iter(self.model.embed(np.stack(good), change) if good else ())
        found: list[NDArray[np.float32] | None] = [None if each is None else next(rows) for each in pictures]
        return [row if row is not None and np.isfinite(row).all() and row.any() else None for row in found]

    def _read(self, query: Query, crop: Crop, cleaner: QueryDenoiser | None) -> _Read:
        spec, treatment = self.model.bundle.spec.image, None
        try:
            data = query.read_bytes()
            if cleaner is None:
                pixels = read_pixels(data, spec, crop=crop, name=str(query))
            else:
                pixels, treatment = cleaner.read(data, spec, crop=crop, name=str(query))
        except ImageError as error:
            return _Read(failure=str(error))
        except OSError as error:
            return _Read(failure=f"{printable(str(query))}: cannot be read ({error.strerror})")
        return _Read(pixels, hashlib.sha256(data).hexdigest(), treatment)
