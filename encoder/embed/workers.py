"""Read, decode and embed batches of files, in threads of this process or in other processes.

Legend: n images in a batch, E embedding size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final, Protocol, final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import Face, Faces, Framing, read_faces
from lookalike.encoder.embed.processes import Processes
from lookalike.encoder.errors import BundleError, ImageError, printable
from lookalike.encoder.files import read_with_status
from lookalike.encoder.images import Crop, read_pixels
from lookalike.encoder.runtime import Model


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file when its bytes were read: SHA-256 (hex), size in bytes, mtime in ns."""

    sha256: str
    size: int
    mtime_ns: int


class Readable(Protocol):
    """Source of an image's bytes that is not a file of its own. It can be pickled."""

    def read(self) -> tuple[bytes, FileInfo]:
        """Return the bytes and their file info; called once, on a thread or in another process.

        Raises:
            OSError: They cannot be read; its text says why.
        """
        ...

    def __str__(self) -> str:
        """Its name in messages."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Result of a batch of files.

    Attributes:
        rows: n indices of the embedded files, in order.
        facts: n file infos.
        embeddings: float32 (n, E), unit length.
        failures: Index and one-line reason of each file that failed.
        skipped: Index and file info of each file with a known hash; it was not decoded.
        faces: The faces of each embedded file, where faces are embedded: ``embeddings`` then has a row for
            each face, in the same order. None: it has one for each file.
    """

    rows: list[int]
    facts: list[FileInfo]
    embeddings: NDArray[np.float32]
    failures: list[tuple[int, str]]
    skipped: list[tuple[int, FileInfo]]
    faces: list[list[Face]] | None = None


def embed_batch(
    model: Model,
    files: Sequence[str | Path | Readable],
    *,
    crop: Framing | None,
    max_pixels: int | None,
    known_hashes: Sequence[Collection[str]] | None = None,
) -> Batch:
    """Read, decode and embed some files.

    Decoding and inference both release the interpreter's lock, so as many threads (or processes) as cores
    keep every core busy, whichever of the two costs more.

    Args:
        model: The model.
        files: Each is read once.
        crop: Replaces the model's crop.
        max_pixels: Larger images fail; None: the default limit.
        known_hashes: SHA-256 sums (hex) for each file; a file that has one of its sums is skipped.
    """
    read = (
        _FaceBatch(model, crop, max_pixels)
        if isinstance(crop, Faces)
        else _ImageBatch(model, crop, max_pixels)
    )
    rows: list[int] = []
    facts: list[FileInfo] = []
    failures: list[tuple[int, str]] = []
    skipped: list[tuple[int, FileInfo]] = []
    for row, file in enumerate(files):
        try:
            data, info = read_source(file)
            if known_hashes is not None and info.sha256 in known_hashes[row]:
                skipped.append((row, info))
                continue
            read.add(data, str(file))
        except ImageError as error:
            failures.append((row, str(error)))
        except OSError as error:
            failures.append((row, f"{printable(str(file))}: cannot be read ({error.strerror or error})"))
        else:
            rows.append(row)
            facts.append(info)
    return Batch(rows, facts, model.embed(read.pixels()), failures, skipped, read.faces)


class _ImageBatch:
    """The images of a batch, each as the model takes it."""

    faces: None = None

    def __init__(self, model: Model, crop: Crop | None, max_pixels: int | None) -> None:
        self._spec, self._crop, self._max_pixels = model.bundle.spec.image, crop, max_pixels
        self._images: list[NDArray[np.uint8]] = []

    def add(self, data: bytes, name: str) -> None:
        """Decode an image."""
        self._images.append(
            read_pixels(data, self._spec, crop=self._crop, max_pixels=self._max_pixels, name=name)
        )

    def pixels(self) -> NDArray[np.uint8]:
        """Return the images, uint8 (n, S, S, C)."""
        return np.array(self._images, np.uint8).reshape(-1, *self._spec.shape)


class _FaceBatch:
    """The faces in the images of a batch."""

    def __init__(self, model: Model, framing: Faces, max_pixels: int | None) -> None:
        self._spec, self._frame = model.bundle.spec.image, model.bundle.face_frame
        self._framing, self._max_pixels = framing, max_pixels
        self._cut: list[NDArray[np.uint8]] = []
        self.faces: list[list[Face]] = []

    def add(self, data: bytes, name: str) -> None:
        """Decode an image and cut its faces out."""
        faces, cut = read_faces(
            data, self._spec, self._frame, self._framing, max_pixels=self._max_pixels, name=name
        )
        self.faces.append(faces)
        self._cut.append(cut)

    def pixels(self) -> NDArray[np.uint8]:
        """Return all faces, uint8 (n, S, S, C)."""
        return np.concatenate([np.empty((0, *self._spec.shape), np.uint8), *self._cut])


def read_file(path: str | Path) -> tuple[bytes, FileInfo]:
    """Return the bytes of a file and its file info.

    Raises:
        OSError: It cannot be read, is not a regular file, or holds more than 1 GiB.
    """
    data, status = read_with_status(path)
    return data, FileInfo(hashlib.sha256(data).hexdigest(), len(data), status.st_mtime_ns)


def read_source(file: str | Path | Readable) -> tuple[bytes, FileInfo]:
    """Return the bytes of a file or other source, and its file info.

    Raises:
        OSError: It cannot be read.
    """
    return read_file(file) if isinstance(file, str | Path) else file.read()


def file_info(file: str | Path | Readable) -> FileInfo | None:
    """Return the file info; None for a file that cannot be read."""
    try:
        return read_source(file)[1]
    except OSError:
        return None


Files = Sequence[str | Path | Readable]
KnownHashes = Sequence[Collection[str]]
"""SHA-256 sums for each file with which it is skipped; see :func:`embed_batch`."""


class Workers(Protocol):
    """Embed several batches at once."""

    @property
    def prefetch(self) -> int:
        """How many batches should be submitted ahead, those in progress included."""
        ...

    def submit(self, files: Files, known_hashes: KnownHashes | None) -> Future[Batch]:
        """Queue a batch.

        Raises:
            WorkerDiedError: The worker processes died.
        """
        ...

    def result(self, future: Future[Batch]) -> Batch:
        """Wait for a batch.

        Raises:
            WorkerDiedError: The worker processes died.
        """
        ...

    def close(self) -> None:
        """Cancel what has not started, and wait for the rest."""
        ...


@final
class ThreadEmbedder:
    """``count`` threads that share the model."""

    def __init__(self, model: Model, count: int, *, crop: Framing | None, max_pixels: int | None) -> None:
        self._model, self._crop, self._max_pixels = model, crop, max_pixels
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="embed")
        self.prefetch = count + 1

    def submit(self, files: Files, known_hashes: KnownHashes | None) -> Future[Batch]:
        """See :class:`Workers`."""
        return self._pool.submit(
            embed_batch,
            self._model,
            files,
            crop=self._crop,
            max_pixels=self._max_pixels,
            known_hashes=known_hashes,
        )

    def result(self, future: Future[Batch]) -> Batch:
        """See :class:`Workers`."""
        return future.result()

    def close(self) -> None:
        """See :class:`Workers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@final
class ProcessEmbedder:
    """``count`` processes, on the CPU.

    Unlike threads they do not wait for each other at the interpreter's lock, some twenty times for each
    image. They are given twice as many batches ahead, so that they need not wait for this process while it
    stores.

    Args:
        model: The model.
        count: Number of processes.
        crop: Replaces the model's crop.
        max_pixels: Larger images fail; None: the default limit.
        forked: Fork them with the model in memory, which takes no time; only if :func:`may_fork` allows it.
            Otherwise each imports this library and opens the bundle, which takes half a second.
    """

    def __init__(
        self, model: Model, count: int, *, crop: Framing | None, max_pixels: int | None, forked: bool = False
    ) -> None:
        self._job = (model.bundle.folder, model.model_id, crop, max_pixels)
        self._processes = Processes(
            count, forked=forked, begin=partial(keep_model, model) if forked else None
        )
        self.prefetch = 2 * count + 1

    def start(self) -> None:
        """Start the processes now, not with the first batch."""
        self._processes.start()

    def submit(self, files: Files, known_hashes: KnownHashes | None) -> Future[Batch]:
        """See :class:`Workers`."""
        return self._processes.submit(_embed, *self._job, files, known_hashes)

    def result(self, future: Future[Batch]) -> Batch:
        """See :class:`Workers`."""
        return self._processes.result(future)

    def close(self) -> None:
        """See :class:`Workers`."""
        self._processes.close()


_kept_models: Final[dict[str, Model]] = {}
"""Models of this process, by their ids."""


def keep_model(model: Model) -> None:
    """Keep a model for :func:`worker_model` of this process, and of those that are forked from it."""
    _kept_models[model.model_id] = model


@cache
def _opened(folder: str | Path, model_id: str) -> Model:
    model = Model.open(folder, provider="cpu", threads=1)
    if model.model_id != model_id:
        raise BundleError(f"model {printable(str(folder))} was replaced while it was in use; run it again")
    return model


def worker_model(folder: str | Path, model_id: str) -> Model:
    """Return a model in a worker process, which opens it once.

    Raises:
        BundleError: There is none in the folder, or of the shipped name, or it is another one.
    """
    return _kept_models[model_id] if model_id in _kept_models else _opened(folder, model_id)


def _embed(
    folder: Path,
    model_id: str,
    crop: Framing | None,
    max_pixels: int | None,
    files: Files,
    known_hashes: KnownHashes | None,
) -> Batch:
    return embed_batch(
        worker_model(folder, model_id), files, crop=crop, max_pixels=max_pixels, known_hashes=known_hashes
    )
