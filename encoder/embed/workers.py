"""Workers that embed batches: threads of this process, or other processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Protocol, final

from threadpoolctl import threadpool_info, threadpool_limits

from lookalike.encoder.embed.batch import Batch, Readable, embed_batch
from lookalike.encoder.errors import BundleError, WorkerDiedError
from lookalike.encoder.images import Crop
from lookalike.encoder.runtime import Model
from lookalike.encoder.text import printable

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

    def __init__(self, model: Model, count: int, *, crop: Crop | None, max_pixels: int) -> None:
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
        max_pixels: Larger images fail.
        forked: Fork them with the model in memory, which takes no time; only if :func:`may_fork` allows it.
            Otherwise each imports this library and opens the bundle, which takes half a second.
    """

    def __init__(
        self, model: Model, count: int, *, crop: Crop | None, max_pixels: int, forked: bool = False
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
        with _interrupts_blocked():
            self._pool.submit(os.getpid)

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
    """Block Ctrl-C while child processes start, so that they inherit the block; ours is delivered later."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    crop: Crop | None,
    max_pixels: int,
    files: Files,
    known_hashes: KnownHashes | None,
) -> Batch:
    return embed_batch(
        _model(folder, model_id), files, crop=crop, max_pixels=max_pixels, known_hashes=known_hashes
    )
