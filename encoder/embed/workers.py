"""Who embeds chunks ahead: threads of this process, or processes of their own."""

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
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable

Files = Sequence[str | Path | Readable]
Known = Sequence[Collection[str]]
"""Of each file, SHA-256 sums under which it is spared; see :func:`embed_batch`."""


class Workers(Protocol):
    """Embed chunks, several at once."""

    @property
    def ahead(self) -> int:
        """How many chunks they should have before them, those at hand included."""
        ...

    def submit(self, files: Files, known: Known | None) -> Future[Batch]:
        """Embed a chunk soon.

        Raises:
            WorkerDiedError: nobody is left to embed it.
        """
        ...

    def result(self, future: Future[Batch]) -> Batch:
        """Wait for a chunk.

        Raises:
            WorkerDiedError: nobody is left to embed it.
        """
        ...

    def close(self) -> None:
        """Give up what has not begun, and wait for the rest."""
        ...


@final
class ThreadEmbedder:
    """As many threads as ``count``; they share the model."""

    def __init__(self, model: Model, count: int, *, crop: Crop | None, max_pixels: int) -> None:
        self._model, self._crop, self._max_pixels = model, crop, max_pixels
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="embed")
        self.ahead = count + 1

    def submit(self, files: Files, known: Known | None) -> Future[Batch]:
        """See :class:`Workers`."""
        return self._pool.submit(
            embed_batch, self._model, files, crop=self._crop, max_pixels=self._max_pixels, known=known
        )

    def result(self, future: Future[Batch]) -> Batch:
        """See :class:`Workers`."""
        return future.result()

    def close(self) -> None:
        """See :class:`Workers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@final
class ProcessEmbedder:
    """As many processes as ``count``, on the CPU.

    They do not wait for each other at the interpreter's lock, as threads do: twenty times a picture, between
    reading, hashing, decoding and resizing it, and while the store takes points. Nor for this process, which
    stores a thousand at a time: so they have twice as much before them.

    Args:
        model: What embeds.
        count: Of processes.
        crop: How the pictures are framed; None: as the model was trained.
        max_pixels: Larger pictures fail.
        forked: Whether they go on with the model as it is in memory here, which takes no time. Otherwise each
            imports this library and opens the bundle for itself, which takes half a second. Only where
            :func:`may_fork` says so.
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
        self.ahead = 2 * count + 1

    def start(self) -> None:
        """Start them now, not with the first chunk; those that are not forked come one with each chunk."""
        with _interrupts_held_back():
            self._pool.submit(os.getpid)

    def submit(self, files: Files, known: Known | None) -> Future[Batch]:
        """See :class:`Workers`."""
        try:
            with _interrupts_held_back():  # the first one starts the processes
                return self._pool.submit(_embed, *self._job, files, known)
        except BrokenProcessPool as error:
            raise _ended() from error

    def result(self, future: Future[Batch]) -> Batch:
        """See :class:`Workers`."""
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise _ended() from error

    def close(self) -> None:
        """See :class:`Workers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def may_fork(model: Model) -> bool:
    """Whether processes may be forked off this one: where it has no thread whose locks they could inherit.

    On Linux, while this is the only thread but for those of OpenBLAS, which ends them before a fork and
    starts them anew: numpy has them from the start. Others come with an embedded store that is open, with
    onnxruntime on several threads or a GPU, and with a service.
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
    """Leave an interrupt to the parent, end when it has ended, and take one core for numpy's products.

    For the ``initializer`` of a pool. Without it a parent that is killed leaves behind workers that wait for
    ever to hand over their results.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(limits=1, user_api="blas")
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _ended() -> WorkerDiedError:
    return WorkerDiedError(
        "a process that embeds was ended from outside (is there memory enough?); run it again, and it goes on"
    )


_here: Final[dict[str, Model]] = {}
"""In a forked process: the model that it was given, by its id."""


def _begin(model: Model | None) -> None:
    """Begin a process: an interrupt is the parent's to answer, and where the parent is killed, this ends."""
    exit_with_parent()
    if model is not None:
        _here[model.model_id] = model


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let what is started meanwhile never see Ctrl-C, which a terminal sends to all; ours comes later."""
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
        raise BundleError(
            f"a model stays as it is while it is at work, {printable(str(folder))} was replaced; run it again"
        )
    return model


def _model(folder: Path, model_id: str) -> Model:
    return _here[model_id] if model_id in _here else _opened(folder, model_id)


def _embed(
    folder: Path, model_id: str, crop: Crop | None, max_pixels: int, files: Files, known: Known | None
) -> Batch:
    return embed_batch(_model(folder, model_id), files, crop=crop, max_pixels=max_pixels, known=known)
