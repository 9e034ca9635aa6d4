"""Sources to units of work: listed once, as a stream, by path or URL."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.encoder.images import find_names, is_image
from lookalike.indexer.sources import (
    Source,
    SourceFilter,
    SourceList,
    as_text,
    common_folder,
    name_of_root,
    names_below,
)
from lookalike.indexer.units.folder import FileFacts, Folder, is_url
from lookalike.indexer.units.image_rows import find_image_groups
from lookalike.indexer.units.unit import Unit, UnitSize, units_of_files

_TAR: Final = ".tar"
_PARQUET: Final = ".parquet"


@dataclass(slots=True)
class Listing:
    """The units of some sources. Use :meth:`of` to make one; :meth:`units` lists them, once.

    Attributes:
        roots: Root name to folder, path or URL.
        skipped: What folders hold beside images so far, kind to how many.
    """

    roots: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    _filter: SourceFilter = field(default_factory=SourceFilter)
    _sources: list[_Source] = field(default_factory=list)

    @classmethod
    def of(cls, sources: SourceList) -> Listing:
        """Open the sources; nothing is listed yet.

        Raises:
            DataError: a source does not exist.
            InvalidArgumentError: a source cannot be split into units, or two have one root name.
        """
        listing = cls(_filter=sources.filter)
        for each in sources.sources:
            address = os.fspath(each)
            if is_url(address):
                listing._add(_at_url(address, sources.root_name))
            else:
                (opened,) = SourceList(sources=[each], root_name=sources.root_name, split=sources.split).open(
                    {}
                )
                listing._add(_on_disk(opened))
        if sources.files:
            folder = sources.root.resolve() if sources.root is not None else common_folder(sources.files)
            own = as_text(Path(folder.name)) or "root"
            root_name = name_of_root(own, as_text(folder), sources.root_name, {})
            listing._add(_Source(root_name, Folder(str(folder)), files=sources.files))
        return listing

    def folders(self) -> Iterator[tuple[Folder, bool]]:
        """Yield the folder of each source, and whether any file in it may be read, or one right in it."""
        yield from ((source.folder, source.only is None) for source in self._sources)

    def _add(self, source: _Source) -> None:
        folder = as_text(source.folder.local) if source.folder.local else source.folder.address
        if self.roots.setdefault(source.root, folder) != folder:
            raise InvalidArgumentError(
                f"two sources are called {source.root!r}, {self.roots[source.root]} and {folder}; "
                "read them in two runs, one with --root-name"
            )
        self._sources.append(source)

    def units(self, size: UnitSize | None = None) -> Iterator[Unit]:
        """Yield the units of all sources.

        Args:
            size: Of those of image files.

        Raises:
            DataError: a folder cannot be listed, or a Parquet file not be read.
        """
        for source in self._sources:
            shards: list[FileFacts] = []
            yield from units_of_files(source.root, self._images(source, shards), size)
            for shard in shards:
                yield from self._units_of_shard(source, shard)

    def _images(self, source: _Source, shards: list[FileFacts]) -> Iterator[FileFacts]:
        """Yield the image files of a source; archives and Parquet files go to ``shards``."""
        for file, named in source.found(hidden=self._filter.hidden):
            kind = os.path.splitext(file.name)[1].lower()  # noqa: PTH122  # no Path is made
            if kind in (_TAR, _PARQUET):
                shards.append(file)
            elif not self._filter.accepts(file.name, named=named):
                continue
            elif named or is_image(file.name):
                yield file
            else:
                self.skipped[kind or "no extension"] += 1

    def _units_of_shard(self, source: _Source, shard: FileFacts) -> Iterator[Unit]:
        if shard.name.lower().endswith(_TAR):
            yield Unit("tar", source.root, (shard,))
            return
        groups = find_image_groups(source.folder, shard.name)
        if groups is None:
            if source.only is not None:
                raise DataError(
                    f"{printable(source.folder.join(shard.name))} has no column of images: one of bytes, "
                    "or of bytes and path as Hugging Face's data sets have it; name another file"
                )
            self.skipped[_PARQUET] += 1
        for group, rows in enumerate(groups or ()):
            yield Unit("rows", source.root, (shard,), group, rows)


@dataclass(frozen=True, slots=True)
class _Source:
    """One source: a folder, one file in it, or files of it that were named one by one."""

    root: str
    folder: Folder
    only: str | None = None
    files: Iterable[Path] | None = None

    def found(self, *, hidden: bool) -> Iterator[tuple[FileFacts, bool]]:
        """Yield all files, and whether each was named itself."""
        if self.files is not None:
            folder = str(self.folder.local)
            yield from ((_local_facts(folder, name), True) for name in names_below(folder, self.files))
        elif self.only is not None:
            facts = _facts(self.folder, self.only)
            if facts is None:
                raise DataError(
                    f"a source is a folder, an image file, a tar archive or a Parquet file of images; "
                    f"{printable(self.folder.join(self.only))} does not exist"
                )
            yield facts, True
        elif self.folder.local is None:
            for file in self.folder.walk(hidden=hidden):
                yield file, False
        else:
            yield from ((each, False) for each in _on_this_disk(self.folder.local, hidden=hidden))


def _on_this_disk(folder: Path, *, hidden: bool) -> Iterator[FileFacts]:
    """Yield the files of a folder: images as they are found, and of each folder of them what is beside."""
    beside: list[str] = []
    top = str(folder)
    for name in find_names(folder, hidden=hidden, on_skipped=lambda name, _: beside.append(name)):
        yield from (_local_facts(top, each) for each in beside)
        beside.clear()
        yield _local_facts(top, name)
    yield from (_local_facts(top, each) for each in beside)


def _local_facts(folder: str, relative: str) -> FileFacts:
    try:
        status = os.stat(os.path.join(folder, relative))  # noqa: PTH116, PTH118  # for each of many files
    except OSError:  # reading it will fail too, and be reported then
        return FileFacts(as_text(relative), 0, 0)
    return FileFacts(as_text(relative), status.st_size, status.st_mtime_ns)


def _facts(folder: Folder, name: str) -> FileFacts | None:
    if folder.local is None:
        return folder.facts(name)
    return _local_facts(str(folder.local), name)


def _at_url(address: str, root_name: str | None) -> _Source:
    above, _, last = address.rstrip("/").rpartition("/")
    is_file = last.lower().endswith((_TAR, _PARQUET)) or is_image(last)
    folder = Folder(above if is_file else address)
    own = folder.address.rstrip("/").rpartition("/")[2] or "root"
    return _Source(name_of_root(own, folder.address, root_name, {}), folder, last if is_file else None)


def _on_disk(source: Source) -> _Source:
    if source.splits is not None:
        raise InvalidArgumentError("mnist is small and not split into parts; write it to --out FILE.parquet")
    only = None if source.only is None else str(source.only)
    return _Source(source.root_name, Folder(str(source.root)), only)
