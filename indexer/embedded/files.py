"""The file system's side of the embedded store: collections come and go whole, whoever is killed when.

::

    <root>/<collection>/collection.json   what the collection remembers (CollectionSpec)
    <root>/<collection>/layout.json       how it lies there (Layout); not there: as by default
    <root>/<collection>/shard/            vectors, payloads and write-ahead log, written by Qdrant Edge
    <root>/<collection>/shard-<hex>/  shard.name      its successor (``lookalike.indexer.embedded.shard_swap``)
    <root>/.making-*  .dropped-*          remains of a create or drop that was killed; swept by the next one
"""

from __future__ import annotations

import json
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
from lookalike.encoder.files import atomic_write
from lookalike.encoder.files import fsync_path
from lookalike.encoder.files import fsync
from lookalike.encoder.files import atomic_write, fsync_path
from lookalike.indexer.store.layout import Layout
from lookalike.indexer.store.spec import CollectionSpec, is_name

SHARD: Final = "shard"
SHARD_PARTS: Final = {"wal", "segments", "edge_config.json"}
SPEC_FILE: Final = "collection.json"
LAYOUT_FILE: Final = "layout.json"
SPEC_DRAFT: Final = f"{SPEC_FILE}.new"
ROOM: Final = 48 << 20
"""Opening a shard takes 8 MiB, where the disk is in memory (tmpfs) 32 more; all but points takes less."""
STALE_SECONDS: Final = 3600  # a create takes under a second: an hour later its maker is gone


@contextmanager
def map_errors(place: Path) -> Iterator[None]:
    """The boundary: whatever Qdrant Edge or the file system raises leaves as a StoreError with ``place``."""
    try:
        yield
    except LookalikeError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"store {place}: {reason}; check that it is a folder you may write to") from error
    except BaseException as error:
        # Qdrant Edge raises bare Exception, with the kind in the text only. A Rust panic is not even that,
        # and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())
        if len(reason) > 200:  # who failed stands first, what the system said of it last
            reason = f"{reason[:100]} ... {reason[-95:]}"
        if "WouldBlock" in reason:
            raise StoreBusyError(
                f"collection folder {place} is in use by another process; wait until it ends, "
                "or share the collection through a Qdrant server"
            ) from error
        raise StoreError(f"collection folder {place}: {reason}; if it is damaged, index again") from error


def check_disk_space(folder: Path, size: int = 0) -> None:
    """Check that a disk has room before Qdrant Edge writes to it.

    It writes through memory maps of files with holes: where the disk is full the system ends the process
    (SIGBUS) and nobody can say why.

    Args:
        folder: In which is written.
        size: Of what is written, in bytes; what a shard makes of it took up to 2.2 times as much.

    Raises:
        StoreError: there is too little.
    """
    needed = ROOM + 3 * size
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
    """Whether a collection was made here, and made to the end."""
    return (folder / SPEC_FILE).is_file()


def create_collection(
    folder: Path, spec: CollectionSpec, layout: Layout, *, make_shard: Callable[[Path], None]
) -> None:
    """Make a collection that is whole on disk from the moment it is there.

    Args:
        folder: Where it will be.
        spec: What it remembers.
        layout: How it lies there.
        make_shard: Makes the shard's folder and what is in it.

    Raises:
        CollectionExistsError: another process was quicker.
        StoreError: a folder is there that is no collection, or it cannot be written.
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
    """Delete a collection, or what is left of one.

    Raises:
        StoreError: the folder cannot be changed.
    """
    with map_errors(folder):
        _remove_folder(folder)
        _remove_stale(folder.parent)


def read_spec(folder: Path) -> CollectionSpec:
    """Return what a collection remembers.

    Raises:
        StoreError: it cannot be read, is damaged, or is a later version's.
    """
    file = folder / SPEC_FILE
    with map_errors(file):
        content = file.read_bytes()
    return CollectionSpec.from_json(_values(content, file), where=str(file))


def read_layout(folder: Path) -> Layout:
    """Return how a collection lies in its folder.

    Raises:
        StoreError: it cannot be read, is damaged, or is a later version's.
    """
    file = folder / LAYOUT_FILE
    with map_errors(file):
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return Layout()
    try:
        return Layout.from_json(_values(content, file))
    except InvalidArgumentError as error:
        raise StoreError(f"{file}: {error}; upgrade lookalike, or index again") from error


def _values(content: bytes, file: Path) -> dict[str, Any]:
    """Return the JSON object that a file of ours holds."""
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StoreError(
            f"{file} is damaged; put it back from a copy, or delete the collection and index again"
        )
    return value


def replace_spec(folder: Path, spec: CollectionSpec) -> None:
    """Replace what a collection remembers; killed at any moment, the old record or the new one is there.

    Raises:
        StoreError: the folder cannot be written.
    """
    with map_errors(folder):
        _write_spec(folder, spec)


def _is_half_made(folder: Path) -> bool:
    """Whether a folder without a spec holds only parts of a collection; a user's files are not ours."""
    if not folder.is_dir():
        return False
    inside = {p.name for p in folder.iterdir()}
    shard = folder / SHARD
    return inside <= {SHARD, SPEC_DRAFT} and (
        not shard.is_dir() or {p.name for p in shard.iterdir()} <= SHARD_PARTS
    )


def _move_into_place(making: Path, folder: Path) -> None:
    try:
        making.rename(folder)
    except OSError:
        if is_collection(folder):  # another process was quicker
            raise CollectionExistsError(
                f"collection {folder.name!r} is in {folder.parent} already; choose another name"
            ) from None
        if folder.exists():
            raise StoreError(
                f"{folder} is there and is no lookalike collection; choose another name or store folder"
            ) from None
        raise


def _remove_folder(folder: Path) -> None:
    # Renamed first: at no moment is there half a collection under its name.
    dropped = folder.parent / f".dropped-{folder.name}-{secrets.token_hex(4)}"
    folder.rename(dropped)
    fsync_path(folder.parent)
    shutil.rmtree(dropped, ignore_errors=True)


def _remove_stale(root: Path) -> None:
    """Remove what killed creates and drops left behind."""
    for left in root.glob(".dropped-*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in root.glob(".making-*"):
        if left.stat().st_mtime < time.time() - STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _write_spec(folder: Path, spec: CollectionSpec) -> None:
    atomic_write(folder / SPEC_FILE, json.dumps(spec.to_json(), indent=2).encode(), durable=True)
