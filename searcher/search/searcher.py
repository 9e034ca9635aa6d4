"""Search a collection with images: how a query becomes a vector, and the vector a ranked result.

Legend: Q queries, k hits, E embedding size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Face, cut_faces, parse_framing
from lookalike.encoder.errors import (
    BundleError,
    DataError,
    ImageError,
    InvalidArgumentError,
    ItemNotFoundError,
    ModelMismatchError,
    VectorError,
    printable,
)
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import Crop, ImageSpec, decode_rgb, read_pixels
from lookalike.encoder.runtime import Model, Provider
from lookalike.indexer.sources import file_below, leads_out, located
from lookalike.indexer.store import (
    CollectionSpec,
    Filter,
    Hit,
    VectorStore,
    check_fields,
    items_filter,
    resolve_alias,
)
from lookalike.indexer.sync import DEGENERATE
from lookalike.searcher.generation import attributes_of
from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.query_images import (
    ItemQuery,
    LoadedQuery,
    Query,
    QueryFaces,
    Timer,
    load_query,
    stored_face,
)
from lookalike.searcher.search.results import (
    MatchScorer,
    QueryResult,
    SearchHit,
    SearchParams,
    combine_examples,
    retrieve,
)

Pixels = NDArray[np.uint8]
Vector = NDArray[np.float32]
_BATCH: Final = 64
_WIDENED: Final = 1.5
_SHOWN_MARGIN: Final = 0.25
"""What is shown around a crop, and around a face in fractions of its frame: half as much again."""
OUT_OF_DISTRIBUTION: Final = (
    "this image is unlike what the model was trained on (reconstruction error {:.1f} times the usual); "
    "results mean little"
)


def untimed(_step: str) -> AbstractContextManager[object]:
    """Time nothing."""
    return nullcontext()


class Searcher:
    """Searches one collection with the model that made it.

    Attributes:
        store: Where the collection is.
        collection: Its name; of an alias, the collection it named when the searcher was made.
        model: The model that made the collection.
        spec: The collection's own record.
        size: Number of items when the searcher was made.
        timer: Called for each step of a search.
        max_pixels: Larger queries are refused; None: the default limit.
    """

    def __init__(
        self,
        store: VectorStore,
        collection: str,
        model: Model,
        *,
        timer: Timer = untimed,
        max_pixels: int | None = None,
    ) -> None:
        self.store = store
        self.collection = resolve_alias(store, collection)  # so that model and collection stay together
        self.model = model
        self.timer = timer
        self._fields: set[str] = set()  # that some item is known to have
        self.max_pixels = max_pixels
        self.spec: CollectionSpec = store.info(self.collection)
        self.spec.check_model(self.collection, model_id=model.model_id, crop=self.spec.crop)
        self.size = store.count(self.collection, where=items_filter(self.spec))
        _ = model.provider  # loads the model now, so that the first query does not wait
        calibration = model.bundle.calibration_of(faces=self.spec.has_faces)
        self._usual_errors = (
            None if calibration is None or not model.has_decoder else calibration.reconstruction_errors
        )
        if self._usual_errors is not None:
            model.reconstruction_errors(
                np.empty((0, *model.bundle.spec.image.shape), np.uint8)
            )  # loads the decoder too

    @classmethod
    def open(
        cls,
        store: VectorStore,
        collection: str,
        *,
        model: str | None = None,
        provider: Provider = "auto",
        threads: int | None = None,
        max_pixels: int | None = None,
    ) -> Self:
        """Open a collection with the model it remembers, or with ``model``.

        Raises:
            CollectionNotFoundError: there is no such collection.
            ModelMismatchError: the model at hand is not the one that made the collection.
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
        return cls(store, collection, opened, max_pixels=max_pixels)

    def similar(
        self,
        queries: Sequence[Query],
        *,
        k: int = 10,
        exclude_self: bool = False,
        where: Filter | None = None,
        group_by: str | None = None,
        crop: Crop | None = None,
        faces: QueryFaces | None = None,
        prior: float | None = None,
        fmr: float | None = None,
        add: Mapping[str, float] | None = None,
        denoiser: QueryDenoiser | None = None,
    ) -> Iterator[QueryResult]:
        """Yield a result for each query image, in order. One that cannot be read fails alone.

        Where every face of the queries is asked for, there is a result for each face.

        Args:
            queries: Image files, or objects like them.
            k: Most hits of each query.
            exclude_self: Leave out items with exactly the query's bytes.
            where: Filter that hits must pass.
            group_by: Payload field: only the best hit of each of its values.
            crop: How the queries are framed; None: as the collection is.
            faces: Which faces of the queries are compared; None: the most prominent where the collection
                holds faces, none where it holds whole pictures.
            prior: Probability that an image of the collection shows the query's person, before any
                comparison, in (0, 1); None: one match is expected in the collection.
            fmr: False match rate of the threshold; None: the smallest that the calibration supports.
            add: Attribute to strength: the query is edited in latent space first, see :func:`edit`.
            denoiser: Denoises the queries first; None: they are compared as they are.

        Raises:
            InvalidArgumentError: invalid k, prior, rate or field; a prior or rate and no calibrated model; an
                attribute that the model does not have.
        """
        params = SearchParams(k=k, where=where, exclude_self=exclude_self, group_by=group_by)
        crop = self._crop(crop, faces)
        scorer, change = self.match_scorer(prior=prior, fmr=fmr), self._latent_change(add)
        for start in range(0, len(queries), _BATCH):
            yield from self._search_batch(
                queries[start : start + _BATCH], params, crop, faces, scorer, change, denoiser
            )

    def similar_to_item(
        self,
        item: str,
        *,
        k: int = 10,
        exclude_self: bool = True,
        where: Filter | None = None,
        group_by: str | None = None,
        prior: float | None = None,
        fmr: float | None = None,
        add: Mapping[str, float] | None = None,
        denoiser: QueryDenoiser | None = None,
        read: Callable[[dict[str, Any]], bytes] | None = None,
    ) -> QueryResult:
        """Return the images most similar to a stored item ("more like this").

        The item's stored vector is the query. To edit or denoise it first, its image is read and embedded
        again: the store keeps embeddings, not latents.

        Args:
            item: Its id.
            k: As for :meth:`similar`, as all that is not described here.
            exclude_self: Leave out the item and its exact copies.
            where: See above.
            group_by: See above.
            prior: See above.
            fmr: See above.
            add: See above.
            denoiser: See above.
            read: Returns the bytes of an item's image, from its payload; None: reads its file.

        Raises:
            ItemNotFoundError: the collection has no such item.
            InvalidArgumentError: as :meth:`similar`.
        """
        began = time.perf_counter()
        record = self.store.get(self.collection, [item], with_vectors=True).get(item)
        if record is None or record.vector is None:
            raise ItemNotFoundError(f"collection {self.collection} has no item {item}")
        payload, face = dict(record.payload), stored_face(record.payload)
        if face is None and self.spec.has_faces:
            raise ItemNotFoundError(
                f"collection {self.collection} has no item {item}: no face was found in "
                f"{printable(str(payload['path']))}"
            )
        name = str(payload["path"])
        if add or denoiser is not None:
            query = ItemQuery(
                name, lambda: self._read_item(payload) if read is None else read(payload), payload
            )
            (result,) = self.similar(
                [query], k=k, exclude_self=exclude_self, where=where, group_by=group_by,
                prior=prior, fmr=fmr, add=add, denoiser=denoiser,
            )  # fmt: skip
            return result
        params = SearchParams(k=k, where=where, exclude_self=exclude_self, group_by=group_by)
        scorer = self.match_scorer(prior=prior, fmr=fmr)
        (hits,) = self._retrieve(record.vector[None], [[str(payload["sha256"])]], params)
        results = scorer.rank(hits)
        took_ms = (time.perf_counter() - began) * 1000
        match = scorer.any_match(results)
        return QueryResult(name, self.model.model_id, took_ms, results, match=match, face=face)

    def similar_to_examples(
        self,
        like: Sequence[Path],
        unlike: Sequence[Path] = (),
        *,
        params: SearchParams | None = None,
        crop: Crop | None = None,
        faces: QueryFaces | None = None,
        add: Mapping[str, float] | None = None,
        denoiser: QueryDenoiser | None = None,
    ) -> QueryResult:
        """Return the images similar to all positive examples and not to the negative ones.

        See :func:`~.retrieval.combine_examples`.

        Args:
            like: Positive examples, at least one file; ``add`` edits these.
            unlike: Negative examples.
            params: Which hits.
            crop: As for :meth:`similar`.
            faces: As for :meth:`similar`; of every face the first counts.
            add: As for :meth:`similar`.
            denoiser: As for :meth:`similar`.

        Raises:
            InvalidArgumentError: no positive example, or as for :meth:`similar`.
        """
        if not like:
            raise InvalidArgumentError("--unlike needs at least one IMAGE or --like")
        crop = self._crop(crop, faces)
        scorer, change = self.match_scorer(), self._latent_change(add)
        began = time.perf_counter()
        files = (*like, *unlike)
        loaded = [self._load(file, crop, faces, denoiser)[0] for file in files]
        images = [each.pixels for each in loaded]
        vectors = self._embed(images[: len(like)], change) + self._embed(images[len(like) :], None)
        usable = [vector for vector in vectors if vector is not None]
        results: tuple[SearchHit, ...] = ()
        error = None
        if len(usable) < len(vectors):
            first = next(place for place, vector in enumerate(vectors) if vector is None)
            error = loaded[first].error or _no_vector(files[first])
        else:
            query = combine_examples(np.stack(usable[: len(like)]), np.array(usable[len(like) :], np.float32))
            digests = [[each.digest for each in loaded]]
            (hits,) = self._retrieve(query, digests, params or SearchParams())
            results = scorer.rank(hits)
        return QueryResult(
            query=" + ".join(map(str, like)) + "".join(f" - {file}" for file in unlike),
            model_id=self.model.model_id,
            took_ms=(time.perf_counter() - began) * 1000,
            results=results,
            error=error,
            match=None if error else scorer.any_match(results),
            examples={"like": tuple(map(str, like)), "unlike": tuple(map(str, unlike))},
            example_faces={
                str(file): each.face
                for file, each in zip(files, loaded, strict=True)
                if each.face is not None
            },
        )

    def similar_to_vectors(
        self,
        embeddings: Vector,
        *,
        k: int,
        where: Filter | None = None,
        prior: float | None = None,
        fmr: float | None = None,
    ) -> list[tuple[SearchHit, ...]]:
        """Return hits for embeddings float32 (Q, E) of this model; see :meth:`similar`."""
        scorer = self.match_scorer(prior=prior, fmr=fmr)
        self._check_fields(where)
        found = self.store.search(self.collection, embeddings, k=k, where=items_filter(self.spec, where))
        return [scorer.rank(hits) for hits in found]

    def match_scorer(self, *, prior: float | None = None, fmr: float | None = None) -> MatchScorer:
        """Return what turns scores of this collection into probabilities; see :meth:`similar`."""
        return MatchScorer.from_bundle(
            self.model.bundle, size=self.size, prior=prior, fmr=fmr, faces=self.spec.has_faces
        )

    def item_image(self, payload: dict[str, Any], *, side: int) -> Pixels | None:
        """Return a stored item's image for people, uint8 (side, side, 3), or None when its file is gone.

        It shows a little more than the model sees; of a face, that face.
        """
        folder = self.spec.folder_of(payload["root"])
        if folder is None or leads_out(payload["path"]):
            return None
        face = stored_face(payload)
        return self.query_image(
            file_below(folder, payload["path"]), side=side, face=None if face is None else face.face
        )

    def query_image(
        self, file: Path, *, side: int, crop: Crop | None = None, face: Face | None = None
    ) -> Pixels | None:
        """Return the image in a file as :meth:`item_image` does, or a face in it."""
        try:
            return self.shown(_read_located(file), side=side, crop=crop, face=face, name=str(file))
        except (DataError, ImageError, OSError, ValueError):  # ValueError: a null byte in the path
            return None

    def shown(
        self, data: bytes, *, side: int, crop: Crop | None = None, face: Face | None = None, name: str
    ) -> Pixels:
        """Return an image for people, uint8 (side, side, 3), or a face in it: a little more than is compared.

        Raises:
            ImageError: the bytes are not a readable image.
        """
        if face is not None:
            pixels = decode_rgb(data, max_pixels=self.max_pixels, name=name)
            (cut,) = cut_faces(pixels, [face], self.model.bundle.face_frame, side, margin=_SHOWN_MARGIN)
            return np.asarray(cut, np.uint8)
        framing = parse_framing(self.spec.crop) if crop is None else crop
        spec = ImageSpec(size=side, crop=framing.widened(_WIDENED) if isinstance(framing, Crop) else Crop())
        return read_pixels(data, spec, max_pixels=self.max_pixels, name=name)

    def _read_item(self, payload: dict[str, Any]) -> bytes:
        folder, path = self.spec.folder_of(payload.get("root")), str(payload["path"])
        if folder is None or leads_out(path):
            raise ImageError(
                f"{printable(path)}: the folder it was indexed from is not recorded, or only in a file of "
                "latents; index that folder"
            )
        return _read_located(file_below(folder, path))

    def _check_fields(self, where: Filter | None) -> None:
        """Check once for each field in a filter that some item has it."""
        keys = set() if where is None else {condition.key for condition in where.conditions}
        if where is not None and keys - self._fields:
            check_fields(self.store, self.collection, where)
            self._fields |= keys

    def _latent_change(self, add: Mapping[str, float] | None) -> Vector | None:
        return attributes_of(self.model).change(add) if add else None

    def _search_batch(
        self,
        queries: Sequence[Query],
        params: SearchParams,
        crop: Crop | None,
        faces: QueryFaces | None,
        scorer: MatchScorer,
        change: Vector | None,
        denoiser: QueryDenoiser | None,
    ) -> Iterator[QueryResult]:
        began = time.perf_counter()
        pairs = [(query, one) for query in queries for one in self._load(query, crop, faces, denoiser)]
        loaded = [each for _, each in pairs]
        images = [each.pixels for each in loaded]
        vectors, warnings = self._embed(images, change), self._warnings(images)
        usable = [place for place, vector in enumerate(vectors) if vector is not None]
        results: dict[int, tuple[SearchHit, ...]] = {}
        if usable:
            rows = np.stack([vector for vector in vectors if vector is not None])
            hits = self._retrieve(rows, [[loaded[place].digest] for place in usable], params)
            results = {place: scorer.rank(found) for place, found in zip(usable, hits, strict=True)}
        took_ms = (time.perf_counter() - began) * 1000 / len(pairs)
        for place, (query, each) in enumerate(pairs):
            name, model_id = str(query), self.model.model_id
            if place not in results:
                yield QueryResult(name, model_id, took_ms, (), each.error or _no_vector(query))
            else:
                yield QueryResult(
                    name,
                    model_id,
                    took_ms,
                    results[place],
                    match=scorer.any_match(results[place]),
                    warning=warnings[place],
                    denoise_info=each.denoise_info,
                    face=each.face,
                )

    def _retrieve(
        self, vectors: Vector, digests: Sequence[Sequence[str]], params: SearchParams
    ) -> list[list[Hit]]:
        with self.timer("search"):
            self._check_fields(params.where)
            of_faces = replace(params, where=items_filter(self.spec, params.where))
            return retrieve(self.store, self.collection, vectors, digests, of_faces)

    def _warnings(self, images: Sequence[Pixels | None]) -> list[str | None]:
        """Return a line for each image that the model reconstructs far worse than those it was trained on."""
        good = [pixels for pixels in images if pixels is not None]
        if self._usual_errors is None or not good:
            return [None] * len(images)
        with self.timer("check"):
            scores = iter(self._usual_errors.ood_scores(self.model.reconstruction_errors(np.stack(good))))
        found = [None if pixels is None else next(scores) for pixels in images]
        return [None if score is None else OUT_OF_DISTRIBUTION.format(score) for score in found]

    def _embed(self, images: Sequence[Pixels | None], change: Vector | None) -> list[Vector | None]:
        """Return a vector for each image that was read and gives a finite vector that is not zero."""
        good = [pixels for pixels in images if pixels is not None]
        with self.timer("embed"):
            rows = iter(self.model.embed(np.stack(good), change) if good else ())
        vectors: list[Vector | None] = [None if pixels is None else next(rows) for pixels in images]
        return [v if v is not None and np.isfinite(v).all() and v.any() else None for v in vectors]

    def _crop(self, crop: Crop | None, faces: QueryFaces | None) -> Crop | None:
        """Return how queries are cropped: as the collection is, unless it is given; None: to their faces."""
        if crop is not None and faces is not None:
            raise InvalidArgumentError(f"a query is cut to {crop} or to its faces; leave one of the two out")
        if faces is not None or (crop is None and self.spec.has_faces):
            return None
        return Crop.parse(self.spec.crop) if crop is None else crop

    def _load(
        self, query: Query, crop: Crop | None, faces: QueryFaces | None, denoiser: QueryDenoiser | None
    ) -> list[LoadedQuery]:
        return load_query(
            self.model,
            query,
            crop,
            faces=faces or QueryFaces(),
            denoiser=denoiser,
            max_pixels=self.max_pixels,
            timer=self.timer,
        )


def _no_vector(query: Query) -> VectorError:
    return VectorError(f"{printable(str(query))}: {DEGENERATE}")


def _read_located(file: Path) -> bytes:
    """Return the bytes of a file, which may be a member of an archive."""
    place = located(file)
    return read_bounded(place) if isinstance(place, Path) else place.read()[0]
