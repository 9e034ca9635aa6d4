"""Embed files on every core, ahead of the consumer, in order and in bounded memory.

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

from lookalike.encoder.detect import Face, Framing
from lookalike.encoder.embed.processes import may_fork
from lookalike.encoder.embed.workers import (
    Batch,
    FileInfo,
    ProcessEmbedder,
    Readable,
    ThreadEmbedder,
    Workers,
)
from lookalike.encoder.errors import InvalidArgumentError
from lookalike.encoder.runtime import Model

Key = TypeVar("Key")
_BATCH: Final = 128
PROCESSES_FROM: Final = 2048
"""Number of images from which processes replace threads, if allowed."""


@dataclass(frozen=True, slots=True)
class EmbeddedBatch(Generic[Key]):
    """One batch, in the order of the input.

    Attributes:
        keys: n keys of the embedded files.
        facts: n file infos.
        embeddings: float32 (n, E), unit length.
        failures: Key and one-line reason of each file that failed.
        skipped: Key and file info of each file with a known hash; it was not embedded.
        faces: The n lists of faces, where faces are embedded: ``embeddings`` then has a row for each face.
    """

    keys: list[Key]
    facts: list[FileInfo]
    embeddings: NDArray[np.float32]
    failures: list[tuple[Key, str]]
    skipped: list[tuple[Key, FileInfo]] = field(default_factory=list)
    faces: list[list[Face]] | None = None


def fork_workers(
    model: Model, *, crop: Framing | None = None, max_pixels: int | None = None
) -> Workers | None:
    """Fork one embedding process for each core, where that is safe; see :class:`ProcessEmbedder`.

    For a caller with many images that is about to start threads (opening an embedded store does). Close them,
    or give them to :func:`embed_files`.

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
    crop: Framing | None = None,
    max_pixels: int | None = None,
    threads: int | None = None,
    processes: bool = False,
    workers: Workers | None = None,
    batch: int | None = None,
    known_hashes: Callable[[Key], Collection[str]] | None = None,
) -> Generator[EmbeddedBatch[Key]]:
    """Embed files in batches. Each file is read once: hashed and decoded from the same bytes.

    A file that cannot be read is listed in ``failures`` of its batch. Closing the generator early stops its
    workers. While it runs, numpy's matrix products use one thread.

    Args:
        model: The model.
        files: Any key and its file (or other readable source); consumed at most two batches for each thread
            ahead, and one.
        crop: Replaces the model's crop; with ``Faces`` each face of a file is embedded.
        max_pixels: Larger images fail; None: the default limit.
        threads: Number of workers, 1 or more; None for one on each core. The model should have one thread
            of its own.
        processes: Use processes instead of threads from 2,048 files on: they do not wait for each other. They
            are forked where :func:`may_fork` allows it; else they take half a second to start, and the
            program's main module must be safe to import (see :mod:`multiprocessing`). A model on a GPU always
            uses threads.
        workers: From :func:`fork_workers` with this model, crop and limit; closed at the end.
        batch: Number of files in a batch; None: 128.
        known_hashes: Returns the SHA-256 sums (hex) for a key; a file that has one of them is ``skipped``.

    Raises:
        InvalidArgumentError: An invalid number of threads.
        WorkerDiedError: A process was killed.
    """
    if threads is not None and threads < 1:
        raise InvalidArgumentError(
            f"threads must be 1 or more, not {threads}; leave it out for one on each core"
        )
    count = threads or os.cpu_count() or 1
    begin = partial(_workers, model, count, crop=crop, max_pixels=max_pixels)
    return _embedded(
        begin,
        iter(files),
        processes=processes,
        workers=workers,
        size=batch or _BATCH,
        known_hashes=known_hashes,
    )


def _workers(
    model: Model, count: int, *, processes: bool, crop: Framing | None, max_pixels: int | None
) -> Workers:
    if processes and count > 1 and model.provider == "CPUExecutionProvider":
        return ProcessEmbedder(model, count, crop=crop, max_pixels=max_pixels, forked=may_fork(model))
    return ThreadEmbedder(model, count, crop=crop, max_pixels=max_pixels)


def _embedded(
    begin: Callable[..., Workers],
    files: Iterator[tuple[Key, str | Path | Readable]],
    *,
    processes: bool,
    workers: Workers | None,
    size: int,
    known_hashes: Callable[[Key], Collection[str]] | None,
) -> Generator[EmbeddedBatch[Key]]:
    first = list(itertools.islice(files, PROCESSES_FROM)) if processes and workers is None else []
    pool = workers or begin(processes=len(first) == PROCESSES_FROM)
    batches = _batches(itertools.chain(first, files), size)
    pending: deque[tuple[list[Key], Future[Batch]]] = deque()

    def submit(count: int) -> None:
        for batch in itertools.islice(batches, count):
            keys, some = [key for key, _ in batch], [file for _, file in batch]
            hashes = None if known_hashes is None else [known_hashes(key) for key in keys]
            pending.append((keys, pool.submit(some, hashes)))

    # BLAS threads wait for each other in a loop, on cores that the next images need: on two cores that cost a
    # fifth of the throughput.
    with threadpool_limits(limits=1, user_api="blas"), closing(pool):
        submit(pool.prefetch)
        while pending:
            keys, future = pending.popleft()
            done = pool.result(future)
            submit(1)
            yield EmbeddedBatch(
                [keys[row] for row in done.rows],
                done.facts,
                done.embeddings,
                [(keys[row], reason) for row, reason in done.failures],
                [(keys[row], facts) for row, facts in done.skipped],
                done.faces,
            )


def _batches(
    files: Iterator[tuple[Key, str | Path | Readable]], size: int
) -> Iterator[list[tuple[Key, str | Path | Readable]]]:
    while batch := list(itertools.islice(files, size)):
        yield batch
