"""Where pictures come from: folders, single files, LFW by name. Each becomes an item with an id of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from encoder.errors import DataError, OptionError
from encoder.folders import find_pictures
from encoder.images import shown
from encoder.lfw import find_lfw, person_from_folder

__all__ = ["Item", "Source", "item_id", "open_source"]

_NAMESPACE: Final = uuid.UUID("6d2a1f0e-6c4b-5e53-9d0e-3a6a3d1f7c11")


@dataclass(frozen=True, slots=True)
class Item:
    """One picture file.

    Attributes:
        id: UUIDv5 of root name and relative path.
        path: Relative to its root, with ``/``; bytes that are no UTF-8 are written ``\\xNN``.
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
        whole: Whether all of the root is meant, so that what is stored but not there is missing.
        only: The one file that is meant otherwise.
    """

    root_name: str
    root: Path
    whole: bool
    only: Path | None = None

    def items(self) -> Iterator[Item]:
        """Yield the pictures in sorted order."""
        paths = find_pictures(self.root) if self.only is None else iter([self.only])
        for relative in paths:
            path = _text(relative)
            file = self.root / relative
            yield Item(item_id(self.root_name, path), path, file, person_from_folder(file, self.root))


def item_id(root_name: str, path: str) -> str:
    """Return the UUIDv5 (RFC 9562) of an item: the same on every machine, whenever it is indexed."""
    return str(uuid.uuid5(_NAMESPACE, f"{root_name}\0{path}"))


def open_source(source: str, *, root_name: str | None, known: Mapping[str, str]) -> Source:
    """Find what ``source`` names: ``lfw``, a folder, or a single file (its folder is the root).

    Args:
        source: As the user wrote it.
        root_name: What to call the root; None: as the folder is called.
        known: Roots that the collection remembers, name to folder.

    Raises:
        DataError: nothing is there.
        OptionError: the collection knows another folder by this name and none was given.
    """
    path = Path(source)
    if source == "lfw" and not path.exists():
        root, name, only = find_lfw(progress=True).root.resolve(), "lfw", None
    elif path.is_dir():
        root, only = path.resolve(), None
        name = root.name or "root"
    elif path.exists():
        root, only = path.resolve().parent, Path(path.resolve().name)
        name = root.name or "root"
    else:
        raise DataError(f"a source is a folder, a picture file or lfw; {shown(source)!r} is not there")
    if root_name is not None:
        return Source(root_name, root, only is None, only)
    named = next((known_name for known_name, folder in known.items() if folder == str(root)), name)
    if known.get(named, str(root)) != str(root):
        raise OptionError(
            f"this collection knows {named!r} as {known[named]}, not {shown(str(root))}; pass --root-name "
            f"{named} if that folder has moved here, or another --root-name if it is a different one"
        )
    return Source(named, root, only is None, only)


def _text(path: Path) -> str:
    """Return the path as text that any store can hold."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
