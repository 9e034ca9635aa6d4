"""Images in tar archives, such as WebDataset's shards: read in place, never unpacked."""

from __future__ import annotations

import hashlib
import io
import math
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from typing import ClassVar, Final

from lookalike.encoder.embed import FileInfo
from lookalike.encoder.errors import DataError, printable
from lookalike.encoder.files import MAX_BYTES
from lookalike.encoder.images import is_image
from lookalike.indexer.sources.mnist import MnistImage, digit_at

_LATEST: Final = 2**63
_LARGEST_HEADER: Final = 1 << 20
_READ_AHEAD: Final = 4 << 20


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


@dataclass(frozen=True, slots=True)
class Refused:
    """An image that is named and must not be read: each run tells why.

    Attributes:
        name: What it is called, never a path that leads anywhere else.
        reason: In a few words.
    """

    name: str
    reason: str
    size: ClassVar[int] = 0
    mtime_ns: ClassVar[int] = 0

    def read(self) -> tuple[bytes, FileInfo]:
        """Raise OSError with the reason."""
        raise OSError(self.reason)

    def __str__(self) -> str:
        return self.name


Contained = Member | MnistImage | Refused
"""An image inside another file, or one that is refused."""


def located(file: Path) -> Path | Contained:
    """Return the image that a path names, where archives and MNIST's files are treated as folders.

    Raises:
        FileNotFoundError: there is such an archive, but no such file in it.
        DataError: the archive cannot be read.
    """
    if (digit := digit_at(file)) is not None:
        return digit
    for archive in file.parents if _names_archive(file.parent) else ():
        if is_archive(archive) and archive.is_file():
            name = file.relative_to(archive).as_posix()
            status = archive.stat()
            member = _members(archive, status.st_size, status.st_mtime_ns).get(name)
            if member is None:
                raise FileNotFoundError(2, "not in its archive", str(file))
            return member
    return file


@lru_cache(maxsize=1024)
def _names_archive(folder: Path) -> bool:
    """Whether a folder or one above it is called like an archive; cached, as an item's neighbors ask too."""
    return any(map(is_archive, (folder, *folder.parents)))


@lru_cache(maxsize=64)
def _members(archive: Path, _size: int, _mtime_ns: int) -> dict[str, Member]:
    """Return the images of an archive, cached as long as its size and time do not change."""
    return {member.name: member for member in find_members(archive) if isinstance(member, Member)}


def is_archive(file: Path) -> bool:
    """Whether a file is read as an archive, by its name."""
    return file.name.lower().endswith(".tar")


def find_members(archive: Path) -> Iterator[Member | Refused]:
    """Yield the images of an archive in its order; of a name that occurs twice, the last, as tar does.

    A member that leads out of the archive (``/etc/a.jpg``, ``../a.jpg``), is sparse, too large, or has no
    possible time is refused.

    Raises:
        DataError: it cannot be read, or is compressed.
    """
    members: dict[str, Member | Refused] = {}
    with _read(str(archive)), _Headers(io.FileIO(archive)) as file:
        for member in _headers(archive, file):
            members[member.name] = member
    yield from members.values()


def read_members(
    archive: PurePath, name: str, file: io.RawIOBase
) -> Iterator[tuple[Member | Refused, bytes]]:
    """Yield the images of an archive in its order, and their bytes, in one pass; see :func:`find_members`.

    A name that occurs twice comes twice, and the last counts. A refused member has no bytes.

    Args:
        archive: Its path, of which the members are told.
        name: What it is called in messages.
        file: It, opened; it is read forward, in large pieces, and closed.

    Raises:
        DataError: it is damaged, or compressed; what came before is good.
        OSError: it cannot be read.
    """
    with _read(name, but=OSError), _Headers(file, _READ_AHEAD) as opened:
        for member in _headers(archive, opened):
            if isinstance(member, Refused):
                yield member, b""
                continue
            opened.seek(member.start)
            data = io.BufferedReader.read(opened, member.size)
            if len(data) < member.size:
                raise tarfile.ReadError("the archive ends inside a member")
            yield member, data


def _headers(archive: PurePath, file: _Headers) -> Iterator[Member | Refused]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        end = -1
        for info in tar:
            if info.offset_data <= end:  # a negative size: read on, it would never end
                raise tarfile.ReadError(f"{printable(info.name)} lies before the member ahead of it")
            end = info.offset_data
            if info.isreg() and is_image(info.name):
                yield _member(archive, info)
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep the header of each
        file.seek(tar.offset)  # tarfile takes what is no header for the end
        if io.BufferedReader.read(file, tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {tar.offset}, where a member or the end should be")


@contextmanager
def _read(name: str, *, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn what damaged archives raise into a DataError, ``but`` for what says nothing of their content."""
    try:
        yield
    except but:
        raise
    except RecursionError:
        raise _unreadable(name, "headers of headers of headers") from None
    except (tarfile.TarError, OSError, EOFError, ValueError, ArithmeticError, LookupError) as error:
        raise _unreadable(name, str(error)) from error  # the last three: damaged extended headers


def _member(archive: PurePath, info: tarfile.TarInfo) -> Member | Refused:
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts or "\0" in info.name:
        name = info.name.replace("/", "%2F").replace("\0", "%00")
        hidden = name.startswith(".")  # the name that is shown must not look hidden
        return Refused(f"%2E{name[1:]}" if hidden else name, "its name leads out of the archive")
    name, time = path.as_posix(), info.mtime * 1e9
    if not (math.isfinite(time) and abs(time) < _LATEST):
        return Refused(name, f"its time is {info.mtime} seconds, which no file has")
    if info.issparse():
        return Refused(name, "it is stored as a sparse file; pack the archive again without --sparse")
    if not 0 <= info.size <= MAX_BYTES:
        return Refused(name, f"{info.size} bytes are more than {MAX_BYTES}")
    return Member(Path(archive), name, info.offset_data, info.size, int(time))


def _unreadable(archive: str, reason: str) -> DataError:
    return DataError(
        f"an archive is a whole, uncompressed tar file, {printable(archive)} is not "
        f"({printable(reason)}); unpack a compressed one with gunzip first, or fetch it again"
    )


class _Headers(io.BufferedReader):
    """An archive of which only headers are read: one that says it is larger than any is refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes.

        Raises:
            tarfile.ReadError: no header is so large.
        """
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)
