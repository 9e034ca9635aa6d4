"""Pictures in tar archives, as WebDataset's shards are: read where they lie, never unpacked."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lookalike.encoder.embed.batch import FileInfo
from lookalike.encoder.errors import DataError
from lookalike.encoder.images.discover import is_image
from lookalike.encoder.text import printable
from lookalike.indexer.sources.mnist import MnistImage, digit_at


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: The tar file.
        name: Its path in there, with ``/``.
        start: Where its bytes begin, in bytes.
        size: In bytes.
        mtime_ns: As the archive says.
    """

    archive: Path
    name: str
    start: int
    size: int
    mtime_ns: int

    def read(self) -> tuple[bytes, FileInfo]:
        """See :meth:`Readable.read`."""
        with self.archive.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError("the archive ends within it")
        return data, FileInfo(hashlib.sha256(data).hexdigest(), self.size, self.mtime_ns)

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


Contained = Member | MnistImage
"""A picture that is no file of its own."""


def located(file: Path) -> Path | Contained:
    """Return where a picture lies that is named as if an archive were a folder: there, or the file as it is.

    So it is with the digits of MNIST: ``indexer/sources/mnist.py``.

    Raises:
        FileNotFoundError: there is such an archive, but nothing of this name in it.
        DataError: the archive cannot be read.
    """
    if (digit := digit_at(file)) is not None:
        return digit
    for archive in file.parents:
        if is_archive(archive) and archive.is_file():
            name = file.relative_to(archive).as_posix()
            facts = archive.stat()
            found = _members(archive, facts.st_size, facts.st_mtime_ns).get(name)
            if found is None:
                raise FileNotFoundError(2, "not in its archive", str(file))
            return found
    return file


@lru_cache(maxsize=64)
def _members(archive: Path, _size: int, _mtime_ns: int) -> dict[str, Member]:
    """Remember the list of an archive as long as it does not change."""
    return {member.name: member for member in find_members(archive)}


def is_archive(file: Path) -> bool:
    """Whether a file is read as an archive: by its name."""
    return file.name.endswith(".tar")


def find_members(archive: Path) -> Iterator[Member]:
    """Yield the pictures of an archive in its order; of a name that is there twice, the last, as tar does.

    Raises:
        DataError: it cannot be read, or is compressed.
    """
    members: dict[str, Member] = {}
    try:
        with tarfile.open(archive, "r:") as tar:
            for info in tar:
                if info.isreg() and is_image(info.name):
                    name = info.name.removeprefix("./")
                    members[name] = Member(archive, name, info.offset_data, info.size, int(info.mtime * 1e9))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"an archive is a whole, uncompressed tar file, {printable(str(archive))} is not ({error}); "
            "unpack a compressed one with gunzip first, or fetch it again"
        ) from error
    yield from members.values()
