"""Files and folders that appear whole or not at all, and reads that end, whatever others have written."""

from __future__ import annotations

import errno
import itertools
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


_PREFIX, _SUFFIX = ".lookalike-", ".part"
_TOKEN_BYTES: Final = 8
MAX_BYTES: Final = 1 << 30
"""No file that is read whole is larger, in bytes."""
_PIECE: Final = 1 << 20


def read_bounded(file: str | os.PathLike[str], *, most: int = MAX_BYTES, pipe: bool = False) -> bytes:
    """Return the bytes of a file as :func:`read_with_status` reads them.

    Raises:
        OSError: It cannot be read, is not a file, or is larger.
    """
    return read_with_status(file, most=most, pipe=pipe)[0]


def read_with_status(
    file: str | os.PathLike[str], *, most: int = MAX_BYTES, pipe: bool = False
) -> tuple[bytes, os.stat_result]:
    """Return the bytes of a file and its status; devices, which may never end, are refused.

    Args:
        file: The file; links are followed.
        most: Largest size in bytes.
        pipe: Whether it may be a pipe (``<(command)`` in a shell), which is read until it is closed.

    Raises:
        OSError: It cannot be read, is not a file, or is larger.
    """
    # Checked before it is opened, as opening a pipe waits, and after, as it may have been replaced.
    check_readable(os.stat(file), pipe=pipe)  # noqa: PTH116  # called for each of many files
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | (0 if pipe else getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(os.open(file, flags), "rb", buffering=0) as stream:
        status = os.fstat(stream.fileno())
        check_readable(status, pipe=pipe)
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes are more than {most}")
        return read_stream(stream, most=most), status


def read_stream(stream: _Readable, *, most: int = MAX_BYTES) -> bytes:
    """Return what is left of a stream, such as standard input, of ``most`` bytes at most.

    Raises:
        OSError: It cannot be read, or has more.
    """
    pieces: list[bytes] = []
    left = most + 1
    while left and (piece := stream.read(min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        raise OSError(errno.EFBIG, f"there are more than {most} bytes")
    return b"".join(pieces)


def check_readable(status: os.stat_result, *, pipe: bool = False) -> None:
    """Check that something is a file, or a pipe where that is allowed: a device may never end.

    Raises:
        OSError: It is not.
    """
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not (stat.S_ISREG(status.st_mode) or (pipe and stat.S_ISFIFO(status.st_mode))):
        raise OSError(errno.EINVAL, "it is not a file")


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Return what a JSON text holds; ``options`` are those of ``json.loads``.

    Raises:
        ValueError: It is not JSON, or nested more deeply than Python can read.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def atomic_write(target: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file under a temporary name in its folder, then rename it; missing folders are created.

    Args:
        target: The file, replaced if it exists.
        data: Its content.
        durable: Also flush the file and its folder to disk, so that it survives a power failure.

    Raises:
        OSError: The file cannot be written. An existing file stays as it was, and no temporary file is left.
    """
    with atomic_file(target, durable=durable) as file:
        file.write(data)


@contextmanager
def atomic_file(target: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a file to write that replaces ``target`` when the block ends without an exception.

    Args:
        target: As in :func:`atomic_write`.
        durable: The same.

    Raises:
        OSError: The same; one that the block raises becomes one of ``target``, too.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{_PREFIX}{secrets.token_hex(_TOKEN_BYTES)}{_SUFFIX}")
    try:
        with part.open("xb") as file:
            locked = _lock(file)
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            if locked:
                part.replace(target)  # still locked, so that remove_stale leaves it alone
        if not locked:  # Windows, which renames no file that is open
            part.replace(target)
        if durable:
            fsync_path(target.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        error.filename, error.filename2 = str(target), None
        raise
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def fsync_path(path: Path) -> None:
    """Flush a file, or a folder's list of names, to disk.

    Raises:
        OSError: It cannot be opened or flushed.
    """
    if path.is_dir() and os.name != "posix":
        return  # only POSIX systems can open folders
    # Windows flushes only what was opened to be written.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale(folders: Iterable[Path]) -> int:
    """Remove temporary files in these folders that no process writes any more; return how many."""
    removed = 0
    for folder in folders:
        with suppress(OSError):
            for entry in os.scandir(folder):
                if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                    removed += _remove_unlocked(Path(entry.path))
    return removed


@contextmanager
def atomic_replace_dir(target: Path) -> Iterator[Path]:
    """Yield an empty folder next to ``target`` that replaces it when the block ends without an exception.

    Of several writers at once, the last one wins.

    Args:
        target: An absolute path without links; an existing folder is replaced with everything in it.

    Raises:
        OSError: The folder cannot be created or moved; ``target`` stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=_PREFIX, dir=target.parent, ignore_cleanup_errors=True
    ) as workspace:
        new = Path(workspace) / "new"
        new.mkdir()
        yield new
        _swap(new, target, Path(workspace))


def _swap(new: Path, target: Path, workspace: Path) -> None:
    for attempt in itertools.count():
        old = workspace / f"old-{attempt}"
        with suppress(FileNotFoundError):
            target.rename(old)
        try:
            new.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue  # another writer was faster; its folder is moved away like the old one
            if old.exists():
                old.rename(target)
            raise
        return


def _remove_unlocked(part: Path) -> bool:
    with suppress(OSError), part.open("rb") as file:
        if _lock(file):
            part.unlink()
            return True
    return False


def _lock(file: BinaryIO) -> bool:
    """Lock a file; False if another process holds it, or without `fcntl` (Windows) or file locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
