"""A folder replaced whole or not at all, also while others replace it."""

from __future__ import annotations

import errno
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_replace_dir"]


@contextmanager
def atomic_replace_dir(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place when the block ends well.

    When the block raises, ``target`` stays as it was. Of several writers at once the last one wins.

    Args:
        target: An absolute path without links; a folder there is replaced with all that it holds.

    Raises:
        OSError: the folder cannot be made or put in place; ``target`` stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".lookalike-", dir=target.parent, ignore_cleanup_errors=True
    ) as workshop:
        fresh = Path(workshop) / "new"
        fresh.mkdir()
        yield fresh
        _swap(fresh, target, Path(workshop))


def _swap(fresh: Path, target: Path, workshop: Path) -> None:
    for turn in itertools.count():
        old = workshop / f"old-{turn}"
        with suppress(FileNotFoundError):
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue  # another writer was quicker; its folder goes the way of the old one
            if old.exists():
                old.rename(target)
            raise
        return
