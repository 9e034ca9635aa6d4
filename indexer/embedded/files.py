"""Files of the embedded store: collections are created and deleted atomically.

::

    <root>/<collection>/collection.json   the collection's CollectionSpec
    <root>/<collection>/layout.json       its Layout; missing: the default layout
    <root>/<collection>/shard/            vectors, payloads and write-ahead log, written by Qdrant Edge
    <root>/<collection>/holder.json       the process that has it open
    <root>/<collection>/shard-<hex>/      a newer shard, and
    <root>/<collection>/shard.name        its name (see ``lookalike.indexer.embedded.shard``)
    <root>/.aliases/<alias>.alias         the name of the alias's collection: a file each, changed atomically
    <root>/.making-*  .dropped-*          left by a create or delete that was killed; removed by the next one
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lookalike.encoder.errors import (
    CollectionExistsError,
    InvalidArgumentError,
    LookalikeError,
    StoreBusyError,
    StoreError,
)
from lookalike.encoder.files import atomic_write, fsync_path, parse_json, read_bounded
from lookalike.indexer.embedded.holder import holder_of
from lookalike.indexer.store import CollectionSpec, Layout, aliased_collection, is_name, missing_alias

SHARD: Final = "shard"
SHARD_PARTS: Final = {"wal", "segments", "edge_config.json"}
SPEC_FILE: Final = "collection.json"
LAYOUT_FILE: Final = "layout.json"
SPEC_DRAFT: Final = f"{SPEC_FILE}.new"
MIN_FREE: Final = 48 << 20
"""Free bytes needed: opening a shard takes 8 MiB, on tmpfs 32 more; anything but points takes less."""
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_NOT_WRITABLE: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
_MOST_JSON: Final = 16 << 20
_MOST_NAME: Final = 4096
STALE_SECONDS: Final = 3600  # a create takes under a second: after an hour its process is gone


@contextmanager
def map_errors(place: Path) -> Iterator[None]:
    """Turn whatever Qdrant Edge or the file system raises into a StoreError that names ``place``."""
    try:
        yield
    except LookalikeError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"store {place}: {reason}; check that it is a folder you may write to") from error
    except BaseException as error:
        # Qdrant Edge raises bare Exception, with the kind only in the text. A Rust panic is not even an
        # Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, MemoryError | RecursionError):
            raise  # they say nothing of the files
        reason = " ".join(str(error).split())
        if len(reason) > 200:  # what failed comes first, the system's reason last
            reason = f"{reason[:100]} ... {reason[-95:]}"
        if "WouldBlock" in reason:
            raise StoreBusyError(
                f"collection folder {place} is in use by another process{holder_of(place)}; wait until it "
                "ends, or share the collection through a Qdrant server"
            ) from error
        if (found := _OS_ERROR.search(reason)) and int(found[1]) in _NOT_WRITABLE:
            raise StoreError(
                f"collection folder {place} must be writable, also for searching, but: "
                f"{os.strerror(int(found[1]))}; change its permissions or copy it to where you may write"
            ) from error
        raise StoreError(f"collection folder {place}: {reason}; if it is damaged, index again") from error


def check_disk_space(folder: Path, size: int = 0) -> None:
    """Check that the disk has free space before Qdrant Edge writes to it.

    It writes through memory maps of sparse files: on a full disk the system kills the process (SIGBUS)
        without
    a message.

    Args:
        folder: Folder on the disk.
        size: Bytes to be written; a shard took up to 2.2 times as much for them.

    Raises:
        StoreError: there is too little free space.
    """
    needed = MIN_FREE + 3 * size
    with map_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"store {folder}: its disk is full ({free / 2**20:.1f} MiB free, {needed / 2**20:.1f} needed); "
            "make room and run it again, what is stored stays"
        )


def list_collections(root: Path) -> list[str]:
    """Return the names of the collections in ``root``, sorted; a missing folder holds none."""
    with map_errors(root):
        if not root.exists():
            return []
        return sorted(p.name for p in root.iterdir() if is_name(p.name) and is_collection(p))


def is_collection(folder: Path) -> bool:
    """Whether a folder is a complete collection."""
    return (folder / SPEC_FILE).is_file()


def create_collection(
    folder: Path, spec: CollectionSpec, layout: Layout, *, make_shard: Callable[[Path], None]
) -> None:
    """Create a collection that is complete on disk from the moment it exists.

    Args:
        folder: Its folder.
        spec: Its spec.
        layout: Its layout.
        make_shard: Creates the shard in a folder.

    Raises:
        CollectionExistsError: another process was quicker.
        StoreError: the folder exists and is not a collection, or it cannot be written.
    """
    root = folder.parent
    with map_errors(folder):
        root.mkdir(parents=True, exist_ok=True)
        _remove_stale(root)
        check_disk_space(root)
        if _is_half_made(folder):
            _remove_folder(folder)
        making = root / f".making-{folder.name}-{secrets.token_hex(4)}"
        try:
            make_shard(making / SHARD)
            atomic_write(making / LAYOUT_FILE, json.dumps(layout.to_json(), indent=2).encode(), durable=True)
            _write_spec(making, spec)
            for path in (*making.rglob("*"), making):
                fsync_path(path)
            _move_into_place(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        fsync_path(root)


def delete_collection(folder: Path) -> None:
    """Delete a collection, or the remains of one.

    Raises:
        StoreError: the folder cannot be changed.
    """
    with map_errors(folder):
        _remove_folder(folder)
        _remove_stale(folder.parent)


def read_spec(folder: Path) -> CollectionSpec:
    """Return the spec of a collection.

    Raises:
        StoreError: it cannot be read, is damaged, or is of a later version.
    """
    file = folder / SPEC_FILE
    with map_errors(file):
        content = read_bounded(file, most=_MOST_JSON)
    return CollectionSpec.from_json(_parse_object(content, file), where=str(file))


def read_layout(folder: Path) -> Layout:
    """Return the layout of a collection.

    Raises:
        StoreError: it cannot be read, is damaged, or is of a later version.
    """
    file = folder / LAYOUT_FILE
    with map_errors(file):
        try:
            content = read_bounded(file, most=_MOST_JSON)
        except FileNotFoundError:
            return Layout()
    try:
        return Layout.from_json(_parse_object(content, file))
    except InvalidArgumentError as error:
        raise StoreError(f"{file}: {error}; upgrade lookalike, or index again") from error


def _parse_object(content: bytes, file: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    try:
        value = parse_json(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StoreError(
            f"{file} is damaged; put it back from a copy, or delete the collection and index again"
        )
    return value


def replace_spec(folder: Path, spec: CollectionSpec) -> None:
    """Replace the spec of a collection; killed at any moment, it has the old spec or the new one.

    Raises:
        StoreError: the folder cannot be written.
    """
    with map_errors(folder):
        _write_spec(folder, spec)


def _is_half_made(folder: Path) -> bool:
    """Whether a folder without a spec holds only parts of a collection, and no files of a user."""
    if not folder.is_dir():
        return False
    names = {p.name for p in folder.iterdir()}
    shard = folder / SHARD
    return names <= {SHARD, SPEC_DRAFT} and (
        not shard.is_dir() or {p.name for p in shard.iterdir()} <= SHARD_PARTS
    )


def _move_into_place(making: Path, folder: Path) -> None:
    try:
        making.rename(folder)
    except OSError:
        if is_collection(folder):  # another process was quicker
            raise CollectionExistsError(
                f"collection {folder.name!r} already exists in {folder.parent}; choose another name"
            ) from None
        if folder.exists():
            raise StoreError(
                f"{folder} exists and is not a lookalike collection; choose another name or store folder"
            ) from None
        raise


def _remove_folder(folder: Path) -> None:
    # Renamed first: there is never half a collection under its name.
    dropped = folder.parent / f".dropped-{folder.name}-{secrets.token_hex(4)}"
    folder.rename(dropped)
    fsync_path(folder.parent)
    shutil.rmtree(dropped, ignore_errors=True)


def _remove_stale(root: Path) -> None:
    """Remove what killed creates and deletes left behind."""
    for stale in root.glob(".dropped-*"):
        shutil.rmtree(stale, ignore_errors=True)
    for stale in root.glob(".making-*"):
        if stale.stat().st_mtime < time.time() - STALE_SECONDS:
            shutil.rmtree(stale, ignore_errors=True)


def _write_spec(folder: Path, spec: CollectionSpec) -> None:
    atomic_write(folder / SPEC_FILE, json.dumps(spec.to_json(), indent=2).encode(), durable=True)


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
            name = read_bounded(file, most=_MOST_NAME).decode("ascii", "replace").strip()
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
