"""Who embeds chunks ahead: threads of this process, or processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol, final

from threadpoolctl import threadpool_limits

from encoder.chunks import Chunk, Readable, embed_chunk
from encoder.errors import BundleError, EmbeddingError
from encoder.images import Crop, shown
from encoder.model import Model

__all__ = ["Processes", "Threads", "Workers"]

Files = Sequence[Path | Readable]


class Workers(Protocol):
    """Embed chunks, several at once."""

    def submit(self, files: Files) -> Future[Chunk]:
        """Embed a chunk soon."""
        ...

    def result(self, future: Future[Chunk]) -> Chunk:
        """Wait for a chunk.

        Raises:
            EmbeddingError: nobody is left to embed it.
        """
        ...

    def close(self) -> None:
        """Give up what has not begun, and wait for the rest."""
        ...


@final
class Threads:
    """As many threads as ``count``; they share the model."""

    def __init__(self, model: Model, count: int, *, crop: Crop | None, max_pixels: int) -> None:
        self._model, self._crop, self._max_pixels = model, crop, max_pixels
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="embed")

    def submit(self, files: Files) -> Future[Chunk]:
        """See :class:`Workers`."""
        return self._pool.submit(
            embed_chunk, self._model, files, crop=self._crop, max_pixels=self._max_pixels
        )

    def result(self, future: Future[Chunk]) -> Chunk:
        """See :class:`Workers`."""
        return future.result()

    def close(self) -> None:
        """See :class:`Workers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@final
class Processes:
    """As many processes as ``count``; each opens the model's bundle for itself, on the CPU.

    They do not wait for each other at the interpreter's lock, as threads do: twenty times a picture, between
    reading, hashing, decoding and resizing it, and while the store takes points.
    """

    def __init__(self, model: Model, count: int, *, crop: Crop | None, max_pixels: int) -> None:
        self._job = (model.bundle.folder, model.model_id, crop, max_pixels)
        self._pool = ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("spawn"), initializer=_live_with_parent
        )

    def submit(self, files: Files) -> Future[Chunk]:
        """See :class:`Workers`."""
        with _interrupts_held_back():  # the first one starts the processes
            return self._pool.submit(_embed, *self._job, files)

    def result(self, future: Future[Chunk]) -> Chunk:
        """See :class:`Workers`."""
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise EmbeddingError(
                "a process that embeds was ended from outside (is there memory enough?); "
                "run it again, and it goes on"
            ) from error

    def close(self) -> None:
        """See :class:`Workers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _live_with_parent() -> None:
    """Begin a process: an interrupt is the parent's to answer, and where the parent is killed, this ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(limits=1, user_api="blas")
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


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
def _model(folder: Path, model_id: str) -> Model:
    model = Model.open(folder, provider="cpu", threads=1)
    if model.model_id != model_id:
        raise BundleError(
            f"a model stays as it is while it is at work, {shown(str(folder))} was replaced; run it again"
        )
    return model


def _embed(folder: Path, model_id: str, crop: Crop | None, max_pixels: int, files: Files) -> Chunk:
    return embed_chunk(_model(folder, model_id), files, crop=crop, max_pixels=max_pixels)
