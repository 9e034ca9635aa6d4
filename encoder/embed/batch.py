"""Read, decode and embed a batch of files, on one thread or in one process.

Legend: n images in a batch, E embedding size.
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
from lookalike.encoder.images import Crop, read_pixels
from lookalike.encoder.runtime import Model
from lookalike.encoder.text import printable

_MAX_BYTES: Final = 1 << 30  # three times an image of the default pixel limit with 16 bits a channel
_PIECE: Final = 1 << 20
_OPEN_FLAGS: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""O_NONBLOCK: opening a pipe that replaced a file must not wait for a writer."""


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
    """

    rows: list[int]
    facts: list[FileInfo]
    embeddings: NDArray[np.float32]
    failures: list[tuple[int, str]]
    skipped: list[tuple[int, FileInfo]]


def embed_batch(
    model: Model,
    files: Sequence[str | Path | Readable],
    *,
    crop: Crop | None,
    max_pixels: int,
    known_hashes: Sequence[Collection[str]] | None = None,
) -> Batch:
    """Read, decode and embed some files.

    Decoding and inference both release the interpreter's lock, so as many threads (or processes) as cores
    keep every core busy, whichever of the two costs more.

    Args:
        model: The model.
        files: Each is read once.
        crop: Replaces the model's crop.
        max_pixels: Larger images fail.
        known_hashes: SHA-256 sums (hex) for each file; a file that has one of its sums is skipped.
    """
    image = model.bundle.spec.image
    rows: list[int] = []
    facts: list[FileInfo] = []
    failures: list[tuple[int, str]] = []
    skipped: list[tuple[int, FileInfo]] = []
    pixels = np.empty((len(files), *image.shape), np.uint8)
    for row, file in enumerate(files):
        try:
            data, info = read_file(file) if isinstance(file, str | Path) else file.read()
            if known_hashes is not None and info.sha256 in known_hashes[row]:
                skipped.append((row, info))
                continue
            pixels[len(rows)] = read_pixels(data, image, crop=crop, max_pixels=max_pixels, name=str(file))
        except ImageError as error:
            failures.append((row, str(error)))
        except OSError as error:
            failures.append((row, f"{printable(str(file))}: cannot be read ({error.strerror or error})"))
        else:
            rows.append(row)
            facts.append(info)
    return Batch(rows, facts, model.embed(pixels[: len(rows)]), failures, skipped)


def read_file(path: str | Path) -> tuple[bytes, FileInfo]:
    """Return the bytes of a file and its file info.

    Raises:
        OSError: It cannot be read, is not a regular file, or holds more than 1 GiB.
    """
    # Checked before it is opened, as a device never ends, and after, as it may have been replaced.
    _check_regular(os.stat(path))  # noqa: PTH116  # may be text
    number = os.open(path, _OPEN_FLAGS)
    try:
        status = os.fstat(number)
        _check_regular(status)
        if status.st_size > _MAX_BYTES:
            raise OSError(f"{status.st_size} bytes are more than {_MAX_BYTES}")
        data = _read_whole(number, status.st_size)
    finally:
        os.close(number)
    return data, FileInfo(hashlib.sha256(data).hexdigest(), len(data), status.st_mtime_ns)


def file_info(file: str | Path | Readable) -> FileInfo | None:
    """Return the file info; None for a file that cannot be read."""
    try:
        return (read_file(file) if isinstance(file, str | Path) else file.read())[1]
    except OSError:
        return None


def _read_whole(number: int, size: int) -> bytes:
    """Read an open file of about this size to its end, usually in one call."""
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
