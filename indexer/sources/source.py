"""Where pictures come from: folders, files, lists of files, tar archives, LFW and MNIST by name.

Each picture becomes an item with its own id.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, cast

from lookalike.encoder.datasets.lfw import find_lfw
from lookalike.encoder.datasets.mnist import SPLITS, Split, find_mnist
from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images.discover import find_names
from lookalike.encoder.text import printable
from lookalike.indexer.sources.mnist import find_mnist_images
from lookalike.indexer.sources.selection import SourceFilter
from lookalike.indexer.sources.tar import Contained, find_members, is_archive

_NAMESPACE: Final = uuid.UUID("6d2a1f0e-6c4b-5e53-9d0e-3a6a3d1f7c11")
_COMPRESSED: Final = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst")


@dataclass(frozen=True, slots=True)
class Item:
    """One picture.

    Attributes:
        id: UUIDv5 of root name and relative path.
        path: Relative to its root, with ``/``, as :func:`as_text` writes it.
        root: Its root, a folder.
        relative: The same path, as the system spells it.
        person: Who is on it: as the source is read, by default its folder, of a digit its class.
        payload: More to store; None: nothing was given.
        member: Where in an archive or a file of digits it lies.
    """

    id: str
    path: str
    root: Path
    relative: str
    person: str | None
    payload: Mapping[str, Any] | None = None
    member: Contained | None = None

    def __reduce__(self) -> tuple[type[Item], tuple[object, ...]]:
        """Be pickled as what it was made of: a dataclass with slots takes five times as long."""
        return Item, (self.id, self.path, self.root, self.relative, self.person, self.payload, self.member)

    @property
    def file(self) -> Path:
        """Where it lies; what lies in an archive is named as if that were a folder."""
        return self.root / self.relative

    @property
    def where(self) -> str | Contained:
        """What it is read from; joined as text, at a fifth of os.path.join's time."""
        above = str(self.root)
        return self.member or (above if above.endswith(os.sep) else above + os.sep) + self.relative

    def facts(self) -> tuple[int, int] | None:
        """Return size in bytes and mtime in ns as they are now; None of what is not there."""
        if self.member is not None:
            return self.member.size, self.member.mtime_ns
        try:
            now = os.stat(cast("str", self.where))  # noqa: PTH116  # no Path is made
        except OSError:
            return None  # it will fail to open too, and be named then
        return now.st_size, now.st_mtime_ns


def _raise(error: OSError) -> None:
    raise error


@dataclass(frozen=True, slots=True)
class Source:
    """Pictures under one root.

    Attributes:
        root_name: What the collection calls the root.
        root: The folder, absolute.
        only: The one file, archive or folder in it that is meant; None: all of it.
        listed: Files in it that were named one by one, relative to it; None: whatever is there.
        reading: How it is read.
        splits: Of MNIST, whose files the root holds; None: it is no MNIST.
    """

    root_name: str
    root: Path
    only: Path | None = None
    listed: tuple[Path, ...] | None = None
    reading: SourceFilter = field(default_factory=SourceFilter)
    splits: tuple[Split, ...] | None = None

    def items(self, on_unreadable: Callable[[OSError], object] = _raise) -> Iterator[Item]:
        """Yield the pictures in the order in which they lie there.

        Args:
            on_unreadable: Told of a folder that cannot be listed, which is then passed over.

        Raises:
            DataError: an archive cannot be read.
        """
        if self.splits is not None:
            digits = find_mnist_images(self.root, self.splits)
            found = (self._item(digit.name, digit, label) for digit, label in digits)
        elif self.only is not None and is_archive(self.only):
            only, members = self.only, find_members(self.root / self.only)
            found = (self._item(str(only / PurePosixPath(member.name)), member) for member in members)
        else:
            found = (self._item(relative) for relative in self._paths(on_unreadable))
        return (item for item in found if item is not None)

    def covers(self, path: str) -> bool:
        """Whether an item with this path is missing when :meth:`items` does not yield it."""
        if self.listed is not None or not self.reading.takes(path):
            return False
        if self.splits is not None:
            return path.startswith(tuple(f"{split}/" for split in self.splits))
        return self.only is None or path.startswith(f"{as_text(self.only)}/")

    def _item(self, relative: str, member: Contained | None = None, label: str | None = None) -> Item | None:
        path = as_text(relative)
        with_root_name = self.listed is not None or (self.only is not None and relative == str(self.only))
        if not self.reading.takes(path, named=with_root_name):
            return None
        around = path if member is None else path.removeprefix(f"{as_text(self.only or Path())}/")
        folders = around.split("/")[:-1]
        person = self.reading.person_in(path, label or (folders[-1] if folders else None))
        payload = None if self.reading.payload is None else self.reading.payload.get(path, {})
        return Item(item_id(self.root_name, path), path, self.root, relative, person, payload, member)

    def _paths(self, on_unreadable: Callable[[OSError], object]) -> Iterator[str]:
        if self.listed is not None:
            yield from map(str, self.listed)
        elif self.only is None or (self.root / self.only).is_dir():
            folder = self.root if self.only is None else self.root / self.only
            found = find_names(folder, hidden=self.reading.hidden, on_unreadable=on_unreadable)
            yield from found if self.only is None else (f"{self.only}{os.sep}{name}" for name in found)
        else:
            yield str(self.only)


def item_id(root_name: str, path: str) -> str:
    """Return the UUIDv5 (RFC 9562) of an item: the same on every machine, whenever it is indexed."""
    # What uuid.uuid5 does, at a third of its time: a second run over a folder does little else.
    digest = bytearray(hashlib.sha1(_NAMESPACE.bytes + f"{root_name}\0{path}".encode()).digest()[:16])  # noqa: S324
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def open_source(
    source: str,
    *,
    root_name: str | None,
    known: Mapping[str, str],
    reading: SourceFilter | None = None,
    split: Literal["train", "test", "all"] | None = None,
) -> Source:
    """Find what ``source`` names: ``lfw``, ``mnist``, a folder, a tar archive or a single file.

    The root of a single file or archive is its folder, that of ``mnist`` the folder of its four files.

    What lies in a root that the collection knows is part of that root, so that it is not stored twice.

    Args:
        source: As the user wrote it.
        root_name: What to call the root; None: as the collection does, else as the folder is called.
        known: Roots that the collection remembers, name to folder.
        reading: How to read it; None: everything that is a picture and not hidden.
        split: Of ``mnist``; None: all of it.

    Raises:
        DataError: nothing is there.
        InvalidArgumentError: the collection knows another folder by this name and none was given, or the given one
            cannot be; a split of anything but ``mnist``.
    """
    found = _by_name(source, split)
    if found is None:
        if split is not None:
            raise InvalidArgumentError(
                f"--split is of mnist, '{printable(source)}' is another source; leave it out"
            )
        found = _opened(source, root_name, known)
    else:
        found = with_root_name(found, root_name, known)
    return replace(found, reading=reading or SourceFilter())


def _by_name(source: str, split: Literal["train", "test", "all"] | None) -> Source | None:
    """Return a data set that has a name; what lies here under that name goes before it."""
    if Path(source).exists():
        return None
    if source == "lfw" and split is None:
        return Source("lfw", find_lfw(progress=True).root.resolve())
    if source == "mnist":
        splits = SPLITS if split is None or split == "all" else (split,)
        return Source("mnist", find_mnist(progress=True).folder.resolve(), splits=splits)
    return None


def _opened(source: str, root_name: str | None, known: Mapping[str, str]) -> Source:
    path = Path(source)
    if not source or not (path.exists() or path.is_symlink()):
        kinds = "a folder, a picture file, a tar archive, lfw or mnist"
        raise DataError(f"a source is {kinds}; '{printable(source)}' is not there")
    if path.is_file() and path.name.lower().endswith(_COMPRESSED):
        raise DataError(
            f"an archive is an uncompressed tar file, {printable(source)} is compressed; unpack it first "
            "(gunzip, unxz, bunzip2 or unzstd)"
        )
    if path.is_dir():
        root, only = path.resolve(), None
    else:
        root, only = path.parent.resolve(), Path(path.name)
    if root_name is None and (around := _root_around(root, known)) is not None:
        name, folder = around
        inside = root.relative_to(folder) / (only or "")
        return Source(name, folder, None if inside == Path() else inside)
    return with_root_name(Source(as_text(Path(root.name)) or "root", root, only), root_name, known)


def list_source(
    files: Sequence[Path],
    *,
    root: Path | None,
    root_name: str | None,
    known: Mapping[str, str],
    reading: SourceFilter | None = None,
) -> Source:
    """Make one source of files that were named one by one.

    Args:
        files: As the user wrote them, at least one.
        root: What their paths are relative to; None: the closest root the collection knows that holds all of
            them, else the folder that they have in common.
        root_name: What to call the root, as in :func:`open_source`.
        known: Roots that the collection remembers.
        reading: How to read them.

    Raises:
        InvalidArgumentError: one lies outside the root, or the root's name cannot be.
    """
    # Not resolved whole: a link keeps its own name, as it does in a folder.
    absolute = [file.parent.resolve() / file.name for file in files]
    common = Path(os.path.commonpath([file.parent for file in absolute]))
    folder = common if root is None else root.resolve()
    for file in absolute:
        if not file.is_relative_to(folder):
            raise InvalidArgumentError(
                f"listed files lie under --root {printable(str(folder))}, {printable(str(file))} does not; "
                "name a folder above all of them"
            )
    around = _root_around(folder, known) if root_name is None and root is None else None
    if around is not None:
        source = Source(*around)
    else:
        source = with_root_name(Source(as_text(Path(folder.name)) or "root", folder), root_name, known)
    listed = tuple(dict.fromkeys(file.relative_to(source.root) for file in absolute))
    return replace(source, listed=listed, reading=reading or SourceFilter())


def as_text(path: Path | str) -> str:
    r"""Return a path as text that any store can hold, with ``/``.

    Bytes that are no UTF-8 become ``\xNN``, and so does a backslash that would read like one of them: no two
    paths have one text, and :func:`as_path` gives the path back.
    """
    text = path.replace(os.sep, "/") if isinstance(path, str) else path.as_posix()
    if text.isascii() and "\\" not in text:
        return "" if text == "." else text
    plain = re.sub(rb"\\(?=x[0-9a-f]{2})", rb"\\x5c", os.fsencode(text))
    return plain.decode("utf-8", "backslashreplace")


def as_path(text: str) -> Path:
    """Return the path that :func:`as_text` wrote."""
    return Path(
        os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes.fromhex(byte[1].decode()), text.encode()))
    )


def _root_around(folder: Path, known: Mapping[str, str]) -> tuple[str, Path] | None:
    """Return the closest known root that ``folder`` lies in or is, and its name."""
    around = [(name, as_path(root)) for name, root in known.items() if folder.is_relative_to(as_path(root))]
    return max(around, key=lambda each: len(each[1].parts), default=None)


def with_root_name(source: Source, root_name: str | None, known: Mapping[str, str]) -> Source:
    """Return the source under the name that a collection gives its root.

    Args:
        source: Under its own name.
        root_name: What to call the root; None: as the collection does, else as the source does.
        known: Roots that the collection remembers, name to folder.

    Raises:
        InvalidArgumentError: as :func:`open_source` says.
    """
    if root_name is not None:
        if not root_name or not root_name.isprintable():
            raise InvalidArgumentError(
                f"a root name is one or more printable characters, '{printable(root_name)}' is not"
            )
        return replace(source, root_name=root_name)
    folder = as_text(source.root)
    name = next((known_name for known_name, root in known.items() if root == folder), source.root_name)
    if known.get(name, folder) != folder:
        raise InvalidArgumentError(
            f"this collection knows {name!r} as {printable(known[name])}, not {printable(folder)}; pass --root-name "
            f"{printable(name)} if that folder has moved here, or another --root-name if it is a different one"
        )
    return replace(source, root_name=name)
