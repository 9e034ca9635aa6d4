"""Images in tar archives, such as WebDataset's shards: read in place, never unpacked."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lookalike.encoder.embed import FileInfo
from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.images import is_image
from lookalike.indexer.sources.mnist import MnistImage, digit_at


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: The tar file.
        name: Its path in the archive, with ``/``.
        start: Offset of its first byte in the archive.
        size: In bytes.
        mtime_ns: As stored in the archive.
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
            raise OSError("the archive ends inside it")
        return data, FileInfo(hashlib.sha256(data).hexdigest(), self.size, self.mtime_ns)

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


Contained = Member | MnistImage
"""An image inside another file."""


def located(file: Path) -> Path | Contained:
    """Return the image that a path names, where archives and MNIST's files are treated as folders.

    Raises:
        FileNotFoundError: there is such an archive, but no such file in it.
        DataError: the archive cannot be read.
    """
    if (digit := digit_at(file)) is not None:
        return digit
    for archive in file.parents:
        if is_archive(archive) and archive.is_file():
            name = file.relative_to(archive).as_posix()
            status = archive.stat()
            member = _members(archive, status.st_size, status.st_mtime_ns).get(name)
            if member is None:
                raise FileNotFoundError(2, "not in its archive", str(file))
            return member
    return file


@lru_cache(maxsize=64)
def _members(archive: Path, _size: int, _mtime_ns: int) -> dict[str, Member]:
    """Return the images of an archive, cached as long as its size and time do not change."""
    return {member.name: member for member in find_members(archive)}


def is_archive(file: Path) -> bool:
    """Whether a file is read as an archive, by its name."""
    return file.name.endswith(".tar")


def find_members(archive: Path) -> Iterator[Member]:
    """Yield the images of an archive in its order; of a name that occurs twice, the last, as tar does.

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
