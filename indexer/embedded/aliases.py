"""Other names for collections: a switch from one collection to another is one step, whoever reads meanwhile.

A server keeps them itself. The embedded store has a file for each::

    <root>/.aliases/<alias>.alias    the name of the collection that it stands for
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from lookalike.encoder.errors import CollectionExistsError, CollectionNotFoundError, StoreError
from lookalike.encoder.files import atomic_write, fsync_path
from lookalike.indexer.embedded.files import holds_collection, map_errors
from lookalike.indexer.store.spec import is_name

if TYPE_CHECKING:
    from lookalike.indexer.store.base import VectorStore

__all__ = [
    "alias_conflict",
    "aliased_collection",
    "check_unaliased",
    "missing_alias",
    "read_alias",
    "read_aliases",
    "resolve_alias",
    "set_alias",
]

FOLDER: Final = ".aliases"
_SUFFIX: Final = ".alias"


def resolve_alias(store: VectorStore, name: str) -> str:
    """Return the collection that an alias stands for, or ``name`` when it is none."""
    return store.aliases().get(name, name)


def alias_conflict(address: str, alias: str, name: str) -> CollectionExistsError:
    """Return the error of a name that is not free for a collection."""
    return CollectionExistsError(
        f"{alias!r} on {address} is an alias of collection {name!r}; choose another name for the collection"
    )


def aliased_collection(address: str, alias: str) -> CollectionExistsError:
    """Return the error of an alias that is a collection's name."""
    return CollectionExistsError(
        f"{alias!r} on {address} is a collection, no alias; choose another alias, or copy the collection to "
        "another name and delete it"
    )


def missing_alias(address: str, alias: str, aliases: dict[str, str]) -> CollectionNotFoundError:
    """Return the error of an alias that is not there."""
    return CollectionNotFoundError(
        f"no alias {alias!r} on {address}; it has: {', '.join(sorted(aliases)) or 'none'}"
    )


def check_unaliased(address: str, name: str, aliases: dict[str, str]) -> None:
    """Refuse to delete what an alias names, and an alias as if it were a collection.

    Raises:
        StoreError: it is one or has one.
    """
    if name in aliases:
        raise StoreError(
            f"{name!r} on {address} is an alias of collection {aliases[name]!r}; remove it with "
            f"lookalike collections switch {name} --remove"
        )
    if theirs := sorted(alias for alias, real in aliases.items() if real == name):
        raise StoreError(
            f"collection {name!r} on {address} is what {', '.join(theirs)} stands for; point that on with "
            f"lookalike collections switch {theirs[0]} OTHER, or remove it with --remove"
        )


def read_aliases(root: Path) -> dict[str, str]:
    """Return the aliases of an embedded store, alias to collection, sorted.

    Raises:
        StoreError: the folder cannot be read, or a file in it is damaged.
    """
    folder = root / FOLDER
    with map_errors(root):
        if not folder.is_dir():
            return {}
        names = sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
    found = {name: read_alias(root, name) for name in names if is_name(name)}
    return {alias: name for alias, name in found.items() if name is not None}


def read_alias(root: Path, alias: str) -> str | None:
    """Return what one alias of an embedded store stands for; None when there is no such alias.

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
        raise StoreError(f"{file} is damaged; switch the alias {alias!r} anew")
    return name


def set_alias(root: Path, alias: str, name: str | None) -> None:
    """Have an alias of an embedded store stand for a collection from now on, or for none (None).

    Killed at any moment, it stands for the old one or the new one.

    Raises:
        CollectionExistsError: a collection is called so.
        CollectionNotFoundError: there is no such alias to remove.
        StoreError: the folder cannot be written.
    """
    if holds_collection(root / alias):
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
