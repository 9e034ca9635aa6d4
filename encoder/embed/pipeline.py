"""Files to embeddings: read, decoded and embedded ahead on every core, in order, in bounded memory.

Legend: n images in a batch, E embedding size.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lookalike.encoder.embed.batch import Batch, FileInfo, Readable
from lookalike.encoder.embed.workers import ProcessEmbedder, ThreadEmbedder, Workers, may_fork
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.images.decode import DEFAULT_MAX_PIXELS
from lookalike.encoder.images.preprocess import Crop
from lookalike.encoder.runtime.model import Model

Key = TypeVar("Key")
_BATCH: Final = 128
PROCESSES_FROM: Final = 2048
"""From so many pictures on processes take the place of threads, where they may."""


@dataclass(frozen=True, slots=True)
class EmbeddedBatch(Generic[Key]):
    """One batch, in the order of the input.

    Attributes:
        keys: n keys of the files that could be read.
        facts: n facts.
        embeddings: float32 (n, E), unit length.
        failures: Key and one-line reason of each file that could not.
        spared: Key and facts of each file whose content was known; it was not embedded.
    """

    keys: list[Key]
    facts: list[FileInfo]
    embeddings: NDArray[np.float32]
    failures: list[tuple[Key, str]]
    spared: list[tuple[Key, FileInfo]] = field(default_factory=list)


def fork_workers(
    model: Model, *, crop: Crop | None = None, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Workers | None:
    """Start processes that embed, one for each core, where that takes no time; see :class:`ProcessEmbedder`.

    For who is about to start threads (an embedded store does when it is opened) and has many pictures. Close
    them, or give them to :func:`embed_files`.

    Returns:
        None where they cannot be forked.
    """
    count = os.cpu_count() or 1
    if count < 2 or not may_fork(model):
        return None
    workers = ProcessEmbedder(model, count, crop=crop, max_pixels=max_pixels, forked=True)
    workers.start()
    return workers


def embed_files(
    model: Model,
    files: Iterable[tuple[Key, str | Path | Readable]],
    *,
    crop: Crop | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    threads: int | None = None,
    processes: bool = False,
    workers: Workers | None = None,
    known: Callable[[Key], Collection[str]] | None = None,
) -> Generator[EmbeddedBatch[Key]]:
    """Embed files in batches. Each file is read once: hashed and decoded from the same bytes.

    A bad file costs only itself: it is named in ``failures`` of its batch. Closing the generator early stops
    its threads. While it runs, numpy's matrix products keep to one thread.

    Args:
        model: What embeds.
        files: Any key and the file (or what else can be read) that it stands for; consumed at most two
            batches for each thread ahead, and one.
        crop: How these pictures are framed; None: as the model was trained.
        max_pixels: Larger pictures fail.
        threads: That read, decode and embed, 1 or more; None: one for each core. The model should have
            one thread of its own.
        processes: From 2,048 files on take processes in place of threads: they do not wait for each other.
            Forked where :func:`may_fork` allows it; else they need half a second to start,
            and, as :mod:`multiprocessing` has it, the program's main module must be safe to import. A model
            on a GPU stays with threads.
        workers: Who does it, from :func:`fork_workers` with this model, crop and limit; closed at the end.
        known: Of a key, SHA-256 sums (hex): where its file has one of them, it is ``spared``.

    Raises:
        InvalidArgumentError: no such number of threads.
        EmbeddingError: a process was ended from outside.
    """
    if threads is not None and threads < 1:
        raise InvalidArgumentError(
            f"threads must be 1 or more, not {threads}; leave it out for one each core"
        )
    count = threads or os.cpu_count() or 1
    begin = partial(_workers, model, count, crop=crop, max_pixels=max_pixels)
    return _embedded(begin, iter(files), processes=processes, workers=workers, known=known)


def _workers(model: Model, count: int, *, apart: bool, crop: Crop | None, max_pixels: int) -> Workers:
    if apart and count > 1 and model.provider == "CPUExecutionProvider":
        return ProcessEmbedder(model, count, crop=crop, max_pixels=max_pixels, forked=may_fork(model))
    return ThreadEmbedder(model, count, crop=crop, max_pixels=max_pixels)


def _embedded(
    begin: Callable[..., Workers],
    files: Iterator[tuple[Key, str | Path | Readable]],
    *,
    processes: bool,
    workers: Workers | None,
    known: Callable[[Key], Collection[str]] | None,
) -> Generator[EmbeddedBatch[Key]]:
    first = list(itertools.islice(files, PROCESSES_FROM)) if processes and workers is None else []
    at_work = workers or begin(apart=len(first) == PROCESSES_FROM)
    chunks = _chunks(itertools.chain(first, files))
    pending: deque[tuple[list[Key], Future[Batch]]] = deque()

    def submit(most: int) -> None:
        for chunk in itertools.islice(chunks, most):
            keys, some = [key for key, _ in chunk], [file for _, file in chunk]
            sums = None if known is None else [known(key) for key in keys]
            pending.append((keys, at_work.submit(some, sums)))

    # The threads among which BLAS shares a product wait for each other in a loop, on the cores that are meant
    # for the next pictures: on two cores that was a fifth of the whole rate.
    with threadpool_limits(limits=1, user_api="blas"), closing(at_work):
        submit(at_work.ahead)
        while pending:
            keys, future = pending.popleft()
            done = at_work.result(future)
            submit(1)
            yield EmbeddedBatch(
                [keys[row] for row in done.rows],
                done.facts,
                done.embeddings,
                [(keys[row], reason) for row, reason in done.failures],
                [(keys[row], facts) for row, facts in done.spared],
            )


def _chunks(
    files: Iterator[tuple[Key, str | Path | Readable]],
) -> Iterator[list[tuple[Key, str | Path | Readable]]]:
    while chunk := list(itertools.islice(files, _BATCH)):
        yield chunk
