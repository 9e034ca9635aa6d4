"""One unit to one part: what a worker process does, wherever it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np

from lookalike.encoder.detect import parse_framing
from lookalike.encoder.embed import FileInfo, Readable, embed_files, worker_model
from lookalike.encoder.errors import DataError, InvalidArgumentError, one_line, printable
from lookalike.encoder.files import MAX_BYTES
from lookalike.indexer.parquet import ROWS, LatentsFile, Rows, concatenate, regroup, rows_of, write_rows
from lookalike.indexer.parts.folder import Folder, is_url
from lookalike.indexer.parts.image_rows import read_image_rows
from lookalike.indexer.parts.unit import Done, Settings, Unit
from lookalike.indexer.sources import Refused, as_path, as_text, read_members
from lookalike.indexer.sync import drop_degenerate

_FETCHED_TOGETHER: Final = 16
"""Files of an object store that are fetched at once: each takes much longer to come than to embed."""


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """What all units of a run have in common; it can be pickled.

    Attributes:
        folder: The folder of parts.
        settings: As in the plan.
        model: Shipped name or folder of the model, on each machine that works.
    """

    folder: Folder
    settings: Settings
    model: str

    def __call__(self, task: tuple[str, Unit]) -> Done:
        """Embed the images of a unit and write its part.

        Nothing is written for a unit that cannot be read now and may be read later; the result says why.

        Raises:
            BundleError: the model is not on this machine, or is another one.
            DataError: the part cannot be written.
        """
        part, unit = task
        model = worker_model(self.model, self.settings.spec.model_id)
        work = _Work(self.settings, unit)
        crop = parse_framing(self.settings.spec.crop)
        stream = embed_files(model, work.images(), crop=crop, max_pixels=self.settings.max_pixels, threads=1)
        groups: list[Rows] = []
        try:
            with closing(stream):
                for batch in map(drop_degenerate, stream):
                    work.failed += [(each.name, reason) for each, reason in batch.failures]
                    keys = [(each.path, each.root, each.person) for each in batch.keys]
                    groups.append(rows_of(batch, keys))
        except OSError as error:  # it may be there again in an hour: no part says that it is done
            return Done(part, error=f"{work.where(unit.name)}: cannot be read ({one_line(error)[:300]})")
        rows = work.without_repeated(groups)
        spec = self.settings.spec
        spec = replace(spec, roots={unit.root: spec.roots[unit.root]})  # others may come, go or move
        with self.folder.writing(part) as file:
            write_rows(file, spec, regroup(rows, count=ROWS), payload=spec.has_faces, failed=work.failed)
            size = file.tell()
        return Done(part, sum(len(some.entries) for some in rows), tuple(work.failed), size)


def read_part(folder: Folder, part: str) -> Done:
    """Return what became of a finished unit, as its part tells.

    Raises:
        DataError: the part cannot be read.
    """
    source = open_part(folder, part)
    size = source.size()
    with LatentsFile.open(Path(part), source) as opened:
        return Done(part, opened.count, tuple(opened.failed), size)


def open_part(folder: Folder, part: str) -> Any:
    """Open a part, as a ``pyarrow.NativeFile`` for :meth:`LatentsFile.open`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return folder.open(part)
    except OSError as error:
        raise DataError(
            f"{printable(folder.join(part))} cannot be read ({one_line(error)[:300]}); run it again"
        ) from error


class _Image(NamedTuple):
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


class _Work:
    """The images of one unit.

    Attributes:
        failed: Name and reason of what failed so far.
    """

    def __init__(self, settings: Settings, unit: Unit) -> None:
        self._unit, self._filter = unit, settings.filter
        address = settings.spec.roots[unit.root]
        self._folder = Folder(address if is_url(address) else str(as_path(address)))
        self.failed: list[tuple[str, str]] = []

    def where(self, path: str) -> str:
        """Return the name of a path in messages."""
        return printable(self._folder.join(str(as_path(path))))

    def images(self) -> Iterator[tuple[_Image, str | Readable]]:
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

    def _files(self) -> Iterator[tuple[_Image, str | Readable]]:
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

    def _archive(self) -> Iterator[tuple[_Image, str | Readable]]:
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

    def _rows(self) -> Iterator[tuple[_Image, str | Readable]]:
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

    def _image(self, path: str, *, inside: str | None = None) -> _Image:
        folders = (path if inside is None else inside).split("/")[:-1]
        person = self._filter.person_in(path, folders[-1] if folders else None)
        return _Image(path, self._unit.root, person, self.where(path))

    @staticmethod
    def without_repeated(groups: Iterable[Rows]) -> list[Rows]:
        """Return the rows without those whose path comes again in a later group or row, as tar unpacks."""
        kept: list[Rows] = []
        seen: set[str] = set()
        for rows in reversed([*groups]):
            paths = [entry.path for entry in rows.entries]
            last = {path: place for place, path in enumerate(paths)}
            # Rows of one image that follow each other are its faces.
            keep = [
                path not in seen and all(other == path for other in paths[place : last[path]])
                for place, path in enumerate(paths)
            ]
            seen.update(last)
            kept.append(rows if all(keep) else rows.select(np.array(keep, np.bool_)))
        return [concatenate(kept[::-1])] if kept else []
