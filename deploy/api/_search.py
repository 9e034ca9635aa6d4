"""Collections of images: filling one, and searching it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike._images import ImageLike, InputImage, Sheet, input_images
from lookalike._models import ModelLike, as_model, load_denoiser
from lookalike.encoder.detect import Faces
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images import Crop, Tile, contact_sheet
from lookalike.encoder.runtime import Denoiser, Model
from lookalike.indexer.sources import SourceList, as_path, leads_out
from lookalike.indexer.store import VectorStore, parse_where
from lookalike.indexer.sync import SyncReport, sync
from lookalike.searcher.figures import caption
from lookalike.searcher.search import (
    Comparison,
    QueryDenoiser,
    QueryFace,
    QueryFaces,
    SearchHit,
    SearchParams,
    TextQuery,
    format_score,
)
from lookalike.searcher.search import compare as compare_images
from lookalike.searcher.search import searcher as search_engine

_SIDE = 128
_ACROSS = 11


def index(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: ModelLike = "faces",
    store: VectorStore,
    collection: str,
    crop: str | None = None,
    faces: bool = False,
    root_name: str | None = None,
    prune: bool = False,
    checksum: bool = False,
    max_pixels: int | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> SyncReport:
    """Bring a collection up to date with folders of images; the collection is created if there is none.

    Only new and changed files are read. A run that was interrupted goes on where it was when it is started
    again.

    Args:
        sources: A folder, an image file, a tar archive, ``lfw`` or ``mnist``; or several of these.
        model: The model whose embeddings the collection holds.
        store: From :func:`lookalike.open_store`.
        collection: Name or alias of the collection.
        crop: Part of the images that is seen: ``full``, ``centre:F`` or ``X,Y,W,H``; None: the model's.
        faces: Whether each face of the images is an item, found and turned upright; a collection remembers
            it.
        root_name: Name of the source's folder in the collection, if the folder was renamed; None: as the
            collection calls it, else the folder's name.
        prune: Remove items whose files are gone.
        checksum: Compare files by SHA-256 instead of size and time.
        max_pixels: Larger images fail; None: 120 million pixels for JPEG, which is decoded small, 50 million
            else.
        on_progress: Called with the number of images of each batch once it is stored.

    Returns:
        The report: ``.added``, ``.changed``, ``.moved``, ``.unchanged``, ``.missing`` (counts) and
            ``.failed``, a
        path and a reason for each image that could not be read; such images stop nothing.

    Raises:
        ModelMismatchError: the collection holds embeddings of another model or crop.
        DataError: a source does not exist, or pruning would remove everything.
        StoreError: the store failed; what was stored before stays.
        BundleError, InvalidArgumentError: there is no such model, or an argument is wrong.

    Examples:
        >>> report = lookalike.index("photos/", model=model, store=store, collection="family")
        >>> print(report.added, report.failed)
    """
    check_store(store)
    if faces and crop is not None:
        raise InvalidArgumentError(f"images are cut to {crop} or to their faces; leave one of the two out")
    return sync(
        store,
        collection,
        as_model(model),
        SourceList(
            sources=[sources] if isinstance(sources, str | os.PathLike) else list(sources),
            root_name=root_name,
        ),
        crop=Faces() if faces else None if crop is None else Crop.parse(crop),
        prune=prune,
        checksum=checksum,
        max_pixels=max_pixels,
        processes=True,
        on_progress=on_progress,
    )


@dataclass(frozen=True, slots=True)
class Hit(SearchHit):
    """One image that was found.

    Attributes:
        rank: From 1.
        score: Cosine similarity in [-1, 1]; it is not a probability.
        id: UUID of the item.
        payload: Everything stored with it: root, path, sha256, size, mtime_ns, person, attributes.
        probability: That it shows the query's person, in (0, 1); None if the model is not calibrated.
        match: True if the two are taken for one person: the probability is over one half, the score above
            the model's threshold, and the query like the model's training images. None if the model is not
            calibrated.
        same_file: Whether the item has the query's exact bytes.
        verdict: ``"same file"``, ``"match"`` or ``"possible"``; None if the model is not calibrated.
        file: The image file; of an item in a tar archive its path as if the archive were a folder. Relative
            where the collection knows the folder only from a file of latents.
    """

    file: Path = Path()


@dataclass(frozen=True, eq=False, repr=False)
class SearchResults(Sheet):
    """The hits of one query, best first; iterate over them. The sheet shows the query and the hits.

    Attributes:
        query: What the query is called.
        hits: The hits.
        match: Whether any hit is a match; None if the model is not calibrated.
        warning: Why the results mean little; None if they seem sound.
        took_ms: Milliseconds for reading, embedding and searching.
        face: The face of the query that was compared: ``number`` of ``count`` from the left, and ``face``;
            None where whole images are.
    """

    query: str
    hits: tuple[Hit, ...]
    match: bool | None
    warning: str | None
    took_ms: float
    face: QueryFace | None = None

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, rank: int) -> Hit:
        return self.hits[rank]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __repr__(self) -> str:
        best = f", best {self.hits[0].score:.3f} {self.hits[0].path}" if self.hits else ""
        return f"<SearchResults of {self.query!r}: {len(self.hits)} hits{best}>"


class Searcher:
    """Searches one collection with the model that made it.

    Args:
        store: From :func:`lookalike.open_store`.
        collection: Name or alias of the collection.
        model: The collection's model, if the name that the collection remembers does not lead to it.
        max_pixels: Larger queries are refused; None: as for :func:`lookalike.index`.

    Raises:
        CollectionNotFoundError: there is no such collection.
        ModelMismatchError: the model is not the one that made the collection, or cannot be loaded.

    Examples:
        >>> searcher = lookalike.Searcher(store, "family")
        >>> for hit in searcher.search("me.jpg", k=5):
        ...     print(hit.score, hit.file, hit.person, hit.probability)
    """

    def __init__(
        self,
        store: VectorStore,
        collection: str,
        *,
        model: ModelLike | None = None,
        max_pixels: int | None = None,
    ) -> None:
        self._searcher = open_searcher(store, collection, model, max_pixels)

    @property
    def model(self) -> Model:
        """The collection's model."""
        return self._searcher.model

    def search(
        self,
        image: ImageLike | None = None,
        k: int = 10,
        *,
        text: str | None = None,
        like: Sequence[ImageLike] = (),
        unlike: Sequence[ImageLike] = (),
        where: str | None = None,
        group_by: str | None = None,
        fold_duplicates: bool = False,
        exclude_self: bool = False,
        crop: str | None = None,
        faces: bool = False,
        face: int | None = None,
        add: Mapping[str, float] | None = None,
        denoise: bool | Denoiser = False,
        prior: float | None = None,
        fmr: float | None = None,
    ) -> SearchResults:
        """Find the images most similar to an image.

        Args:
            image: A path, bytes, a PIL image or an array (H, W), (H, W, 1) or (H, W, 3), uint8 or float in
                [0, 1].
            k: At most so many hits.
            text: Words to search with, instead of an image or together with it, where the collection's model
                takes text.
            like: Further images, combined with the image and the text into one query: their mean.
            unlike: Images from which that query is moved away.
            where: Conditions that hits must meet: ``"person!=Ada_Lovelace, Smiling>0"``.
            group_by: A metadata field, such as ``"person"``: only the best hit for each of its values.
            fold_duplicates: Of hits that are copies of one another, only the best; see
                :func:`lookalike.duplicates`.
            exclude_self: Leave out items with exactly the bytes of the query file.
            crop: Part of the image that is seen; None: as in the collection.
            faces: Search for the most prominent face of the image, turned upright; the default where the
                collection holds faces.
            face: Search for this face, from 1 at the left.
            add: Attribute to strength: edit the query first, as :func:`lookalike.edit` does.
            denoise: Remove noise from the query first; a denoiser from :func:`lookalike.load_denoiser` saves
                loading the shipped one each time.
            prior: Probability in (0, 1) that the collection shows the query's person at all; None: 0.5.
            fmr: False match rate of a threshold that a ``match`` exceeds too; None: no threshold.

        Returns:
            The hits, best first; see :class:`SearchResults` and :class:`Hit`.

        Raises:
            ImageError, VectorError: the image cannot be read, or has no usable embedding.
            InvalidArgumentError: an argument is of another type or out of range, or the model has no such
                attribute or no calibration, or takes no text.
            StoreError: the store failed.

        Examples:
            >>> searcher.search(text="two parrots on a branch", k=20).save("parrots.png")
            >>> searcher.search("me.jpg", k=20, where="Smiling>0", group_by="person").save("found.png")
        """
        liked = [] if image is None else [InputImage.of(image)]
        liked += list(input_images(like))
        unliked = list(input_images(unlike))
        words = [] if text is None else [TextQuery(text)]
        if not liked and not words:
            raise InvalidArgumentError("search needs an image or text; give one")
        combined = len(liked) + len(words) + len(unliked) > 1
        if combined and (prior is not None or fmr is not None):
            raise InvalidArgumentError("prior and fmr are for an image alone; leave them or the rest out")
        wanted = QueryFaces(face) if faces or face is not None else None
        options: dict[str, Any] = {
            "crop": None if crop is None else Crop.parse(crop),
            "faces": wanted,
            "denoiser": _query_denoiser(denoise),
            "add": add,
        }
        results: dict[str, Any] = {
            "k": k,
            "exclude_self": exclude_self,
            "where": None if where is None else parse_where(where),
            "group_by": group_by,
            "fold_copies": fold_duplicates,
        }
        if combined:
            result = self._searcher.similar_to_examples(
                [*liked, *words], unliked, params=SearchParams(**results), **options
            )
        else:
            (result,) = self._searcher.similar([*liked, *words], prior=prior, fmr=fmr, **results, **options)
        if result.error is not None:
            raise result.error
        hits = tuple(map(self._hit, result.results))
        shown = [(each, "query" if not combined else "like") for each in liked]
        shown += [(each, "unlike") for each in unliked]
        found = result.example_faces if combined else {each.name: result.face for each in liked}
        sheet = partial(self._sheet, shown, crop, found, hits)
        name = result.query if not liked else liked[0].name
        return SearchResults(sheet, name, hits, result.match, result.warning, result.took_ms, result.face)

    def _hit(self, hit: SearchHit) -> Hit:
        file = self._searcher.file_of(hit.payload)
        if file is None:
            file = Path() if leads_out(hit.path) else as_path(hit.path)
        return Hit(hit.rank, hit.score, hit.id, hit.payload, hit.probability, hit.match, hit.same_file, file)

    def _sheet(
        self,
        queries: Sequence[tuple[InputImage, str]],
        crop: str | None,
        faces: Mapping[str, QueryFace | None],
        hits: tuple[Hit, ...],
    ) -> NDArray[np.uint8]:
        tiles: list[Tile] = []
        for query, kind in queries:
            face = faces.get(query.name)
            asked = self._searcher.shown(
                query.data,
                side=_SIDE,
                crop=None if crop is None else Crop.parse(crop),
                face=None if face is None else face.face,
                name=query.name,
            )
            tiles.append(Tile(pixels=asked, caption=caption(Path(query.name)), subcaption=kind, accent=True))
        tiles += [
            Tile(
                pixels=self._searcher.item_image(hit.payload, side=_SIDE),
                caption=(hit.person or Path(hit.path).stem).replace("_", " "),
                subcaption=format_score(hit),
                faded=hit.verdict == "possible",
            )
            for hit in hits
        ]
        rows = [tiles[start : start + _ACROSS] for start in range(0, len(tiles), _ACROSS)]
        return contact_sheet(rows, side=_SIDE)


def compare(
    model: ModelLike,
    first: ImageLike,
    second: ImageLike,
    *,
    crop: str | None = None,
    faces: bool = False,
    denoise: bool | Denoiser = False,
    prior: float | None = None,
    fmr: float | None = None,
    max_pixels: int | None = None,
) -> Comparison:
    """Compare two images. Similarity does not prove that they show one person.

    Args:
        model: The model.
        first: A path, bytes, a PIL image or an array (H, W), (H, W, 1) or (H, W, 3), uint8 or float in
            [0, 1].
        second: The other image.
        crop: Part of the images that is seen: ``full``, ``centre:F`` or ``X,Y,W,H``; None: the model's.
        faces: Compare the most prominent face of each image, turned upright.
        denoise: Remove noise from the images first, as for :meth:`Searcher.search`.
        prior: Probability in (0, 1) that both show one person, before looking; None: 0.5.
        fmr: False match rate of the threshold for ``match``; None: the smallest that is calibrated.
        max_pixels: Larger images are refused; None: as for :func:`lookalike.index`.

    Returns:
        ``.score`` (cosine similarity in [-1, 1]), ``.probability`` and ``.match`` (None where the model is
        not calibrated; no probability where an image is unlike the training), ``.same_file``, ``.warning``,
        and ``.faces``, which of how many was compared in each.

    Raises:
        ImageError, VectorError: an image cannot be read, has no face, or has no usable embedding.
        InvalidArgumentError: an argument is of another type or out of range.
        BundleError: there is no such model.

    Examples:
        >>> lookalike.compare(model, "me.jpg", "you.jpg").probability
    """
    if faces and crop is not None:
        raise InvalidArgumentError(f"images are cut to {crop} or to a face; leave one of the two out")
    return compare_images(
        as_model(model),
        InputImage.of(first, name="first image"),
        InputImage.of(second, name="second image"),
        crop=None if crop is None else Crop.parse(crop),
        faces=QueryFaces() if faces else None,
        prior=prior,
        fmr=fmr,
        denoiser=_query_denoiser(denoise),
        max_pixels=max_pixels,
    )


def _query_denoiser(denoise: bool | Denoiser) -> QueryDenoiser | None:
    if denoise is True:
        denoise = load_denoiser()
    return QueryDenoiser(denoise) if denoise else None


def open_searcher(
    store: VectorStore, collection: str, model: ModelLike | None, max_pixels: int | None = None
) -> search_engine.Searcher:
    """Open a collection with a model, or with the one that it remembers."""
    check_store(store)
    if isinstance(model, Model):
        return search_engine.Searcher(store, collection, model, max_pixels=max_pixels)
    name = None if model is None else os.fspath(model)
    return search_engine.Searcher.open(store, collection, model=name, max_pixels=max_pixels)


def check_store(store: Any) -> None:
    """Refuse what is no open store."""
    if isinstance(store, str | os.PathLike):
        raise InvalidArgumentError(
            f"a store must be open, {os.fspath(store)!r} is an address; pass lookalike.open_store(...)"
        )
