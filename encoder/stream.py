"""Files to embeddings: read, decoded and embedded ahead on threads, in order, in bounded memory.

Legend: n images in a batch, E embedding size.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.errors import ImageError, OptionError
from encoder.images import DEFAULT_MAX_PIXELS, Crop, read_pixels, shown
from encoder.model import Model

__all__ = ["Embedded", "FileFacts", "Readable", "embed_files", "read_file"]

Key = TypeVar("Key")
_BATCH: Final = 128
_MOST_BYTES: Final = 1 << 30  # a picture of the default pixel limit at 16 bits a channel has a third of this


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What was true of a file when its bytes were read: SHA-256 (hex), size in bytes, mtime in ns."""

    sha256: str
    size: int
    mtime_ns: int


class Readable(Protocol):
    """What a picture's bytes come from, when it is no file of its own."""

    def read(self) -> tuple[bytes, FileFacts]:
        """Return the bytes and what was true of them; called once, on a thread.

        Raises:
            OSError: they cannot be had; its text says why.
        """
        ...

    def __str__(self) -> str:
        """Its name in messages."""
        ...


@dataclass(frozen=True, slots=True)
class Embedded(Generic[Key]):
    """One batch, in the order of the input.

    Attributes:
        keys: n keys of the files that could be read.
        facts: n facts.
        embeddings: float32 (n, E), unit length.
        failures: Key and one-line reason of each file that could not.
    """

    keys: list[Key]
    facts: list[FileFacts]
    embeddings: NDArray[np.float32]
    failures: list[tuple[Key, str]]


def embed_files(
    model: Model,
    files: Iterable[tuple[Key, Path | Readable]],
    *,
    crop: Crop | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    threads: int | None = None,
) -> Generator[Embedded[Key]]:
    """Embed files in batches. Each file is read once: hashed and decoded from the same bytes.

    A bad file costs only itself: it is named in ``failures`` of its batch. Closing the generator early stops
    its threads.

    Args:
        model: What embeds.
        files: Any key and the file (or what else can be read) that it stands for; consumed at most two
            batches for each thread ahead.
        crop: How these pictures are framed; None: as the model was trained.
        max_pixels: Larger pictures fail.
        threads: That read, decode and embed, 1 or more; None: one for each core. The model should have
            one thread of its own.

    Raises:
        OptionError: no such number of threads.
    """
    if threads is not None and threads < 1:
        raise OptionError(f"threads must be 1 or more, not {threads}; leave it out for one each core")
    return _embedded(model, files, crop, max_pixels, threads or os.cpu_count() or 1)


def _embedded(
    model: Model,
    files: Iterable[tuple[Key, Path | Readable]],
    crop: Crop | None,
    max_pixels: int,
    workers: int,
) -> Generator[Embedded[Key]]:
    image = model.bundle.spec.image

    def embed(chunk: Sequence[tuple[Key, Path | Readable]]) -> Embedded[Key]:
        # All of it on one thread: decoding and inference both let go of the interpreter's lock, so as many
        # threads as cores keep every core busy, whichever of the two costs more.
        done: Embedded[Key] = Embedded([], [], np.empty((0, 0), np.float32), [])
        pixels = np.empty((len(chunk), *image.shape), np.uint8)
        for key, path in chunk:
            try:
                data, facts = read_file(path) if isinstance(path, Path) else path.read()
                pixels[len(done.keys)] = read_pixels(
                    data, image, crop=crop, max_pixels=max_pixels, name=str(path)
                )
            except ImageError as error:
                done.failures.append((key, str(error)))
            except OSError as error:
                done.failures.append((key, f"{shown(str(path))}: cannot be read ({error.strerror or error})"))
            else:
                done.keys.append(key)
                done.facts.append(facts)
        return replace(done, embeddings=model.embed(pixels[: len(done.keys)]))

    chunks = _chunks(files)
    pending: deque[Future[Embedded[Key]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="embed")
    try:
        for chunk in itertools.islice(chunks, workers + 1):
            pending.append(pool.submit(embed, chunk))
        while pending:
            done = pending.popleft().result()
            for chunk in itertools.islice(chunks, 1):
                pending.append(pool.submit(embed, chunk))
            yield done
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(files: Iterable[tuple[Key, Path | Readable]]) -> Iterator[list[tuple[Key, Path | Readable]]]:
    source = iter(files)
    while chunk := list(itertools.islice(source, _BATCH)):
        yield chunk


def read_file(path: Path) -> tuple[bytes, FileFacts]:
    """Return a file's bytes and what was true of it.

    Raises:
        OSError: it cannot be read, is no file, or holds more than 1 GiB.
    """
    # Looked at before it is opened, as a device never ends, and after, as another may have taken its place.
    _check_regular(path.stat())
    with open(path, "rb", opener=_open_at_once) as file:  # Path.open takes no opener
        status = os.fstat(file.fileno())
        _check_regular(status)
        if status.st_size > _MOST_BYTES:
            raise OSError(f"{status.st_size} bytes are more than {_MOST_BYTES}")
        data = file.read()
    return data, FileFacts(hashlib.sha256(data).hexdigest(), len(data), status.st_mtime_ns)


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a file")


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; where a pipe has taken its place, do not wait for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
