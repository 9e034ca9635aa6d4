"""How one shard of an embedded collection takes the place of another, in one step.

::

    <root>/<collection>/shard/         the first one
    <root>/<collection>/shard-<hex>/   one that took its place, or is being made to
    <root>/<collection>/shard.name     which of them the collection is in; not there: shard/
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
from lookalike.encoder.files import atomic_write
from lookalike.encoder.files import fsync_path
from lookalike.indexer.embedded.files import SHARD
from lookalike.indexer.embedded.files import map_errors
from lookalike.indexer.embedded.files import read_layout
from lookalike.encoder.files import fsync
from lookalike.encoder.files import atomic_write, fsync_path
from lookalike.indexer.embedded.files import check_disk_space
from lookalike.indexer.embedded.shard import Shard

SHARD_NAME: Final = "shard.name"
_SHARD: Final = re.compile(r"shard(-[0-9a-f]{8})?")
_HOLE: Final = bytes(1 << 16)


def current_shard(folder: Path) -> Path:
    """Return the folder of the shard that a collection is in.

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
        raise StoreError(f"{file} is damaged; write the name of the shard folder beside it there")
    return folder / name


@contextmanager
def copy_shard(folder: Path) -> Iterator[Path]:
    """Yield a copy of the current shard, beside it; gone afterwards unless it has taken its place.

    Nobody may write to the current shard meanwhile, and what was written must be on disk.
    """
    fresh = folder / f"{SHARD}-{secrets.token_hex(4)}"
    try:
        shutil.copytree(current_shard(folder), fresh, copy_function=_copy)
        yield fresh
    finally:
        if current_shard(folder) != fresh:
            shutil.rmtree(fresh, ignore_errors=True)


def replace_shard(folder: Path, fresh: Path) -> None:
    """Make another shard in a collection's folder its current one, in one step, whoever is killed when."""
    for path in (*fresh.rglob("*"), fresh, folder):
        fsync_path(path)
    atomic_write(folder / SHARD_NAME, f"{fresh.name}\n".encode(), durable=True)


def remove_stale_shards(folder: Path) -> None:
    """Remove the shards that are not the current one. Only for who holds that."""
    current = current_shard(folder)
    for path in folder.iterdir():
        if _SHARD.fullmatch(path.name) and path != current:
            shutil.rmtree(path, ignore_errors=True)


def bytes_on_disk(folder: Path) -> int:
    """Return how much of the disk a folder takes. Qdrant's files have holes, which take nothing."""
    taken = 0
    for above, _, names in os.walk(folder):
        for name in names:
            try:
                status = Path(above, name).stat()
            except FileNotFoundError:
                continue  # it was only there for a moment
            taken += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return taken


def open_shard(folder: Path) -> Shard:
    """Open a collection's shard; once more when another process has put a new one in its place meanwhile."""
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
    """Raise StoreBusyError when another process holds the shard; one that cannot be opened is idle."""
    try:
        open_shard(folder).close()
    except StoreBusyError:
        raise
    except StoreError:
        return


def _copy(source: str, target: str) -> None:
    """Copy a file; where it is all zeros the copy gets a hole, which takes no room."""
    with Path(source).open("rb") as read, Path(target).open("wb") as write:
        while piece := read.read(len(_HOLE)):
            if piece == _HOLE:
                write.seek(len(piece), os.SEEK_CUR)
            else:
                write.write(piece)
        write.truncate()
