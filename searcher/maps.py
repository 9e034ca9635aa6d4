"""A map of a collection, on which similar images lie near each other: an image, or one page.

UMAP (L. McInnes, J. Healy, J. Melville: UMAP: Uniform Manifold Approximation and Projection for Dimension
Reduction. arXiv:1802.03426) where the extra ``map`` is installed, else principal components.

Legend: N images, E embedding size, S side of a thumbnail.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import math
import re
import subprocess
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import InvalidArgumentError, MissingExtraError, WorkerDiedError, printable
from lookalike.encoder.files import atomic_write
from lookalike.encoder.images import save_image
from lookalike.indexer.store import (
    CLUSTER,
    CLUSTER_NAME,
    Filter,
    Payload,
    VectorStore,
    check_fields,
    items_filter,
)
from lookalike.searcher.search import Searcher

Pixels = NDArray[np.uint8]
Method = Literal["umap", "pca"]

LEAST: Final = 3
"""Images of a map."""
_SIDE: Final = 2000
"""Of the image, in pixels."""
_THUMBNAIL: Final = (64, 128)
"""Smallest and largest side of a thumbnail: of few images they are larger."""
_PAGE: Final = Path(__file__).with_name("map.html")
_NEIGHBORS: Final = 15
_DOT: Final = 3
_INK: Final = (96, 104, 116)
_EMPTY: Final = 230
_FIELDS: Final = ("person", CLUSTER, CLUSTER_NAME)
_POLL_SECONDS: Final = 0.1
_CHILD: Final = """
import io, os, sys
import numpy
from lookalike.searcher.maps import project
os.nice(5) if hasattr(os, "nice") else None
vectors = numpy.load(io.BytesIO(sys.stdin.buffer.read()))
sys.stdout.buffer.write(project(vectors, "umap", seed=int(sys.argv[1])).tobytes())
"""
"""What a process runs that places vectors by UMAP: searches go first."""


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """N items of a collection.

    Attributes:
        ids: Of the items.
        payloads: Of the items.
        vectors: float32 (N, E).
        total: Items in the collection, of which N were chosen at random.
    """

    ids: tuple[str, ...]
    payloads: tuple[Payload, ...]
    vectors: NDArray[np.float32]
    total: int


@dataclass(frozen=True, eq=False, slots=True)
class CollectionMap:
    """N images and their places.

    Attributes:
        ids: Of the items.
        payloads: Of the items.
        places: float32 (N, 2), x to the right and y downwards, in [0, 1].
        method: How they were found.
        total: Items in the collection, of which N were chosen at random.
    """

    ids: tuple[str, ...]
    payloads: tuple[Payload, ...]
    places: NDArray[np.float32]
    method: Method
    total: int


def default_method() -> Method:
    """Return ``umap`` where it is installed, else ``pca``."""
    return "umap" if importlib.util.find_spec("umap") is not None else "pca"


def make_map(
    store: VectorStore,
    name: str,
    *,
    method: Method | None = None,
    count: int = 2000,
    seed: int = 0,
    where: Filter | None = None,
) -> CollectionMap:
    """Place the images of a collection on a plane.

    Args:
        store: Holds the collection.
        name: The collection.
        method: How; None: see :func:`default_method`.
        count: Most images; of more, so many are chosen at random.
        seed: Of the choice and of the map: the same seed gives the same map.
        where: Only items that match.

    Raises:
        CollectionNotFoundError: there is no such collection.
        InvalidArgumentError: it has fewer than three images, or there is no such method.
        MissingExtraError: the method needs the extra ``map``.
    """
    method = method or default_method()
    check_method(method)
    sample = take_sample(store, name, count=count, seed=seed, where=where)
    places = project(sample.vectors, method, seed=seed)
    return CollectionMap(sample.ids, sample.payloads, places, method, sample.total)


def check_method(method: Method) -> None:
    """Check that there is such a method, and that what it needs is installed.

    Raises:
        InvalidArgumentError: there is no such method.
        MissingExtraError: it needs the extra ``map``.
    """
    if method not in get_args(Method):
        raise InvalidArgumentError(f"the method of a map is umap or pca, not {printable(str(method))}")
    if method == "umap" and default_method() != "umap":
        raise MissingExtraError(
            "--method umap needs umap-learn; pip install 'lookalike[map]', or use --method pca"
        )


def take_sample(
    store: VectorStore,
    name: str,
    *,
    count: int,
    seed: int = 0,
    where: Filter | None = None,
    among: int | None = None,
    on_read: Callable[[], object] = lambda: None,
) -> Sample:
    """Choose items of a collection at random, with their vectors.

    Args:
        store: Holds the collection.
        name: The collection.
        count: Most items.
        seed: Of the choice.
        where: Only items that match.
        among: Only the first so many items are read, in the order of their ids, which are digests; None: all.
        on_read: Called before each item is read; may raise to stop.

    Raises:
        CollectionNotFoundError: there is no such collection.
        InvalidArgumentError: it has fewer than three images.
    """
    if where is not None:
        check_fields(store, name, where)
    condition = items_filter(store.info(name), where)
    total = store.count(name, where=condition)
    if total < LEAST:
        raise InvalidArgumentError(f"a map needs {LEAST} images or more, {name} has {total}; index more")
    read = total if among is None else min(total, among)
    rng = np.random.default_rng(seed)
    chosen = set(rng.choice(read, min(read, count), replace=False).tolist())
    records = []
    for place, record in enumerate(islice(store.scroll(name, where=condition, with_vectors=True), read)):
        on_read()
        if place in chosen and record.vector is not None:
            records.append(record)
    return Sample(
        tuple(record.id for record in records),
        tuple(record.payload for record in records),
        np.stack([record.vector for record in records if record.vector is not None]),
        total,
    )


def project(vectors: NDArray[np.float32], method: Method, *, seed: int = 0) -> NDArray[np.float32]:
    """Return a place for each of N vectors float32 (N, E), float32 (N, 2) in [0, 1]."""
    places = _umap(vectors, seed) if method == "umap" else _principal(vectors)
    low, high = places.min(axis=0), places.max(axis=0)
    scaled: NDArray[np.float32] = ((places - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
    return scaled


class UmapProcess:
    """Places vectors by UMAP in a process of its own, which can be stopped, and remembers the last places.

    UMAP compiles itself for ten seconds and more, and holds the interpreter meanwhile. Safe for threads.

    Args:
        kept: Maps that are remembered.

    Attributes:
        too_many: So many vectors took longer than a caller would wait, which notes it here.
    """

    def __init__(self, kept: int = 8) -> None:
        self.too_many = sys.maxsize
        self._kept = kept
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def project(
        self, vectors: NDArray[np.float32], *, seed: int = 0, on_wait: Callable[[], object] = lambda: None
    ) -> NDArray[np.float32]:
        """Return the places of vectors float32 (N, E), as :func:`project` does.

        Args:
            vectors: The vectors.
            seed: Of the map.
            on_wait: Called ten times a second; may raise, which stops the process.

        Raises:
            WorkerDiedError: the process failed.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        key = hashlib.sha256(f"{seed} {vectors.shape}".encode() + vectors.tobytes()).hexdigest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        places = _in_child(vectors, seed, on_wait)
        with self._lock:
            self._known[key] = places
            if len(self._known) > self._kept:
                self._known.popitem(last=False)
        return places


def _in_child(vectors: NDArray[np.float32], seed: int, on_wait: Callable[[], object]) -> NDArray[np.float32]:
    sent = io.BytesIO()
    np.save(sent, vectors)
    # -P: never import a folder called lookalike from the working directory.
    command = [sys.executable, "-P", "-c", _CHILD, str(seed)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        left: bytes | None = sent.getvalue()
        try:
            while True:
                try:
                    out, errors = child.communicate(left, timeout=_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    left = None  # it was taken over
                    on_wait()
        finally:
            child.kill()
    if child.returncode:
        reason = errors.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise WorkerDiedError(f"UMAP failed ({reason or f'exit {child.returncode}'}); use the method pca")
    return np.frombuffer(out, np.float32).reshape(len(vectors), 2)


def _umap(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    with warnings.catch_warnings():  # of optional parts of it that are not there
        warnings.simplefilter("ignore")
        from umap import UMAP

        init = _principal(vectors)
        placed = UMAP(
            n_neighbors=min(_NEIGHBORS, len(vectors) - 1),
            metric="cosine",
            init=10 * init / max(np.abs(init).max(), 1e-12),
            random_state=seed,
            n_jobs=1,  # more would not give the same map again
        ).fit_transform(vectors)
    return np.asarray(placed, np.float64)


def _principal(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the first two principal components (N, 2); their signs do not depend on the machine."""
    centered = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    placed: NDArray[np.float64] = np.zeros((len(vectors), 2))
    placed[:, : axes.shape[1]] = centered @ axes
    return placed


def thumbnails(
    searcher: Searcher, found: CollectionMap, *, on_progress: Callable[[int], object] = lambda _: None
) -> list[Pixels | None]:
    """Return the image of each item, uint8 (S, S, 3); None where it cannot be read."""
    images = []
    side = _thumbnail_side(len(found.payloads))
    for payload in found.payloads:
        images.append(searcher.item_image(dict(payload), side=side))
        on_progress(1)
    return images


def draw_map(found: CollectionMap, images: Sequence[Pixels | None]) -> tuple[Pixels, int]:
    """Return the map as an image uint8 (2000, 2000, 3), and how many items are only dots for want of room."""
    canvas = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    side = _thumbnail_side(len(images))
    cells = _SIDE // side
    taken: set[tuple[int, int]] = set()
    dots = []
    for (x, y), image in zip(found.places.tolist(), images, strict=True):
        cell = min(int(x * cells), cells - 1), min(int(y * cells), cells - 1)
        if cell in taken or image is None:
            dots.append((x, y))
            continue
        taken.add(cell)
        left, top = cell[0] * side, cell[1] * side
        canvas[top : top + side, left : left + side] = image
    edge = cells * side - 2 * _DOT
    for x, y in dots:
        left, top = int(x * edge), int(y * edge)
        canvas[top : top + 2 * _DOT, left : left + 2 * _DOT] = _INK
    return canvas, len(dots)


def write_page(file: Path, name: str, found: CollectionMap, images: Sequence[Pixels | None]) -> None:
    """Write the map as one HTML file with all images in it: it can be moved, and zoomed by wheel or fingers.

    Raises:
        InvalidArgumentError: the file cannot be written.
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    side = _thumbnail_side(len(images))
    atlas = np.full((rows * side, columns * side, 3), _EMPTY, np.uint8)
    for place, image in enumerate(images):
        if image is not None:
            top, left = place // columns * side, place % columns * side
            atlas[top : top + side, left : left + side] = image
    with TemporaryDirectory(prefix="lookalike-") as folder:
        save_image(Path(folder, "atlas.jpg"), atlas)
        encoded = base64.b64encode(Path(folder, "atlas.jpg").read_bytes()).decode()
    points = [
        [round(float(x), 5), round(float(y), 5), _words(payload)]
        for (x, y), payload in zip(found.places, found.payloads, strict=True)
    ]
    data: dict[str, Any] = {"name": name, "columns": columns, "side": side, "points": points}
    text = json.dumps(data).replace("<", "\\u003c")  # nothing in it can end the script
    before, between, after = re.split("@DATA@|@ATLAS@", _PAGE.read_text(encoding="utf-8"))
    page = before + encoded + between + text + after
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, page.encode())
    except OSError as error:
        raise InvalidArgumentError(
            f"{printable(str(file))}: cannot write here ({error.strerror or error}); choose another place"
        ) from error


def _thumbnail_side(count: int) -> int:
    """Return S for so many images: a third of what each would have if they filled the image."""
    least, most = _THUMBNAIL
    return min(most, max(least, _SIDE // (3 * max(1, math.isqrt(count)))))


def _words(payload: Payload) -> str:
    """Return what the page says of an image."""
    more = [f"{field}: {payload[field]}" for field in _FIELDS if field in payload]
    return printable(" · ".join([str(payload["path"]), *more]))
