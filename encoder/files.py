"""A file that appears whole or not at all, and what a writer that was killed left behind."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["atomic_write", "fsync", "remove_stale", "write_durable"]

_PREFIX, _SUFFIX = ".lookalike-", ".part"
_TOKEN: Final = 8


def atomic_write(target: Path, data: bytes) -> None:
    """Write a file under a temporary name beside its place, and rename it; folders are made.

    Raises:
        OSError: it cannot be written; what stood there stays, and nothing else is left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{_PREFIX}{secrets.token_hex(_TOKEN)}{_SUFFIX}")
    try:
        with part.open("xb") as file:
            _lock(file)
            file.write(data)
            file.flush()
            part.replace(target)  # still locked: nobody takes it for left behind
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        error.filename, error.filename2 = str(target), None
        raise
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def remove_stale(folders: Iterable[Path]) -> int:
    """Remove temporary files in these folders that nobody writes to any more; return how many."""
    removed = 0
    for folder in folders:
        with suppress(OSError):
            for entry in os.scandir(folder):
                if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                    removed += _removed(Path(entry.path))
    return removed


def _removed(part: Path) -> bool:
    with suppress(OSError), part.open("rb") as file:
        if _lock(file):
            part.unlink()
            return True
    return False


def _lock(file: BinaryIO) -> bool:
    """Whether nobody else holds it. Systems without `fcntl` (Windows) and without locks say no."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def write_durable(file: Path, text: str) -> None:
    """Replace a text file and sync it to disk: killed at any moment, it has its old content or the new one.

    Raises:
        OSError: the folder cannot be written.
    """
    draft = file.with_name(f"{file.name}.new")
    with draft.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
    fsync(file.parent)


def fsync(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to disk."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere folders cannot be opened
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
