"""Search a collection: the vector of a query becomes a ranked result.

Legend: Q queries, k hits, E embedding size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Face, cut_faces, parse_framing
from lookalike.encoder.errors import (
    DataError,
    ImageError,
    InvalidArgumentError,
    ItemNotFoundError,
    printable,
)
from lookalike.encoder.images import Crop, ImageSpec, decode_rgb, read_pixels
from lookalike.encoder.runtime import Model, Provider
from lookalike.indexer.store import (
    CollectionSpec,
    Filter,
    Hit,
    Payload,
    Record,
    VectorStore,
    check_fields,
    items_filter,
    resolve_alias,
)
from lookalike.indexer.sync import open_model
from lookalike.searcher.search.matches import MatchScorer
from lookalike.searcher.search.query_denoiser import QueryDenoiser
from lookalike.searcher.search.query_images import (
    ItemQuery,
    LoadedQuery,
    Query,
    QueryFaces,
    StoredItem,
    TextQuery,
    Timer,
    read_located,
    stored_face,
    stored_file,
)
from lookalike.searcher.search.query_vectors import QueryEmbedder, no_vector, untimed
from lookalike.searcher.search.results import (
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
        usual = None if self.spec.has_faces else Crop.parse(self.spec.crop)
        self._embedder = QueryEmbedder(model, usual, timer=timer, max_pixels=max_pixels)

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
        if model is not None:
            opened = Model.open(model, provider=provider, threads=threads)
        else:
            opened = open_model(collection, spec, provider=provider, threads=threads)
        return cls(store, collection, opened, max_pixels=max_pixels)

    def similar(
        self,
        queries: Sequence[Query | TextQuery],
        *,
        k: int = 10,
        offset: int = 0,
        exclude_self: bool = False,
        where: Filter | None = None,
        group_by: str | None = None,
        crop: Crop | None = None,
        faces: QueryFaces | None = None,
        prior: float | None = None,
        fmr: float | None = None,
        add: Mapping[str, float] | None = None,
        denoiser: QueryDenoiser | None = None,
        fold_copies: bool = False,
    ) -> Iterator[QueryResult]:
        """Yield a result for each query image, in order. One that cannot be read fails alone.

        Where every face of the queries is asked for, there is a result for each face.

        Args:
            queries: Image files, or objects like them; or text.
            k: Most hits of each query.
            offset: Leave out so many of the best hits: those of the pages before.
            exclude_self: Leave out items with exactly the query's bytes.
            where: Filter that hits must pass.
            group_by: Payload field: only the best hit of each of its values.
            crop: How the queries are framed; None: as the collection is.
            faces: Which faces of the queries are compared; None: the most prominent where the collection
                holds faces, none where it holds whole pictures.
            prior: Probability in (0, 1) that the collection shows the query's person at all; None: 0.5.
            fmr: False match rate of a threshold that matches exceed; None: no threshold.
            add: Attribute to strength: the query is edited in latent space first, see :func:`edit`.
            denoiser: Denoises the queries first; None: they are compared as they are.
            fold_copies: Of hits that are copies of one another only the best.

        Raises:
            InvalidArgumentError: invalid k, prior, rate or field; a prior or rate and no calibrated model; an
                attribute that the model does not have.
        """
        params = SearchParams(k=k, offset=offset, where=where, exclude_self=exclude_self, group_by=group_by,
                              fold_copies=fold_copies)  # fmt: skip
        crop = self._embedder.framing(crop, faces)
        scorer, change = self.match_scorer(prior=prior, fmr=fmr), self._embedder.change(add)
        for start in range(0, len(queries), _BATCH):
            yield from self._search_batch(
                queries[start : start + _BATCH], params, crop, faces, scorer, change, denoiser
            )

    def similar_to_item(
        self,
        item: str,
        *,
        k: int = 10,
        offset: int = 0,
        exclude_self: bool = True,
        where: Filter | None = None,
        group_by: str | None = None,
        prior: float | None = None,
        fmr: float | None = None,
        add: Mapping[str, float] | None = None,
        denoiser: QueryDenoiser | None = None,
        fold_copies: bool = False,
        read: Callable[[dict[str, Any]], bytes] | None = None,
    ) -> QueryResult:
        """Return the images most similar to a stored item ("more like this").

        The item's stored vector is the query. To edit or denoise it first, its image is read and embedded
        again: the store keeps embeddings, not latents.

        Args:
            item: Its id.
            k: As for :meth:`similar`, as all that is not described here.
            offset: See above.
            exclude_self: Leave out the item and its exact copies.
            where: See above.
            group_by: See above.
            prior: See above.
            fmr: See above.
            add: See above.
            denoiser: See above.
            fold_copies: See above.
            read: Returns the bytes of an item's image, from its payload; None: reads its file.

        Raises:
            ItemNotFoundError: the collection has no such item.
            InvalidArgumentError: as :meth:`similar`.
        """
        began = time.perf_counter()
        stored = self._load_item(StoredItem(item, read), image=bool(add) or denoiser is not None)
        if isinstance(stored, ItemQuery):
            (result,) = self.similar(
                [stored], k=k, offset=offset, exclude_self=exclude_self, where=where, group_by=group_by,
                prior=prior, fmr=fmr, add=add, denoiser=denoiser, fold_copies=fold_copies,
            )  # fmt: skip
            return result
        params = SearchParams(k=k, offset=offset, where=where, exclude_self=exclude_self, group_by=group_by,
                              fold_copies=fold_copies)  # fmt: skip
        scorer, digests = self.match_scorer(prior=prior, fmr=fmr), [stored.digest]
        (hits,) = self._retrieve(stored.stored_vector[None], [digests], params)
        results = scorer.rank(hits, digests=digests, face=stored.face, offset=offset)
        took_ms = (time.perf_counter() - began) * 1000
        return QueryResult(
            stored.name,
            self.model.model_id,
            took_ms,
            results,
            match=scorer.any_match(results),
            face=stored.face,
        )

    def _load_item(self, item: StoredItem, *, image: bool) -> ItemQuery | LoadedQuery:
        """Return an item with its stored vector or, to be embedded again, with its image.

        Raises:
            ItemNotFoundError: the collection has no such item.
        """
        record: Record | None = self.store.get(self.collection, [item.id], with_vectors=True).get(item.id)
        if record is None or record.vector is None:
            raise ItemNotFoundError(f"collection {self.collection} has no item {item.id}")
        payload, face = dict(record.payload), stored_face(record.payload)
        name = str(payload["path"])
        if face is None and self.spec.has_faces:
            raise ItemNotFoundError(
                f"collection {self.collection} has no item {item.id}: no face was found in {printable(name)}"
            )
        if not image:
            return LoadedQuery(name=name, digest=str(payload["sha256"]), face=face, vector=record.vector)
        read = self._read_item if item.read is None else item.read
        return ItemQuery(name, lambda: read(payload), payload)

    def similar_to_examples(
        self,
        like: Sequence[Query | TextQuery | StoredItem],
        unlike: Sequence[Query | TextQuery | StoredItem] = (),
        *,
        params: SearchParams | None = None,
        crop: Crop | None = None,
        faces: QueryFaces | None = None,
        add: Mapping[str, float] | None = None,
        denoiser: QueryDenoiser | None = None,
    ) -> QueryResult:
        """Return the images similar to all positive examples and not to the negative ones.

        See :func:`~.results.combine_examples`. Of items the stored vectors are taken; of those that are
        edited or denoised, their images.

        Args:
            like: Positive examples, at least one: files, items or text; ``add`` edits these.
            unlike: Negative examples.
            params: Which hits.
            crop: As for :meth:`similar`.
            faces: As for :meth:`similar`; of every face the first counts.
            add: As for :meth:`similar`.
            denoiser: As for :meth:`similar`.

        Raises:
            InvalidArgumentError: no positive example, or as for :meth:`similar`.
            ItemNotFoundError: the collection has no such item.
        """
        if not like:
            raise InvalidArgumentError("--unlike needs at least one IMAGE or --like")
        params = params or SearchParams()
        crop = self._embedder.framing(crop, faces)
        scorer, change = self.match_scorer(), self._embedder.change(add)
        began = time.perf_counter()
        liked = [self._load_example(each, crop, faces, denoiser, image=bool(add)) for each in like]
        unliked = [self._load_example(each, crop, faces, denoiser, image=False) for each in unlike]
        loaded = liked + unliked
        scorer = _judge(scorer, *loaded)
        of_liked, warnings = self._embedder.vectors(liked, change)
        vectors = of_liked + self._embedder.vectors(unliked, judge=False)[0]
        warning = next(
            (f"{each.name}: {text}" for each, text in zip(liked, warnings, strict=True) if text), None
        )
        usable = [vector for vector in vectors if vector is not None]
        results: tuple[SearchHit, ...] = ()
        error = None
        if len(usable) < len(vectors):
            first = next(each for each, vector in zip(loaded, vectors, strict=True) if vector is None)
            error = first.error or no_vector(first.name)
        else:
            query = combine_examples(np.stack(usable[: len(like)]), np.array(usable[len(like) :], np.float32))
            digests = [each.digest for each in loaded]
            (hits,) = self._retrieve(query, [digests], params)
            own = [each.digest for each in liked]
            results = scorer.rank(hits, digests=own, warned=warning is not None, offset=params.offset)
        return QueryResult(
            query=" + ".join(each.name for each in liked) + "".join(f" - {each.name}" for each in unliked),
            model_id=self.model.model_id,
            took_ms=(time.perf_counter() - began) * 1000,
            results=results,
            error=error,
            match=None if error else scorer.any_match(results),
            warning=None if error else warning,
            examples={
                "like": tuple(each.name for each in liked),
                "unlike": tuple(each.name for each in unliked),
            },
            example_faces={each.name: each.face for each in loaded if each.face is not None},
        )

    def _load_example(
        self,
        example: Query | TextQuery | StoredItem,
        crop: Crop | None,
        faces: QueryFaces | None,
        denoiser: QueryDenoiser | None,
        *,
        image: bool,
    ) -> LoadedQuery:
        if isinstance(example, StoredItem):
            stored = self._load_item(example, image=image or denoiser is not None)
            if isinstance(stored, LoadedQuery):
                return stored
            example = stored
        return self._embedder.load(example, crop, faces, denoiser)[0]

    def similar_to_vectors(
        self,
        embeddings: Vector,
        *,
        k: int,
        offset: int = 0,
        where: Filter | None = None,
        group_by: str | None = None,
        prior: float | None = None,
        fmr: float | None = None,
        fold_copies: bool = False,
    ) -> list[tuple[SearchHit, ...]]:
        """Return hits for embeddings float32 (Q, E) of this model; see :meth:`similar`.

        Raises:
            InvalidArgumentError: as :meth:`similar`.
            VectorError: an embedding has another dimension, is zero or not finite.
        """
        params = SearchParams(k=k, offset=offset, where=where, group_by=group_by, fold_copies=fold_copies)
        scorer = self.match_scorer(prior=prior, fmr=fmr)
        found = self._retrieve(embeddings, [()] * len(embeddings), params)
        return [scorer.rank(hits, offset=offset) for hits in found]

    def match_scorer(self, *, prior: float | None = None, fmr: float | None = None) -> MatchScorer:
        """Return what turns scores of this collection into probabilities; see :meth:`similar`."""
        scorer = MatchScorer.of_search(
            self.model.bundle, size=self.size, prior=prior, fmr=fmr, faces=self.spec.has_faces
        )
        return MatchScorer() if self.spec.unlike_training else scorer

    def item_image(self, payload: dict[str, Any], *, side: int) -> Pixels | None:
        """Return a stored item's image for people, uint8 (side, side, 3), or None when its file is gone.

        It shows a little more than the model sees; of a face, that face.
        """
        file, face = self.file_of(payload), stored_face(payload)
        if file is None:
            return None
        return self.query_image(file, side=side, face=None if face is None else face.face)

    def file_of(self, payload: Payload) -> Path | None:
        """Return where a stored item's image lies; None where its folder is not known."""
        return stored_file(self.spec, payload)

    def query_image(
        self, file: Path, *, side: int, crop: Crop | None = None, face: Face | None = None
    ) -> Pixels | None:
        """Return the image in a file as :meth:`item_image` does, or a face in it."""
        try:
            return self.shown(read_located(file), side=side, crop=crop, face=face, name=str(file))
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
        file = self.file_of(payload)
        if file is None:
            raise ImageError(
                f"{printable(str(payload['path']))}: the folder it was indexed from is not recorded, or only "
                "in a file of latents; index that folder"
            )
        return read_located(file)

    def _check_fields(self, where: Filter | None) -> None:
        """Check once for each field in a filter that some item has it."""
        keys = set() if where is None else {condition.key for condition in where.conditions}
        if where is not None and keys - self._fields:
            check_fields(self.store, self.collection, where)
            self._fields |= keys

    def _search_batch(
        self,
        queries: Sequence[Query | TextQuery],
        params: SearchParams,
        crop: Crop | None,
        faces: QueryFaces | None,
        scorer: MatchScorer,
        change: Vector | None,
        denoiser: QueryDenoiser | None,
    ) -> Iterator[QueryResult]:
        began = time.perf_counter()
        loaded = [one for query in queries for one in self._embedder.load(query, crop, faces, denoiser)]
        vectors, warnings = self._embedder.vectors(loaded, change)
        usable = [place for place, vector in enumerate(vectors) if vector is not None]
        results: dict[int, tuple[SearchHit, ...]] = {}
        if usable:
            rows = np.stack([vector for vector in vectors if vector is not None])
            digests = [[loaded[place].digest] for place in usable]
            found = self._retrieve(rows, digests, params)
            results = {
                place: _judge(scorer, loaded[place]).rank(
                    hits,
                    digests=own,
                    face=loaded[place].face,
                    warned=warnings[place] is not None,
                    offset=params.offset,
                )
                for place, own, hits in zip(usable, digests, found, strict=True)
            }
        took_ms = (time.perf_counter() - began) * 1000 / len(loaded)
        for place, each in enumerate(loaded):
            model_id = self.model.model_id
            if place not in results:
                yield QueryResult(each.name, model_id, took_ms, (), each.error or no_vector(each.name))
            else:
                yield QueryResult(
                    each.name,
                    model_id,
                    took_ms,
                    results[place],
                    match=_judge(scorer, each).any_match(results[place]),
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


def _judge(scorer: MatchScorer, *queries: LoadedQuery) -> MatchScorer:
    """Return what judges the hits of a query; of words nothing says whether they show one person."""
    return MatchScorer() if any(query.is_text for query in queries) else scorer
