"""Sources of images: folders, files, lists of files, tar archives, and LFW and MNIST by name.

A selection says which of their images are taken. Each becomes an item with an id of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, cast

from lookalike.encoder.datasets import SPLITS, Split, find_lfw, find_mnist
from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.encoder.images import OnSkipped, find_names, is_image
from lookalike.indexer.sources.file_list import ListedFiles, common_folder
from lookalike.indexer.sources.mnist import find_mnist_images
from lookalike.indexer.sources.tar import Contained, find_members, is_archive


@dataclass(frozen=True, kw_only=True)
class SourceFilter:
    """Which images of a source are taken, and what is stored with them.

    Attributes:
        include: Patterns, one of which must match the path or its last part; empty: all paths are taken.
        exclude: Patterns, none of which may match either. ``*`` also matches ``/``.
        hidden: Whether files and folders are taken whose name begins with a dot.
        person: Pattern that finds the person's name in a path; None: the folder's name is the person.
        payload: Path to more fields to store; None: no table was given, and what is stored stays.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    person: re.Pattern[str] | None = None
    payload: Mapping[str, Mapping[str, Any]] | None = None

    def accepts(self, path: str, *, named: bool = False) -> bool:
        """Whether the item with this path, relative to its root and with ``/``, is taken.

        An item that was ``named`` itself may be hidden.
        """
        if not (self.hidden or named) and (path.startswith(".") or "/." in path):
            return False
        if self.include and not _matches(path, self.include):
            return False
        return not _matches(path, self.exclude)

    def person_in(self, path: str, folder: str | None) -> str | None:
        """Return the person: what the pattern finds in the path, or without a pattern the folder's name."""
        if self.person is None:
            return folder
        match = self.person.search(path)
        if match is None:
            return None
        has_group = "person" in self.person.groupindex
        return match["person" if has_group else min(1, self.person.groups)] or None


def person_pattern(text: str) -> re.Pattern[str]:
    """Compile ``--person-from``: the person is the group ``person``, else the first group, else the match.

    Raises:
        InvalidArgumentError: it is not a regular expression.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidArgumentError(
            f"--person-from is a regular expression, {text!r} is not ({error}); correct it"
        ) from error


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return False
    name = path.rsplit("/", 1)[-1]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)


_NAMESPACE: Final = uuid.UUID("6d2a1f0e-6c4b-5e53-9d0e-3a6a3d1f7c11")
_COMPRESSED: Final = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst")


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source.

    Attributes:
        id: UUIDv5 of root name and relative path.
        path: Path relative to its root, with ``/``, as :func:`as_text` writes it.
        root: Its root, a folder.
        relative: The same path, as the system spells it.
        person: Name of the person: by default that of its folder, for a digit its class.
        payload: More fields to store; None: no table was given.
        member: The entry of an archive or of MNIST's files; None: the item is a file.
    """

    id: str
    path: str
    root: Path
    relative: str
    person: str | None
    payload: Mapping[str, Any] | None = None
    member: Contained | None = None

    def __reduce__(self) -> tuple[type[Item], tuple[object, ...]]:
        """Be pickled as its arguments: a dataclass with slots takes five times as long."""
        return Item, (self.id, self.path, self.root, self.relative, self.person, self.payload, self.member)

    @property
    def file(self) -> Path:
        """Its path; an entry of an archive is named as if the archive were a folder."""
        return self.root / self.relative

    @property
    def where(self) -> str | Contained:
        """What :func:`embed_files` reads; joined as text, in a fifth of os.path.join's time."""
        root = str(self.root)
        return self.member or (root if root.endswith(os.sep) else root + os.sep) + self.relative

    def size_and_mtime(self) -> tuple[int, int] | None:
        """Return size in bytes and mtime in ns as they are now; None when there is no such file."""
        if self.member is not None:
            return self.member.size, self.member.mtime_ns
        try:
            now = os.stat(cast("str", self.where))  # noqa: PTH116  # no Path is made
        except OSError:
            return None  # opening it will fail too, and be reported then
        return now.st_size, now.st_mtime_ns


def _raise(error: OSError) -> None:
    raise error


@dataclass(frozen=True, slots=True)
class Source:
    """Images under one root.

    Attributes:
        root_name: Name of the root in the collection.
        root: The folder, absolute.
        only: The one file, archive or subfolder that is meant, relative to the root; None: all of it.
        listed: Files that were named one by one, relative to the root; None: all files in it.
        filter: Which images are taken, and what is known of them.
        splits: Splits of MNIST, whose files the root holds; None: it is not MNIST.
    """

    root_name: str
    root: Path
    only: Path | None = None
    listed: ListedFiles | None = None
    filter: SourceFilter = field(default_factory=SourceFilter)
    splits: tuple[Split, ...] | None = None

    def items(
        self,
        on_unreadable: Callable[[OSError], object] = _raise,
        on_skipped: OnSkipped = lambda *_: None,
    ) -> Iterator[Item]:
        """Yield the images in the order in which they are found.

        Args:
            on_unreadable: Called for a folder that cannot be listed, which is then skipped.
            on_skipped: Called for what is passed over in folders, with its path relative to the root and its
                kind; not for what the filter leaves out.

        Raises:
            DataError: an archive cannot be read.
        """
        if self.splits is not None:
            digits = find_mnist_images(self.root, self.splits)
            items = (self._item(digit.name, digit, label) for digit, label in digits)
        elif self.only is not None and is_archive(self.only):
            only, members = self.only, find_members(self.root / self.only)
            items = (self._item(str(only / PurePosixPath(member.name)), member) for member in members)
        else:
            items = (self._item(relative) for relative in self._paths(on_unreadable, on_skipped))
        return (item for item in items if item is not None)

    def covers(self, path: str) -> bool:
        """Whether an item with this path is missing when :meth:`items` does not yield it."""
        if self.listed is not None or not self.filter.accepts(path):
            return False
        if self.splits is not None:
            return path.startswith(tuple(f"{split}/" for split in self.splits))
        if self.only is not None and not path.startswith(f"{as_text(self.only)}/"):
            return False
        # A file that was named itself may be called anything; a walk over its folder does not see it.
        return is_image(path) or not os.path.lexists(self.root / as_path(path))

    def _item(self, relative: str, member: Contained | None = None, label: str | None = None) -> Item | None:
        path = as_text(relative)
        named = self.listed is not None or (self.only is not None and relative == str(self.only))
        if not self.filter.accepts(path, named=named):
            return None
        inner = path if member is None else path.removeprefix(f"{as_text(self.only or Path())}/")
        folders = inner.split("/")[:-1]
        person = self.filter.person_in(path, label or (folders[-1] if folders else None))
        payload = None if self.filter.payload is None else self.filter.payload.get(path, {})
        return Item(item_id(self.root_name, path), path, self.root, relative, person, payload, member)

    def _paths(self, on_unreadable: Callable[[OSError], object], on_skipped: OnSkipped) -> Iterator[str]:
        def skipped(name: str, kind: str) -> None:
            relative = name if self.only is None else f"{self.only}{os.sep}{name}"
            if self.filter.accepts(as_text(relative)):
                on_skipped(relative, kind)

        if self.listed is not None:
            yield from self.listed
        elif self.only is None or (self.root / self.only).is_dir():
            folder = self.root if self.only is None else self.root / self.only
            names = find_names(
                folder, hidden=self.filter.hidden, on_unreadable=on_unreadable, on_skipped=skipped
            )
            yield from names if self.only is None else (f"{self.only}{os.sep}{name}" for name in names)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceList:
    """Sources as a user names them, and how they are read; :meth:`open` finds them.

    Attributes:
        sources: ``lfw``, ``mnist``, or paths of folders, image files and tar archives.
        files: Image files that are named one by one; they become one source. They are iterated several
            times. Falsy: there are none.
        root: Folder that the paths of ``files`` are relative to; None: see :func:`list_source`.
        root_name: Name of the root in the collection; None: as the collection calls it, else the
            folder's name.
        split: Split of ``mnist``; None: all of it.
        filter: Which images are taken, and what is known of them.
    """

    sources: Sequence[str | os.PathLike[str]] = ()
    files: Iterable[Path] = ()
    root: Path | None = None
    root_name: str | None = None
    split: Literal["train", "test", "all"] | None = None
    filter: SourceFilter = field(default_factory=SourceFilter)

    def open(self, known_roots: Mapping[str, str]) -> list[Source]:
        """Return the sources.

        Args:
            known_roots: Roots that the collection remembers, name to folder.

        Raises:
            DataError, InvalidArgumentError: as :func:`open_source` and :func:`list_source` say.
        """
        opened = [
            open_source(os.fspath(each), known_roots=known_roots, root_name=self.root_name, split=self.split)
            for each in self.sources
        ]
        if self.files:
            opened.append(
                list_source(self.files, root=self.root, known_roots=known_roots, root_name=self.root_name)
            )
        return [replace(source, filter=self.filter) for source in opened]


PathLike = str | os.PathLike[str]
Sources = SourceList | PathLike | Source | Iterable[PathLike | Source]
"""All forms in which sources are given: see :func:`as_sources`."""


def as_sources(sources: Sources, known_roots: Mapping[str, str]) -> list[Source]:
    """Open sources that are given by name or path; sources that are open stay as they are.

    Raises:
        DataError, InvalidArgumentError: as :func:`open_source` says.
    """
    if isinstance(sources, SourceList):
        return sources.open(known_roots)
    each = [sources] if isinstance(sources, str | os.PathLike | Source) else sources
    return [
        source if isinstance(source, Source) else open_source(os.fspath(source), known_roots=known_roots)
        for source in each
    ]


def merge_roots(known_roots: Mapping[str, str], sources: Iterable[Source]) -> dict[str, str]:
    """Return the roots that are known and those of the sources, name to folder.

    Raises:
        InvalidArgumentError: two sources have one root name and different folders.
    """
    roots: dict[str, str] = {}
    for source in sources:
        folder = as_text(source.root)
        if roots.setdefault(source.root_name, folder) != folder:
            raise InvalidArgumentError(
                f"two sources are called {source.root_name!r}, {roots[source.root_name]} and {folder}; "
                "read them in two runs, one with --root-name"
            )
    return {**known_roots, **roots}


def open_source(
    source: str,
    *,
    known_roots: Mapping[str, str],
    root_name: str | None = None,
    split: Literal["train", "test", "all"] | None = None,
) -> Source:
    """Find what ``source`` names: ``lfw``, ``mnist``, a folder, a tar archive or an image file.

    The root of a file or archive is its folder, that of ``mnist`` the folder of its four files. What lies in
    a root that the collection knows is part of that root, so that it is not stored twice.

    Args:
        source: As the user wrote it.
        known_roots: Roots that the collection remembers, name to folder.
        root_name: Name for the root; None: as the collection calls it, else the
            folder's name.
        split: Split of ``mnist``; None: all of it.

    Raises:
        DataError: there is no such source.
        InvalidArgumentError: the collection knows another folder by this name and no name was given, the
            given name is not allowed, or a split was given for another source than ``mnist``.
    """
    dataset = _find_dataset(source, split)
    if dataset is not None:
        return with_root_name(dataset, root_name, known_roots)
    if split is not None:
        raise InvalidArgumentError(
            f"--split is of mnist, '{printable(source)}' is another source; leave it out"
        )
    path = Path(source)
    if not source or not (path.exists() or path.is_symlink()):
        kinds = "a folder, an image file, a tar archive, lfw or mnist"
        hint = "; images at a URL are embedded first, with --out FOLDER/" if "://" in source else ""
        raise DataError(f"a source is {kinds}; '{printable(source)}' does not exist{hint}")
    if path.is_file() and path.name.lower().endswith(_COMPRESSED):
        raise DataError(
            f"an archive is an uncompressed tar file, {printable(source)} is compressed; unpack it first "
            "(gunzip, unxz, bunzip2 or unzstd)"
        )
    if path.is_dir():
        root, only = path.resolve(), None
    else:
        root, only = path.parent.resolve(), Path(path.name)
    if root_name is None and (enclosing := _enclosing_root(root, known_roots)) is not None:
        name, folder = enclosing
        inside = root.relative_to(folder) / (only or "")
        return Source(name, folder, None if inside == Path() else inside)
    return with_root_name(Source(as_text(Path(root.name)) or "root", root, only), root_name, known_roots)


def _find_dataset(source: str, split: Literal["train", "test", "all"] | None) -> Source | None:
    """Return a data set by its name; a file or folder of that name goes before it."""
    if Path(source).exists():
        return None
    if source == "lfw" and split is None:
        return Source("lfw", find_lfw(progress=True).root.resolve())
    if source == "mnist":
        splits = SPLITS if split is None or split == "all" else (split,)
        return Source("mnist", find_mnist(progress=True).folder.resolve(), splits=splits)
    return None


def list_source(
    files: Iterable[Path], *, root: Path | None, known_roots: Mapping[str, str], root_name: str | None = None
) -> Source:
    """Make one source of files that were named one by one.

    Args:
        files: As the user wrote them, at least one; they are iterated several times.
        root: Folder that their paths are relative to; None: the closest root the collection knows that holds
            all of them, else the folder that they have in common.
        known_roots: Roots that the collection remembers, name to folder.
        root_name: Name for the root, as in :func:`open_source`.

    Raises:
        InvalidArgumentError: a file lies outside the root, or the root's name is not allowed.
        DataError: the list cannot be read.
    """
    folder = common_folder(files) if root is None else root.resolve()
    enclosing = _enclosing_root(folder, known_roots) if root_name is None and root is None else None
    if enclosing is not None:
        source = Source(*enclosing)
    else:
        source = with_root_name(Source(as_text(Path(folder.name)) or "root", folder), root_name, known_roots)
    return replace(source, listed=ListedFiles.below(source.root, files))


def as_text(path: Path | str) -> str:
    r"""Return a path as text that any store can hold, with ``/``.

    Bytes that are not UTF-8 become ``\xNN``, and so does a backslash that would read like one of them: no two
    paths have the same text, and :func:`as_path` gives the path back.
    """
    text = path.replace(os.sep, "/") if isinstance(path, str) else path.as_posix()
    if text.isascii() and "\\" not in text:
        return "" if text == "." else text
    plain = re.sub(rb"\\(?=x[0-9a-f]{2})", rb"\\x5c", os.fsencode(text))
    return plain.decode("utf-8", "backslashreplace")


def as_path(text: str) -> Path:
    """Return the path that :func:`as_text` wrote."""
    if "\\" not in text:
        return Path(text)
    return Path(
        os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes.fromhex(byte[1].decode()), text.encode()))
    )


def _enclosing_root(folder: Path, known_roots: Mapping[str, str]) -> tuple[str, Path] | None:
    """Return the closest known root that ``folder`` is or lies in: its name and folder."""
    enclosing = [
        (name, as_path(root)) for name, root in known_roots.items() if folder.is_relative_to(as_path(root))
    ]
    return max(enclosing, key=lambda each: len(each[1].parts), default=None)


def with_root_name(source: Source, root_name: str | None, known_roots: Mapping[str, str]) -> Source:
    """Return the source under the name that a collection gives its root.

    Args:
        source: Named after its folder.
        root_name: Name for the root; None: as the collection calls it, else as the source is called.
        known_roots: Roots that the collection remembers, name to folder.

    Raises:
        InvalidArgumentError: as :func:`open_source` says.
    """
    name = name_of_root(source.root_name, as_text(source.root), root_name, known_roots)
    return replace(source, root_name=name)


def name_of_root(own: str, folder: str, root_name: str | None, known_roots: Mapping[str, str]) -> str:
    """Return the name that a collection gives a root.

    Args:
        own: The root's own name.
        folder: Its folder, as a collection remembers it; it may be a URL.
        root_name: Name for the root; None: as the collection calls it, else its own.
        known_roots: Roots that the collection remembers, name to folder.

    Raises:
        InvalidArgumentError: as :func:`open_source` says.
    """
    if root_name is not None:
        if not root_name or not root_name.isprintable():
            raise InvalidArgumentError(
                f"a root name is one or more printable characters, '{printable(root_name)}' is not"
            )
        return root_name
    name = next((known for known, root in known_roots.items() if root == folder), own)
    if (known_folder := known_roots.get(name, folder)) != folder:
        raise InvalidArgumentError(
            f"this collection knows {name!r} as {printable(known_folder)}, not {printable(folder)}; pass "
            f"--root-name {printable(name)} if that folder has moved here, or another --root-name if it is a "
            "different one"
        )
    return name
