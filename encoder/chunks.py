"""A chunk of files: read, decoded and embedded in one go, on whatever thread or process.

Legend: n images in a chunk, E embedding size.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.errors import ImageError
from encoder.images import Crop, read_pixels, shown
from encoder.model import Model

__all__ = ["Chunk", "FileFacts", "Readable", "embed_chunk", "read_file"]

_MOST_BYTES: Final = 1 << 30  # a picture of the default pixel limit at 16 bits a channel has a third of this


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What was true of a file when its bytes were read: SHA-256 (hex), size in bytes, mtime in ns."""

    sha256: str
    size: int
    mtime_ns: int


class Readable(Protocol):
    """What a picture's bytes come from, when it is no file of its own. It can be pickled."""

    def read(self) -> tuple[bytes, FileFacts]:
        """Return the bytes and what was true of them; called once, on a thread or in another process.

        Raises:
            OSError: they cannot be had; its text says why.
        """
        ...

    def __str__(self) -> str:
        """Its name in messages."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """What became of a chunk's files.

    Attributes:
        rows: n places of the files that could be read, in order.
        facts: n facts.
        embeddings: float32 (n, E), unit length.
        failures: Place and one-line reason of each file that could not.
    """

    rows: list[int]
    facts: list[FileFacts]
    embeddings: NDArray[np.float32]
    failures: list[tuple[int, str]]


def embed_chunk(
    model: Model, files: Sequence[Path | Readable], *, crop: Crop | None, max_pixels: int
) -> Chunk:
    """Read, decode and embed some files.

    All of it in one place: decoding and inference both let go of the interpreter's lock, so as many threads
    (or processes) as cores keep every core busy, whichever of the two costs more.
    """
    image = model.bundle.spec.image
    rows: list[int] = []
    facts: list[FileFacts] = []
    failures: list[tuple[int, str]] = []
    pixels = np.empty((len(files), *image.shape), np.uint8)
    for row, file in enumerate(files):
        try:
            data, found = read_file(file) if isinstance(file, Path) else file.read()
            pixels[len(rows)] = read_pixels(data, image, crop=crop, max_pixels=max_pixels, name=str(file))
        except ImageError as error:
            failures.append((row, str(error)))
        except OSError as error:
            failures.append((row, f"{shown(str(file))}: cannot be read ({error.strerror or error})"))
        else:
            rows.append(row)
            facts.append(found)
    return Chunk(rows, facts, model.embed(pixels[: len(rows)]), failures)


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
