"""Where pictures come from: folders, single files, LFW by name. Each becomes an item with its own id."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from encoder.errors import DataError, OptionError
from encoder.folders import find_pictures
from encoder.images import shown
from encoder.lfw import find_lfw, person_from_folder

__all__ = ["Item", "Source", "as_path", "as_text", "item_id", "named", "open_source"]

_NAMESPACE: Final = uuid.UUID("6d2a1f0e-6c4b-5e53-9d0e-3a6a3d1f7c11")


@dataclass(frozen=True, slots=True)
class Item:
    """One picture file.

    Attributes:
        id: UUIDv5 of root name and relative path.
        path: Relative to its root, with ``/``, as :func:`as_text` writes it.
        file: Where it lies.
        person: Name of the folder that holds it, or None right under the root.
    """

    id: str
    path: str
    file: Path
    person: str | None


@dataclass(frozen=True, slots=True)
class Source:
    """Pictures under one root.

    Attributes:
        root_name: What the collection calls the root.
        root: The folder, absolute.
        only: The one file or folder in it that is meant; None: all of it.
    """

    root_name: str
    root: Path
    only: Path | None = None

    def items(self) -> Iterator[Item]:
        """Yield the pictures in sorted order."""
        for relative in self._paths():
            path = as_text(relative)
            file = self.root / relative
            person = person_from_folder(file, self.root)
            yield Item(item_id(self.root_name, path), path, file, person and as_text(Path(person)))

    def covers(self, path: str) -> bool:
        """Whether an item with this path is missing when :meth:`items` does not yield it."""
        return self.only is None or path.startswith(f"{as_text(self.only)}/")

    def _paths(self) -> Iterator[Path]:
        if self.only is None:
            yield from find_pictures(self.root)
        elif (self.root / self.only).is_dir():
            yield from (self.only / path for path in find_pictures(self.root / self.only))
        else:
            yield self.only


def item_id(root_name: str, path: str) -> str:
    """Return the UUIDv5 (RFC 9562) of an item: the same on every machine, whenever it is indexed."""
    return str(uuid.uuid5(_NAMESPACE, f"{root_name}\0{path}"))


def open_source(source: str, *, root_name: str | None, known: Mapping[str, str]) -> Source:
    """Find what ``source`` names: ``lfw``, a folder, or a single file (its folder is the root).

    What lies in a root that the collection knows is part of that root, so that it is not stored twice.

    Args:
        source: As the user wrote it.
        root_name: What to call the root; None: as the collection does, else as the folder is called.
        known: Roots that the collection remembers, name to folder.

    Raises:
        DataError: nothing is there.
        OptionError: the collection knows another folder by this name and none was given, or the given one
            cannot be.
    """
    path = Path(source)
    if source == "lfw" and not path.exists():
        return named(Source("lfw", find_lfw(progress=True).root.resolve()), root_name, known)
    if not source or not (path.exists() or path.is_symlink()):
        raise DataError(f"a source is a folder, a picture file or lfw; '{shown(source)}' is not there")
    if path.is_dir():
        root, only = path.resolve(), None
    else:
        root, only = path.parent.resolve(), Path(path.name)
    if root_name is None and (around := _root_around(root, known)) is not None:
        name, folder = around
        inside = root.relative_to(folder) / (only or "")
        return Source(name, folder, None if inside == Path() else inside)
    return named(Source(as_text(Path(root.name)) or "root", root, only), root_name, known)


def as_text(path: Path) -> str:
    r"""Return a path as text that any store can hold, with ``/``.

    Bytes that are no UTF-8 become ``\xNN``, and so does a backslash that would read like one of them: no two
    paths have one text, and :func:`as_path` gives the path back.
    """
    plain = re.sub(rb"\\(?=x[0-9a-f]{2})", rb"\\x5c", os.fsencode(path.as_posix()))
    return "" if path == Path() else plain.decode("utf-8", "backslashreplace")


def as_path(text: str) -> Path:
    """Return the path that :func:`as_text` wrote."""
    return Path(
        os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes.fromhex(byte[1].decode()), text.encode()))
    )


def _root_around(folder: Path, known: Mapping[str, str]) -> tuple[str, Path] | None:
    """Return the closest known root that ``folder`` lies in or is, and its name."""
    around = [(name, as_path(root)) for name, root in known.items() if folder.is_relative_to(as_path(root))]
    return max(around, key=lambda each: len(each[1].parts), default=None)


def named(source: Source, root_name: str | None, known: Mapping[str, str]) -> Source:
    """Return the source under the name that a collection gives its root.

    Args:
        source: Under its own name.
        root_name: What to call the root; None: as the collection does, else as the source does.
        known: Roots that the collection remembers, name to folder.

    Raises:
        OptionError: as :func:`open_source` says.
    """
    if root_name is not None:
        if not root_name or not root_name.isprintable():
            raise OptionError(f"a root name is one or more printable characters, '{shown(root_name)}' is not")
        return replace(source, root_name=root_name)
    folder = as_text(source.root)
    name = next((known_name for known_name, root in known.items() if root == folder), source.root_name)
    if known.get(name, folder) != folder:
        raise OptionError(
            f"this collection knows {name!r} as {shown(known[name])}, not {shown(folder)}; pass --root-name "
            f"{shown(name)} if that folder has moved here, or another --root-name if it is a different one"
        )
    return replace(source, root_name=name)
