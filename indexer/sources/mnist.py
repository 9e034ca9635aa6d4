"""Digits of MNIST as images: read from the data set's four files in place, never unpacked.

A digit is called ``test/00042.pgm`` below the folder of the four files, by its split and its number in that,
from 0. It is read as a PGM file, made from its pixels without loss.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, cast

from lookalike.encoder.datasets import CLASSES, MNIST, SIDE, Split
from lookalike.encoder.embed import FileInfo
from lookalike.encoder.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HEADER: Final = f"P5\n{SIDE} {SIDE}\n255\n".encode()
"""Header of a PGM file (netpbm): nothing is read faster; making a PNG file takes longer than reading it."""
_NAME: Final = re.compile(r"(?P<split>train|test)/(?P<number>[0-9]{5,})\.pgm")


@dataclass(frozen=True, slots=True)
class MnistImage:
    """A digit of MNIST.

    Attributes:
        folder: Folder of the four files.
        split: ``train`` or ``test``.
        number: Its index in the split, from 0.
        mtime_ns: Time of the file of images.
        size: Size as a PGM file, in bytes.
    """

    folder: Path
    split: Split
    number: int
    mtime_ns: int
    size: ClassVar[int] = len(_HEADER) + SIDE * SIDE

    @property
    def name(self) -> str:
        """Its path below the folder, with ``/``."""
        return f"{self.split}/{self.number:05d}.pgm"

    def read(self) -> tuple[bytes, FileInfo]:
        """See :meth:`Readable.read`."""
        try:
            images = _images(self.folder, self.split, self.mtime_ns)
        except DataError as error:
            raise OSError(str(error)) from error
        if self.number >= len(images):
            raise OSError("its file has become shorter")
        data = _HEADER + images[self.number].tobytes()
        return data, FileInfo(hashlib.sha256(data).hexdigest(), len(data), self.mtime_ns)

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


def find_mnist_images(folder: Path, splits: Sequence[Split]) -> Iterator[tuple[MnistImage, str]]:
    """Yield the digits of splits in their order, each with its label, ``"0"`` to ``"9"``.

    Raises:
        DataError: a file is missing or malformed.
    """
    data = MNIST(folder)
    for split in splits:
        mtime_ns = _mtime_ns(data, split)
        _images(folder, split, mtime_ns)  # a malformed file fails here once, not for each digit
        for number, label in enumerate(data.labels(split)):
            yield MnistImage(folder, split, number, mtime_ns), CLASSES[label]


def digit_at(file: Path) -> MnistImage | None:
    """Return the digit that a path names, with its split as the folder; None: the path names no digit.

    Raises:
        FileNotFoundError: the split exists, but has no such number.
        DataError: the images cannot be read.
    """
    match = _NAME.fullmatch("/".join(file.parts[-2:]))
    if match is None:
        return None
    split, data = cast("Split", match["split"]), MNIST(file.parent.parent)
    if file.exists() or not data.images_file(split).is_file():
        return None
    digit = MnistImage(data.folder, split, int(match["number"]), _mtime_ns(data, split))
    count = len(_images(data.folder, split, digit.mtime_ns))
    if digit.number >= count or digit.name != f"{split}/{file.name}":
        raise FileNotFoundError(2, "not in its data set", str(file))
    return digit


def _mtime_ns(data: MNIST, split: Split) -> int:
    file = data.images_file(split)
    try:
        return file.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{file} must be a readable IDX file, but: {error}; fetch it again") from error


@lru_cache(maxsize=2)
def _images(folder: Path, split: Split, _mtime_ns: int) -> NDArray[np.uint8]:
    """Return the images of a split, uint8 (N, 28, 28), cached as long as their file does not change."""
    return MNIST(folder).images(split)
