"""Atomic replacement of the shard of an embedded collection.

::

    <root>/<collection>/shard/         the first shard
    <root>/<collection>/shard-<hex>/   one that replaced it, or is being made for that
    <root>/<collection>/shard.name     name of the current shard; missing: shard/
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import StoreBusyError, StoreError
from lookalike.encoder.files import atomic_write, fsync_path
from lookalike.indexer.embedded.files import SHARD, check_disk_space, map_errors, read_layout
from lookalike.indexer.embedded.shard import Shard

SHARD_NAME: Final = "shard.name"
_SHARD: Final = re.compile(r"shard(-[0-9a-f]{8})?")
_HOLE: Final = bytes(1 << 16)


def current_shard(folder: Path) -> Path:
    """Return the folder of a collection's current shard.

    Raises:
        StoreError: the file that names it is damaged.
    """
    file = folder / SHARD_NAME
    with map_errors(file):
        try:
            name = file.read_text("ascii", errors="replace").strip()
        except FileNotFoundError:
            name = SHARD
    if _SHARD.fullmatch(name) is None:
        raise StoreError(f"{file} is damaged; write the name of the current shard folder into it")
    return folder / name


@contextmanager
def copy_shard(folder: Path) -> Iterator[Path]:
    """Yield a copy of the current shard; it is removed afterwards unless it has become the current one.

    Nobody may write to the current shard meanwhile, and everything written must be on disk.
    """
    fresh = folder / f"{SHARD}-{secrets.token_hex(4)}"
    try:
        shutil.copytree(current_shard(folder), fresh, copy_function=_copy)
        yield fresh
    finally:
        if current_shard(folder) != fresh:
            shutil.rmtree(fresh, ignore_errors=True)


def replace_shard(folder: Path, fresh: Path) -> None:
    """Make another shard of a collection the current one, atomically."""
    for path in (*fresh.rglob("*"), fresh, folder):
        fsync_path(path)
    atomic_write(folder / SHARD_NAME, f"{fresh.name}\n".encode(), durable=True)


def remove_stale_shards(folder: Path) -> None:
    """Remove all shards but the current one, which the caller must have open."""
    current = current_shard(folder)
    for path in folder.iterdir():
        if _SHARD.fullmatch(path.name) and path != current:
            shutil.rmtree(path, ignore_errors=True)


def bytes_on_disk(folder: Path) -> int:
    """Return the disk usage of a folder in bytes. Qdrant's files are sparse; holes do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = Path(parent, name).stat()
            except FileNotFoundError:
                continue  # a temporary file
            total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return total


def open_shard(folder: Path) -> Shard:
    """Open a collection's shard; retry when another process replaces it meanwhile."""
    while True:
        path = current_shard(folder)
        try:
            with map_errors(folder):
                check_disk_space(folder)
                shard = Shard.load(path, read_layout(folder))
        except StoreError:
            if current_shard(folder) == path:
                raise
            continue
        if current_shard(folder) == path:
            remove_stale_shards(folder)
            return shard
        shard.close()


def check_idle(folder: Path) -> None:
    """Raise StoreBusyError when another process has the shard open; a damaged shard is idle."""
    try:
        open_shard(folder).close()
    except StoreBusyError:
        raise
    except StoreError:
        return


def _copy(source: str, target: str) -> None:
    """Copy a file; runs of zeros become holes, which take no space."""
    with Path(source).open("rb") as read, Path(target).open("wb") as write:
        while block := read.read(len(_HOLE)):
            if block == _HOLE:
                write.seek(len(block), os.SEEK_CUR)
            else:
                write.write(block)
        write.truncate()
