"""MNIST: 70,000 handwritten digits of 28 x 28 px, 60,000 for training and 10,000 for testing.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-Based Learning Applied to Document Recognition.
Proceedings of the IEEE 86(11), 1998. The digits are white on black.

The four files are in the IDX format, as published or gzipped: two zero bytes, the data type (8: uint8), the
number of dimensions, the size of each as a big-endian uint32, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import os
import shutil
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, final

from lookalike.encoder.datasets.download import RemoteFile, cache_folder, fetch, only_one
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.files import MAX_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Split = Literal["train", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "test")
CLASSES: Final = tuple("0123456789")
SIDE: Final = 28
"""Height and width of a digit in pixels."""

_STEMS: Final[dict[Split, str]] = {"train": "train", "test": "t10k"}
_UBYTE: Final = 8
_MIRRORS: Final = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
_BROKEN: Final = (OSError, EOFError, zlib.error)  # raised for a damaged or missing file


# MD5 of the packed files as in torchvision's datasets/mnist.py.
_MD5: Final = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
FILES = tuple(
    RemoteFile(name=f"{name}.gz", urls=tuple(f"{base}/{name}.gz" for base in _MIRRORS), md5=md5)
    for name, md5 in _MD5.items()
)


@final
@dataclass(frozen=True)
class MNIST:
    """The data set in a folder. Files are read when needed, and nothing is kept.

    Args:
        folder: Holds the four files, plain or gzipped (`.gz`).
    """

    folder: Path

    def images(self, split: Split) -> NDArray[np.uint8]:
        """Return the digits of a split, a new `uint8 (N, 28, 28)`, 0 black to 255 white.

        Raises:
            DataError: The file is missing or malformed, or the number of labels differs.
            InvalidArgumentError: No such split.
        """
        images = _read(self.images_file(split), 3)
        if not images.size or images.shape[1:] != (SIDE, SIDE):
            raise _malformed(
                self.images_file(split), f"hold digits of {SIDE}x{SIDE} pixels", _sizes(images.shape)
            )
        return self._matched(split, images)

    def labels(self, split: Split) -> NDArray[np.uint8]:
        """Return the labels of a split, in the order of `images`: `uint8 (N,)` of 0 to 9.

        Raises:
            DataError: The file is missing or malformed, or the number of images differs.
            InvalidArgumentError: No such split.
        """
        labels = _read(self.labels_file(split), 1)
        if labels.size and labels.max() >= len(CLASSES):
            raise _malformed(self.labels_file(split), "hold labels of 0 to 9", str(labels.max()))
        return self._matched(split, labels)

    def images_file(self, split: Split) -> Path:
        """Return the images file of a split; the gzipped one if there is no plain one.

        Raises:
            InvalidArgumentError: No such split.
        """
        return _plain_or_packed(self.folder / f"{_stem(split)}-images-idx3-ubyte")

    def labels_file(self, split: Split) -> Path:
        """Return the labels file of a split, like `images_file`."""
        return _plain_or_packed(self.folder / f"{_stem(split)}-labels-idx1-ubyte")

    def _matched(self, split: Split, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the values, if the headers of both files of the split give the same number."""
        images, labels = _header(self.images_file(split), 3)[0], _header(self.labels_file(split), 1)[0]
        if images != labels:
            raise _malformed(
                self.labels_file(split), f"hold a label for each of {images} images", str(labels)
            )
        return values


def find_mnist(*, download: bool = True, progress: bool = False) -> MNIST:
    """Find MNIST at `$LOOKALIKE_DATA/MNIST/raw` or in the cache, else download it there (11 MB).

    Args:
        download: Download it if it is not found.
        progress: Show bars on stderr, if that is a terminal.

    Raises:
        DataError: It is not found and cannot be downloaded; says what was tried.
    """
    data, inside = os.environ.get("LOOKALIKE_DATA"), Path("MNIST") / "raw"
    cache = cache_folder() / inside
    places = [Path(data).expanduser() / inside, cache] if data else [cache]
    for place in places:
        if not _missing(place):
            return MNIST(place)
    failed = "downloading is off"
    if download:
        try:
            return _download(cache, progress=progress)
        except DataError as error:
            failed = str(error)
    missing = "; ".join(f"{place} lacks {', '.join(_missing(place))}" for place in places)
    raise DataError(
        f"MNIST must lie at {' or '.join(map(str, places))} as four IDX files, but {missing}, and {failed}; "
        "or set LOOKALIKE_DATA to the folder that holds MNIST/raw/"
    )


def _download(folder: Path, *, progress: bool) -> MNIST:
    with only_one(folder):
        for file in FILES:
            if file.name.removesuffix(".gz") in _missing(folder):
                fetch(file, folder, progress=progress)
            if (packed := folder / file.name).is_file():
                _unpack(packed, packed.with_suffix(""))
    return MNIST(folder)


def _unpack(packed: Path, path: Path) -> None:
    """Unpack a gzip file; `path` appears by one rename, then the gzip file is removed."""
    staging = path.with_name(f".{path.name}.unpacking")
    try:
        with gzip.open(packed) as source, staging.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        staging.replace(path)
        packed.unlink()
    except _BROKEN as error:
        with suppress(OSError):
            staging.unlink()
        raise DataError(
            f"{packed} must be a gzip file that unpacks beside it, but: {error}; "
            "remove it to fetch it again, or make room"
        ) from error


def _missing(folder: Path) -> list[str]:
    """Return the names of the files that exist neither plain nor gzipped."""
    names = [file.name.removesuffix(".gz") for file in FILES]
    return [name for name in names if not _plain_or_packed(folder / name).is_file()]


def _plain_or_packed(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def _stem(split: Split) -> str:
    if split not in _STEMS:
        raise InvalidArgumentError(f"the split of MNIST must be 'train' or 'test', not {split!r}")
    return _STEMS[split]


def _opened(path: Path) -> gzip.GzipFile | BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _header(path: Path, dimensions: int) -> tuple[int, ...]:
    """Return the sizes in the header of a uint8 IDX file."""
    try:
        with _opened(path) as file:
            return _sizes_in(file.read(4 + 4 * dimensions), path, dimensions)
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _sizes_in(header: bytes, path: Path, dimensions: int) -> tuple[int, ...]:
    magic = bytes([0, 0, _UBYTE, dimensions])
    if header[:4] != magic or len(header) < 4 + 4 * dimensions:
        raise _malformed(
            path,
            f"be an IDX file that begins with {magic.hex()} and {dimensions} sizes",
            header.hex() or "empty",
        )
    return struct.unpack(f">{dimensions}I", header[4:])


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a uint8 IDX file with this number of dimensions."""
    import numpy as np

    try:
        with _opened(path) as file:
            shape = _sizes_in(file.read(4 + 4 * dimensions), path, dimensions)
            content = bytearray(file.read(MAX_BYTES))  # it may unpack to more
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    values = np.frombuffer(content, np.uint8)
    if len(values) != math.prod(shape):
        raise _malformed(path, f"hold {_sizes(shape)} bytes behind its header", str(len(values)))
    return values.reshape(shape)


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _unreadable(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} must be a readable IDX file, but: {error}; fetch it again")


def _malformed(path: Path, rule: str, value: str) -> DataError:
    return DataError(f"{path} must {rule}, not {value}; fetch the file again")
