"""Stored items and their images, read from their collection's folders and from nowhere else."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import JSONResponse, Response

from lookalike.deploy.http.access import Writing
from lookalike.deploy.http.errors import ApiError
from lookalike.deploy.http.representation import has_current
from lookalike.deploy.http.state import AppState, State
from lookalike.encoder.datasets import MNIST
from lookalike.encoder.detect import LFW_FRAME, Face, cut_faces
from lookalike.encoder.errors import DataError, ImageError
from lookalike.encoder.files import read_stream
from lookalike.encoder.images import DEFAULT_MAX_SHRUNK_PIXELS, Crop, ImageSpec, decode_rgb, read_pixels
from lookalike.indexer.sources import Member, MnistImage, as_path, file_below, leads_out, located
from lookalike.indexer.store import FACE, CollectionSpec, Payload, items_filter
from lookalike.searcher.search import stored_face

router: Final = APIRouter(prefix="/api/v1", tags=["items"])
_CACHE: Final = "private, max-age=3600"
_JPEG: Final = "image/jpeg"
_QUALITY: Final = 90
_MAX_SIDE: Final = 2048
_RANDOM_FROM: Final = 50

Collection = Annotated[str, Query(max_length=64, description="The item's collection.", examples=["family"])]
_JPEG_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {_JPEG: {"schema": {"type": "string", "format": "binary"}}},
        "description": "A JPEG file.",
    }
}


@router.get("/items/random", summary="Get a random item")
async def random_item(state: State, collection: Collection) -> JSONResponse:
    """Return a random item: one of the fifty most similar to a random vector, so not uniformly."""

    def pick() -> dict[str, Any]:
        store, rng = state.registry.store, np.random.default_rng()
        spec = store.info(collection)
        vector = rng.standard_normal((1, spec.dimension)).astype(np.float32)
        (hits,) = store.search(collection, vector, k=_RANDOM_FROM, where=items_filter(spec))
        if not hits:
            raise ApiError("item-not-found", f"collection {collection} is empty")
        hit = hits[rng.integers(len(hits))]
        return {"id": hit.id, "collection": collection, "payload": dict(hit.payload)}

    return JSONResponse(await state.executor.run(pick))


@router.get("/items/{item}", summary="Get an item")
async def item(state: State, item: UUID, collection: Collection) -> JSONResponse:
    """Return the metadata of an item."""
    _, payload = await state.executor.run(lambda: get_item(state, collection, item))
    return JSONResponse({"id": str(item), "collection": collection, "payload": payload})


@router.delete("/items/{item}", status_code=204, response_class=Response, summary="Delete an item")
async def delete_item(state: State, item: UUID, collection: Collection, _: Writing) -> Response:
    """Delete an item of a collection. Its image file stays: indexing the file again may store it again."""

    def delete() -> None:
        get_item(state, collection, item)
        state.registry.store.delete(collection, [str(item)])
        state.registry.forget(collection)

    await state.executor.run(delete)
    return Response(status_code=204)


@router.get(
    "/items/{item}/thumbnail",
    response_class=Response,
    responses=_JPEG_RESPONSE,
    summary="Get an item's thumbnail",
)
async def item_thumbnail(
    request: Request,
    state: State,
    item: UUID,
    collection: Collection,
    side: Annotated[int, Query(ge=16, le=512, description="In pixels.")] = 160,
) -> Response:
    """Return an item's image, square, with a little more around it than the model sees."""

    def thumbnail(spec: CollectionSpec, payload: Payload, file: bytes) -> NDArray[np.uint8]:
        if spec.has_faces:
            return _face_of(payload, file, side, max_pixels=state.settings.max_pixels)
        crop = Crop.parse(spec.crop).widened(1.5)
        return read_pixels(
            file, ImageSpec(size=side, crop=crop), max_pixels=state.settings.max_pixels, name="the item"
        )

    return await _send_image(request, state, collection, item, thumbnail, variant=f"-{side}")


@router.get(
    "/items/{item}/image", response_class=Response, responses=_JPEG_RESPONSE, summary="Get an item's image"
)
async def item_image(request: Request, state: State, item: UUID, collection: Collection) -> Response:
    """Return an item's whole image, at most 2048 pixels wide and high, without the metadata of its file."""

    def whole(_: CollectionSpec, _payload: Payload, file: bytes) -> NDArray[np.uint8]:
        image = Image.fromarray(
            decode_rgb(
                file, max_pixels=state.settings.max_pixels or DEFAULT_MAX_SHRUNK_PIXELS, name="the item"
            )
        )
        image.thumbnail((_MAX_SIDE, _MAX_SIDE))
        return np.asarray(image)

    return await _send_image(request, state, collection, item, whole)


def _face_of(payload: Payload, file: bytes, side: int, *, max_pixels: int | None) -> NDArray[np.uint8]:
    """Return the face of an item, upright, with a little more around it than the model sees."""
    pixels = decode_rgb(file, max_pixels=max_pixels, name="the item")
    cut = cut_faces(pixels, [Face.from_json(payload[FACE])], LFW_FRAME, side, margin=0.25)
    return np.asarray(cut[0], np.uint8)


async def _send_image(
    request: Request,
    state: AppState,
    collection: str,
    item: UUID,
    render: Callable[[CollectionSpec, Payload, bytes], NDArray[np.uint8]],
    *,
    variant: str = "",
) -> Response:
    """Return an item's image as JPEG, or 304 if the client has it."""

    def respond() -> Response:
        spec, payload = get_item(state, collection, item)
        headers = {"ETag": f'"{payload.get("sha256", "")}{variant}"', "Cache-Control": _CACHE}
        if has_current(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        try:
            pixels = render(spec, payload, item_file(spec, payload, allowed=state.settings.roots))
        except ImageError as error:
            raise _gone() from error
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY)
        return Response(out.getvalue(), media_type=_JPEG, headers=headers)

    return await state.run_timed(respond)


def get_item(state: AppState, collection: str, item: UUID) -> tuple[CollectionSpec, dict[str, Any]]:
    """Return the description of a collection, and the payload of an item.

    Raises:
        ApiError: there is no such item.
    """
    store = state.registry.store
    spec = store.info(collection)
    record = store.get(collection, [str(item)]).get(str(item))
    if record is None or (spec.has_faces and stored_face(record.payload) is None):
        raise ApiError("item-not-found", f"collection {collection} has no item {item}")
    return spec, dict(record.payload)


def item_file(spec: CollectionSpec, payload: dict[str, Any], *, allowed: Sequence[Path] = ()) -> bytes:
    """Return the bytes of an item's image file.

    The file must really lie under the folder of its root, which the collection was indexed from; where only a
    file of latents told that folder, under one that may be indexed. A link that leads out of it is refused,
    also one that is swapped in while the file is being opened.

    Args:
        spec: The item's collection.
        payload: Of the item.
        allowed: The folders that requests may index.

    Raises:
        ApiError: it is gone, cannot be read, or lies elsewhere.
    """
    root, path = str(payload.get("root")), str(payload.get("path", ""))
    if root not in spec.roots or leads_out(path):
        raise _gone()
    folder = spec.folder_of(root)
    try:
        place = located(file_below(spec.roots[root], path))
        folders = [real.resolve(strict=True) for real in ([as_path(folder)] if folder else allowed)]
        if isinstance(place, Path):
            return _read_below(folders, place)
        if isinstance(place, MnistImage):
            archive = MNIST(place.folder).images_file(place.split)
        elif isinstance(place, Member):
            archive = place.archive
        else:
            raise _gone()
        if not _is_below(archive.resolve(strict=True), folders):
            raise _gone()
        return place.read()[0]
    except (OSError, DataError, ValueError, RuntimeError) as error:  # ValueError: a null byte in the path
        raise _gone() from error


def _read_below(folders: Sequence[Path], path: Path) -> bytes:
    """Read a file that lies below one of these folders, links followed."""
    real = path.resolve(strict=True)
    if not _is_below(real, folders):
        raise _gone()
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(real, os.O_RDONLY | flags), "rb") as file:
        opened, current = os.fstat(file.fileno()), os.lstat(path.resolve(strict=True))
        # The opened file is the one that is below the folder now, under a name without links.
        same_file = (opened.st_dev, opened.st_ino) == (current.st_dev, current.st_ino)
        if not same_file or real != path.resolve(strict=True) or not stat.S_ISREG(opened.st_mode):
            raise _gone()
        return read_stream(file)


def _is_below(real: Path, folders: Sequence[Path]) -> bool:
    return any(real.is_relative_to(folder) for folder in folders)


def _gone() -> ApiError:
    return ApiError("picture-not-found", "the image file is gone, or is not in its collection's folder")
