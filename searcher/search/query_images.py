"""Query images as the model sees them: read, framed or with their faces cut out, denoised if wanted.

Legend: n faces, S side of a model's input, C channels, E embedding size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import (
    Face,
    choose_face,
    cut_for_model,
    face_finder,
    place_in_words,
)
from lookalike.encoder.errors import DataError, ImageError, InvalidArgumentError, LookalikeError, printable
from lookalike.encoder.files import read_bounded
from lookalike.encoder.images import Crop, decode_rgb, read_pixels
from lookalike.encoder.runtime import Model
from lookalike.indexer.sources import file_below, leads_out, located
from lookalike.indexer.store import FACE, CollectionSpec, Payload
from lookalike.searcher.search.query_denoiser import DenoiseInfo, QueryDenoiser

Pixels = NDArray[np.uint8]
Timer = Callable[[str], AbstractContextManager[object]]
"""Given the name of a step (denoise, embed, check, search), returns a context that times it."""


class Query(Protocol):
    """A query image: a ``Path``, or any object with bytes and, as ``str``, a name."""

    def read_bytes(self) -> bytes:
        """Return the whole file.

        Raises:
            OSError: it cannot be read.
        """
        ...


@dataclass(frozen=True, eq=False, slots=True)
class ItemQuery:
    """The image of a stored item as a query; of a face, that face."""

    name: str
    read_bytes: Callable[[], bytes]
    payload: Payload

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item of the searched collection as a query.

    Attributes:
        id: Its id.
        read: Returns the bytes of its image, from its payload; None: reads its file.
    """

    id: str
    read: Callable[[dict[str, Any]], bytes] | None = None


@dataclass(frozen=True, slots=True)
class TextQuery:
    """Words as a query, for a model that takes text.

    Attributes:
        text: The words.
    """

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class QueryFaces:
    """Which faces of a query are searched for, where faces are compared.

    Attributes:
        number: Of the face, from 1 at the left; None: the most prominent one.
        every: Whether each face is a query of its own.

    Raises:
        InvalidArgumentError: A number below 1, or both.
    """

    number: int | None = None
    every: bool = False

    def __post_init__(self) -> None:
        if self.number is not None and (self.number < 1 or self.every):
            raise InvalidArgumentError(
                f"one face has a number from 1 at the left, or all faces are asked for; got {self.number}"
            )


@dataclass(frozen=True, slots=True)
class QueryFace:
    """The face of a picture that a query is about: which of how many, from 1 at the left."""

    face: Face
    number: int
    count: int

    def to_json(self) -> dict[str, object]:
        """Return JSON values: number, count, box, landmarks, score, width."""
        return {"number": self.number, "count": self.count, **self.face.to_json()}

    def summary(self) -> str:
        """Return one line for people."""
        return place_in_words(self.number, self.count)


@dataclass(frozen=True, eq=False, slots=True)
class LoadedQuery:
    """A query's pixels, uint8 (S, S, C), and the SHA-256 of its file, or the error of reading it.

    Of a stored item, and of text, there is its vector, float32 (E,), in place of pixels.
    """

    pixels: Pixels | None = None
    name: str = ""
    digest: str = ""
    vector: NDArray[np.float32] | None = None
    denoise_info: DenoiseInfo | None = None
    face: QueryFace | None = None
    error: LookalikeError | None = None
    is_text: bool = False

    @property
    def stored_vector(self) -> NDArray[np.float32]:
        """The vector of a stored item, float32 (E,).

        Raises:
            ValueError: it is no stored item.
        """
        if self.vector is None:
            raise ValueError(f"{self.name} is no stored item")
        return self.vector


def load_query(
    model: Model,
    query: Query,
    crop: Crop | None,
    *,
    faces: QueryFaces,
    denoiser: QueryDenoiser | None,
    max_pixels: int | None,
    timer: Timer,
) -> list[LoadedQuery]:
    """Read a query: one image or, without a crop, a face or each face of it; or one error."""
    try:
        data = read_bounded(query, pipe=True) if isinstance(query, Path) else query.read_bytes()
        if crop is not None:
            found = [_framed(model, data, str(query), crop, denoiser, max_pixels, timer)]
        else:
            found = _faces(model, query, data, faces, denoiser, max_pixels, timer)
    except ImageError as error:
        return [LoadedQuery(name=str(query), error=error)]
    except OSError as error:
        reason = f"{printable(str(query))}: cannot be read ({error.strerror})"
        return [LoadedQuery(name=str(query), error=ImageError(reason))]
    digest = hashlib.sha256(data).hexdigest()
    return [replace(each, name=str(query), digest=digest) for each in found]


def stored_face(payload: Payload) -> QueryFace | None:
    """Return the face that an item is; None where pictures are items, and of a picture without a face."""
    stored = payload.get(FACE)
    if not stored or not stored["number"]:
        return None
    return QueryFace(Face.from_json(stored), int(stored["number"]), int(stored["count"]))


def stored_file(spec: CollectionSpec, payload: Payload) -> Path | None:
    """Return where an item's image lies, perhaps within an archive; None where its folder is not known."""
    folder, path = spec.folder_of(payload.get("root")), str(payload["path"])
    return None if folder is None or leads_out(path) else file_below(folder, path)


def read_located(file: Path) -> bytes:
    """Return the bytes of a file, which may be a member of an archive."""
    place = located(file)
    return read_bounded(place) if isinstance(place, Path) else place.read()[0]


def is_found(file: Path | None) -> bool:
    """Whether an image lies where it was indexed, in a folder or an archive."""
    try:
        place = None if file is None else located(file)
    except (OSError, DataError, ValueError):  # ValueError: a null byte in the path
        return False
    return place is not None and (not isinstance(place, Path) or place.is_file())


def same_picture(one: Payload, other: Payload) -> bool:
    """Whether two items are faces of one file."""
    return stored_face(one) is not None and all(one.get(key) == other.get(key) for key in ("root", "path"))


def _framed(
    model: Model,
    data: bytes,
    name: str,
    crop: Crop,
    denoiser: QueryDenoiser | None,
    max_pixels: int | None,
    timer: Timer,
) -> LoadedQuery:
    spec = model.bundle.spec.image
    if denoiser is None:
        return LoadedQuery(read_pixels(data, spec, crop=crop, max_pixels=max_pixels, name=name))
    with timer("denoise"):
        pixels, info = denoiser.read(data, spec, crop=crop, max_pixels=max_pixels, name=name)
    return LoadedQuery(pixels, denoise_info=info)


def _faces(
    model: Model,
    query: Query,
    data: bytes,
    wanted: QueryFaces,
    denoiser: QueryDenoiser | None,
    max_pixels: int | None,
    timer: Timer,
) -> list[LoadedQuery]:
    spec, frame = model.bundle.spec.image, model.bundle.face_frame
    image = decode_rgb(data, max_pixels=max_pixels, name=str(query))
    with timer("faces"):
        chosen = _chosen(query, image, wanted)
    loaded = []
    for each in chosen:
        part, info = image, None
        if denoiser is not None:
            with timer("denoise"):
                part, info = denoiser.face(image, each.face, spec.size)
        (pixels,) = cut_for_model(part, [each.face], frame, spec)
        loaded.append(LoadedQuery(pixels, denoise_info=info, face=each))
    return loaded


def _chosen(query: Query, image: Pixels, wanted: QueryFaces) -> list[QueryFace]:
    stored = stored_face(query.payload) if isinstance(query, ItemQuery) else None
    if stored is not None:
        return [stored]
    found = face_finder().find_for_query(image)
    main = choose_face(found, wanted.number, name=str(query))
    return [
        QueryFace(face, number, len(found))
        for number, face in enumerate(found, 1)
        if wanted.every or face is main
    ]
