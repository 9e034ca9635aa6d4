"""Aliases of an embedded store, in one file each, so that changing one is atomic.

::

<root>/.aliases/<alias>.alias    the name of its collection
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lookalike.encoder.errors import StoreError
from lookalike.encoder.files import atomic_write, fsync_path
from lookalike.indexer.embedded.files import is_collection, map_errors
from lookalike.indexer.store import aliased_collection, is_name, missing_alias

FOLDER: Final = ".aliases"
_SUFFIX: Final = ".alias"


def read_aliases(root: Path) -> dict[str, str]:
    """Return all aliases, alias to collection, sorted.

    Raises:
        StoreError: the folder cannot be read, or a file in it is damaged.
    """
    folder = root / FOLDER
    with map_errors(root):
        if not folder.is_dir():
            return {}
        names = sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
    aliases = {name: read_alias(root, name) for name in names if is_name(name)}
    return {alias: name for alias, name in aliases.items() if name is not None}


def read_alias(root: Path, alias: str) -> str | None:
    """Return the collection of an alias; None when there is no such alias.

    Raises:
        StoreError: it cannot be read, or is damaged.
    """
    file = root / FOLDER / f"{alias}{_SUFFIX}"
    with map_errors(file):
        try:
            name = file.read_text("ascii", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
    if not is_name(name):
        raise StoreError(f"{file} is damaged; set the alias {alias!r} again")
    return name


def set_alias(root: Path, alias: str, name: str | None) -> None:
    """Point an alias to a collection, or remove it (None).

    Killed at any moment, it points to the old collection or the new one.

    Raises:
        CollectionExistsError: a collection has this name.
        CollectionNotFoundError: there is no such alias to remove.
        StoreError: the folder cannot be written.
    """
    if is_collection(root / alias):
        raise aliased_collection(str(root), alias)
    if name is None and read_alias(root, alias) is None:
        raise missing_alias(str(root), alias, read_aliases(root))
    folder = root / FOLDER
    with map_errors(folder):
        if name is None:
            (folder / f"{alias}{_SUFFIX}").unlink(missing_ok=True)
            if folder.is_dir():
                fsync_path(folder)
        else:
            folder.mkdir(exist_ok=True)
            atomic_write(folder / f"{alias}{_SUFFIX}", f"{name}\n".encode(), durable=True)
            fsync_path(root)
