"""Read, decode and embed batches of files, in threads of this process or in other processes.

Legend: n images in a batch, E embedding size.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Final, Protocol, final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from lookalike.encoder.detect import Face, Faces, Framing, read_faces
from lookalike.encoder.errors import BundleError, ImageError, WorkerDiedError, printable
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
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("fork" if forked else "spawn"),
            initializer=_begin,
            initargs=(model if forked else None,),
        )
        self.prefetch = 2 * count + 1

    def start(self) -> None:
        """Start the processes now, not with the first batch."""
        try:
            with _interrupts_blocked():
                self._pool.submit(os.getpid)
        except BaseException:  # an interrupt that was held back: nobody else would close the pool
            self.close()
            raise

    def submit(self, files: Files, known_hashes: KnownHashes | None) -> Future[Batch]:
        """See :class:`Workers`."""
        try:
            with _interrupts_blocked():  # the first batch starts the processes
                return self._pool.submit(_embed, *self._job, files, known_hashes)
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def result(self, future: Future[Batch]) -> Batch:
        """See :class:`Workers`."""
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def close(self) -> None:
        """See :class:`Workers`."""
        # Interrupted here, the pool's thread would still be closing its pipe when the interpreter's exit
        # writes to it: "Bad file descriptor" and a traceback.
        with _interrupts_blocked():
            self._pool.shutdown(wait=True, cancel_futures=True)


def may_fork(model: Model) -> bool:
    """Whether it is safe to fork: this process has no other thread whose locks a child could inherit.

    Only on Linux. OpenBLAS threads, which numpy starts, do not count: OpenBLAS stops them before a fork and
    starts them again. An open embedded store, onnxruntime on several threads or a GPU, and a service have
    threads.
    """
    if sys.platform != "linux" or model.provider != "CPUExecutionProvider" or threading.active_count() > 1:
        return False
    expected = 1 + sum(
        int(pool["num_threads"]) - 1
        for pool in threadpool_info()
        if pool["internal_api"] == "openblas" and pool.get("threading_layer") == "pthreads"
    )
    try:
        names = [Path(task, "comm").read_bytes() for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return False
    return len(names) <= expected and len(set(names)) == 1


def exit_with_parent() -> None:
    """Ignore Ctrl-C, exit when the parent process ends, and use one core for numpy's products.

    For the ``initializer`` of a pool. Without it, workers of a killed parent would wait forever to hand over
    their results.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(limits=1, user_api="blas")
    parent = multiprocessing.parent_process()

    def exit_after_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=exit_after_parent, daemon=True).start()


def _worker_died() -> WorkerDiedError:
    return WorkerDiedError("an embedding process was killed (out of memory?); run it again to continue")


_forked_models: Final[dict[str, Model]] = {}
"""The model of a forked process, by its id."""


def _begin(model: Model | None) -> None:
    """Initialize a worker process."""
    exit_with_parent()
    if model is not None:
        _forked_models[model.model_id] = model


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block; child processes that start in it inherit a blocked signal.

    Blocking is not enough here: another thread may receive the signal, and Python then raises
    KeyboardInterrupt in the main thread all the same, which would leave a child half started.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.getsignal(signal.SIGINT)
    replaced = callable(handler) and threading.current_thread() is threading.main_thread()
    held: list[tuple[int, FrameType | None]] = []
    if replaced:
        signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        if replaced:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if held and callable(handler):
            handler(*held[0])


@cache
def _opened(folder: Path, model_id: str) -> Model:
    model = Model.open(folder, provider="cpu", threads=1)
    if model.model_id != model_id:
        raise BundleError(f"model {printable(str(folder))} was replaced while it was in use; run it again")
    return model


def _model(folder: Path, model_id: str) -> Model:
    return _forked_models[model_id] if model_id in _forked_models else _opened(folder, model_id)


def _embed(
    folder: Path,
    model_id: str,
    crop: Framing | None,
    max_pixels: int | None,
    files: Files,
    known_hashes: KnownHashes | None,
) -> Batch:
    return embed_batch(
        _model(folder, model_id), files, crop=crop, max_pixels=max_pixels, known_hashes=known_hashes
    )
