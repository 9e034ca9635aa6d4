"""The images of a unit, one after the other, wherever they are: files, an archive, rows of a Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from lookalike.encoder.embed import FileInfo, Readable
from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.encoder.files import MAX_BYTES
from lookalike.indexer.sources import Refused, SourceFilter, as_path, as_text, read_members
from lookalike.indexer.units.folder import Folder, is_url
from lookalike.indexer.units.image_rows import read_image_rows
from lookalike.indexer.units.unit import Unit

_FETCHED_TOGETHER: Final = 16
"""Files of an object store that are fetched at once: each takes much longer to come than to embed."""


class UnitImage(NamedTuple):
    """An image of a unit: its path as it is stored, name of its root, person, and its name in messages."""

    path: str
    root: str
    person: str | None
    name: str


@dataclass(frozen=True, slots=True)
class _Bytes:
    """An image whose bytes are in memory; None: it has none."""

    name: str
    data: bytes | None
    mtime_ns: int

    def read(self) -> tuple[bytes, FileInfo]:
        """See :meth:`Readable.read`."""
        if self.data is None:
            raise OSError("there are no bytes")
        return self.data, FileInfo(hashlib.sha256(self.data).hexdigest(), len(self.data), self.mtime_ns)

    def __str__(self) -> str:
        return self.name


class UnitImages:
    """The images of one unit.

    Args:
        unit: The unit.
        address: Folder of its root, path or URL.
        chosen: Which of the images in an archive or Parquet file are taken.

    Attributes:
        failed: Name and reason of what failed so far.
    """

    def __init__(self, unit: Unit, address: str, chosen: SourceFilter) -> None:
        self._unit, self._filter = unit, chosen
        self._folder = Folder(address if is_url(address) else str(as_path(address)))
        self.failed: list[tuple[str, str]] = []

    def where(self, path: str) -> str:
        """Return the name of a path in messages."""
        return printable(self._folder.join(str(as_path(path))))

    def __iter__(self) -> Iterator[tuple[UnitImage, str | Readable]]:
        """Yield all images with what reads them.

        Raises:
            OSError: a file of an object store cannot be read at the moment.
        """
        match self._unit.kind:
            case "files":
                return self._files()
            case "tar":
                return self._archive()
            case "rows":
                return self._rows()
        raise InvalidArgumentError(f"a unit of kind {self._unit.kind!r} needs a later lookalike; upgrade")

    def _files(self) -> Iterator[tuple[UnitImage, str | Readable]]:
        if self._folder.local is not None:
            for file in self._unit.files:
                yield self._image(file.name), str(self._folder.local / as_path(file.name))
            return
        with ThreadPoolExecutor(_FETCHED_TOGETHER, thread_name_prefix="fetch") as pool:
            left = iter(self._unit.files)
            while some := list(islice(left, 4 * _FETCHED_TOGETHER)):
                for file, data in zip(some, pool.map(self._fetch, [each.name for each in some]), strict=True):
                    if data is None:
                        self.failed.append((self.where(file.name), f"{self.where(file.name)}: it is gone"))
                    else:
                        yield self._image(file.name), _Bytes(self.where(file.name), data, file.mtime_ns)

    def _fetch(self, name: str) -> bytes | None:
        try:
            return self._folder.read(name)
        except FileNotFoundError:
            return None

    def _archive(self) -> Iterator[tuple[UnitImage, str | Readable]]:
        (file,) = self._unit.files
        name = str(as_path(file.name))
        archive = PurePosixPath(name)
        try:
            for member, data in read_members(archive, self._folder.join(name), self._folder.open(name)):
                inside = as_text(member.name)
                image = self._image(f"{file.name}/{inside}", inside=inside)
                if not self._filter.accepts(image.path):
                    continue
                if isinstance(member, Refused):
                    self.failed.append((image.name, f"{image.name}: cannot be read ({member.reason})"))
                else:
                    yield image, _Bytes(image.name, data, member.mtime_ns)
        except DataError as error:  # damaged: what came before is good
            self.failed.append((self.where(file.name), str(error)))

    def _rows(self) -> Iterator[tuple[UnitImage, str | Readable]]:
        (file,) = self._unit.files
        try:
            for inside, data in read_image_rows(self._folder, str(as_path(file.name)), self._unit.group):
                image = self._image(
                    f"{file.name}/{as_text(inside)}", inside=as_text(inside).partition("/")[2]
                )
                if self._filter.accepts(image.path):
                    large = data is not None and len(data) > MAX_BYTES
                    yield image, _Bytes(image.name, None if large else data, file.mtime_ns)
        except DataError as error:
            self.failed.append((self.where(file.name), str(error)))

    def _image(self, path: str, *, inside: str | None = None) -> UnitImage:
        folders = (path if inside is None else inside).split("/")[:-1]
        person = self._filter.person_in(path, folders[-1] if folders else None)
        return UnitImage(path, self._unit.root, person, self.where(path))
