"""A chunk of files: read, decoded and embedded in one go, on whatever thread or process.

Legend: n images in a chunk, E embedding size.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import ImageError
from lookalike.encoder.images.preprocess import Crop, read_pixels
from lookalike.encoder.runtime.model import Model
from lookalike.encoder.text import printable

_MOST_BYTES: Final = 1 << 30  # a picture of the default pixel limit at 16 bits a channel has a third of this
_PIECE: Final = 1 << 20
_AT_ONCE: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Where a pipe has taken a file's place, nobody waits for somebody to write into it."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What was true of a file when its bytes were read: SHA-256 (hex), size in bytes, mtime in ns."""

    sha256: str
    size: int
    mtime_ns: int


class Readable(Protocol):
    """What a picture's bytes come from, when it is no file of its own. It can be pickled."""

    def read(self) -> tuple[bytes, FileInfo]:
        """Return the bytes and what was true of them; called once, on a thread or in another process.

        Raises:
            OSError: they cannot be had; its text says why.
        """
        ...

    def __str__(self) -> str:
        """Its name in messages."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of a chunk's files.

    Attributes:
        rows: n places of the files that could be read, in order.
        facts: n facts.
        embeddings: float32 (n, E), unit length.
        failures: Place and one-line reason of each file that could not.
        spared: Place and facts of each file whose content was known; it was not decoded.
    """

    rows: list[int]
    facts: list[FileInfo]
    embeddings: NDArray[np.float32]
    failures: list[tuple[int, str]]
    spared: list[tuple[int, FileInfo]]


def embed_batch(
    model: Model,
    files: Sequence[str | Path | Readable],
    *,
    crop: Crop | None,
    max_pixels: int,
    known: Sequence[Collection[str]] | None = None,
) -> Batch:
    """Read, decode and embed some files.

    All of it in one place: decoding and inference both let go of the interpreter's lock, so as many threads
    (or processes) as cores keep every core busy, whichever of the two costs more.

    Args:
        model: What embeds.
        files: Each is read once.
        crop: How they are framed; None: as the model was trained.
        max_pixels: Larger pictures fail.
        known: Of each file SHA-256 sums (hex): where it has one of them, it is spared.
    """
    image = model.bundle.spec.image
    rows: list[int] = []
    facts: list[FileInfo] = []
    failures: list[tuple[int, str]] = []
    spared: list[tuple[int, FileInfo]] = []
    pixels = np.empty((len(files), *image.shape), np.uint8)
    for row, file in enumerate(files):
        try:
            data, found = read_file(file) if isinstance(file, str | Path) else file.read()
            if known is not None and found.sha256 in known[row]:
                spared.append((row, found))
                continue
            pixels[len(rows)] = read_pixels(data, image, crop=crop, max_pixels=max_pixels, name=str(file))
        except ImageError as error:
            failures.append((row, str(error)))
        except OSError as error:
            failures.append((row, f"{printable(str(file))}: cannot be read ({error.strerror or error})"))
        else:
            rows.append(row)
            facts.append(found)
    return Batch(rows, facts, model.embed(pixels[: len(rows)]), failures, spared)


def read_file(path: str | Path) -> tuple[bytes, FileInfo]:
    """Return a file's bytes and what was true of it.

    Raises:
        OSError: it cannot be read, is no file, or holds more than 1 GiB.
    """
    # Looked at before it is opened, as a device never ends, and after, as another may have taken its place.
    _check_regular(os.stat(path))  # noqa: PTH116  # may be text
    number = os.open(path, _AT_ONCE)
    try:
        status = os.fstat(number)
        _check_regular(status)
        if status.st_size > _MOST_BYTES:
            raise OSError(f"{status.st_size} bytes are more than {_MOST_BYTES}")
        data = _read_whole(number, status.st_size)
    finally:
        os.close(number)
    return data, FileInfo(hashlib.sha256(data).hexdigest(), len(data), status.st_mtime_ns)


def file_info(file: str | Path | Readable) -> FileInfo | None:
    """Return what is true of a file; None of one that cannot be read."""
    try:
        return (read_file(file) if isinstance(file, str | Path) else file.read())[1]
    except OSError:
        return None


def _read_whole(number: int, size: int) -> bytes:
    """Read an open file of about this size to its end, most often in one call."""
    data = os.read(number, size + 1)
    if len(data) == size:
        return data
    pieces = [data]
    while pieces[-1]:
        pieces.append(os.read(number, _PIECE))
    return b"".join(pieces)


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a file")
