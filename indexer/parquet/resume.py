"""Finished parts of a file of latents, in a folder next to it, so that a killed run can be resumed.

::

    latents.parquet.part/000001.parquet   some thousand rows, complete and on disk
    latents.parquet.part/*.new            what a killed run was writing; removed by the next run
    latents.parquet.part/.lock            locked by the run that writes here
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.indexer.parquet.file import ROWS, LatentsFile, Rows, require_pyarrow, write_latents
from lookalike.indexer.store import CollectionSpec


class PartFiles:
    """The parts of one file. Use :meth:`opened` to make one."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folder = out.with_name(f"{out.name}.part")
        self._last: int | None = None

    @classmethod
    @contextmanager
    def opened(cls, out: Path) -> Iterator[PartFiles]:
        """Lock the parts of ``out`` against other processes; a folder without parts is removed at the end.

        Raises:
            DataError: another process writes this file, or the folder cannot be written.
        """
        parts = cls(out)
        with parts._lock():
            for draft in parts._folder.glob("*.new"):
                draft.unlink(missing_ok=True)
            try:
                yield parts
            finally:
                if not parts.files():
                    parts.remove()

    def files(self) -> list[Path]:
        """Return the finished parts in the order they were written."""
        return sorted(self._folder.glob("[0-9]*.parquet"))

    def add(self, spec: CollectionSpec, rows: Rows) -> Path:
        """Write a part; it is on disk when this returns.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        if self._last is None:
            self._last = max((int(file.stem) for file in self.files()), default=0)
        self._last += 1
        file = self._folder / f"{self._last:06d}.parquet"
        write_latents(file, spec, [rows], draft=self._folder / "part.new", payload=spec.has_faces)
        return file

    def finish(self, spec: CollectionSpec, rows: Iterable[Rows]) -> None:
        """Write the whole file; the parts may be removed then.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        draft = self._folder / "whole.new"
        write_latents(self._out, spec, regroup(rows), draft=draft, payload=spec.has_faces)

    def survey(self) -> Iterator[tuple[Path, CollectionSpec, list[bytes]]]:
        """Yield each part with the keys of its rows; one that cannot be read is deleted."""
        for file in self.files():
            try:
                with LatentsFile.open(file) as part:
                    keys = [entry.key for rows in part.rows() for entry in rows.entries]
                    spec = part.spec
            except DataError:
                file.unlink(missing_ok=True)
                continue
            yield file, spec, keys

    def remove(self) -> None:
        """Remove all parts and the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _lock(self) -> Any:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = (self._folder / ".lock").open("w")
        except OSError as error:
            raise DataError(
                f"{printable(str(self._out))} cannot be written ({error.strerror or error}); name "
                "another place"
            ) from error
        # Without fcntl (Windows) or locks of the file system nothing is locked.
        with suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.close()
                raise DataError(
                    f"{printable(str(self._out))} is being written by another process; wait until it ends"
                ) from None
            except OSError:
                return handle
        return handle


class ReusableRows:
    """Rows of earlier runs that a new run may reuse; 16 bytes of each are in memory.

    Several rows of one file that are of one image are its faces: they are reused together.
    """

    def __init__(self) -> None:
        self._files: list[Path] = []
        self._keys: dict[bytes, bool] = {}
        self._more = Counter[bytes]()  # rows of an image beside the first

    def __contains__(self, key: object) -> bool:
        """Whether there is a row with this key."""
        return key in self._keys

    @property
    def taken(self) -> int:
        """How many rows are reused."""
        more = sum(count for key, count in self._more.items() if self._keys[key])
        return sum(self._keys.values()) + more

    @property
    def left(self) -> int:
        """How many rows are not reused."""
        return len(self._keys) + self._more.total() - self.taken

    def add(self, file: Path, keys: Iterable[bytes]) -> None:
        """Add the rows of a file, by their keys in any order."""
        self._files.append(file)
        own: set[bytes] = set()
        for key in keys:
            if key in own:
                self._more[key] += 1
            elif key not in self._keys:  # else the rows of an earlier file count
                own.add(key)
                self._keys[key] = False

    def take(self, key: bytes) -> bool:
        """Reuse the row with this key, if there is one."""
        if key in self._keys:
            self._keys[key] = True
            return True
        return False

    def takes_all(self, keys: Iterable[bytes]) -> bool:
        """Whether all rows with these keys are reused."""
        return all(self._keys.get(key, False) for key in keys)

    def rows(self) -> Iterator[Rows]:
        """Yield the reused rows; those of an image that is in two files come once. To be called once.

        Raises:
            DataError: a file is damaged.
        """
        for file in self._files:
            done: set[bytes] = set()
            with LatentsFile.open(file) as part:
                for rows in part.rows():
                    keys = [entry.key for entry in rows.entries]
                    yield rows.select(np.array([self._keys.get(key, False) for key in keys], np.bool_))
                    done.update(keys)
            for key in done:
                self._keys.pop(key, None)


def open_existing(out: Path) -> LatentsFile | None:
    """Open the file of an earlier run; None when there is none.

    Raises:
        InvalidArgumentError: it is not a file of latents, or the suffix of ``out`` is not ``.parquet``.
        MissingExtraError: pyarrow is not installed.
    """
    if out.suffix.lower() != ".parquet":
        raise InvalidArgumentError(
            f"a file of latents is written as .parquet, {printable(str(out))} is not; change the name, or "
            "end it with / for a folder of parts"
        )
    require_pyarrow(out)
    try:
        return LatentsFile.open(out) if out.exists() or out.is_symlink() else None
    except (DataError, OSError) as error:
        raise InvalidArgumentError(
            f"{printable(str(out))} exists and is not a readable file of latents; name another --out, "
            "or remove it"
        ) from error


def regroup(groups: Iterable[Rows], *, count: int = ROWS) -> Iterator[Rows]:
    """Yield the same rows ``count`` at a time; the last group may be smaller."""
    held: list[Rows] = []
    for some in groups:
        held.append(some)
        if sum(len(each.entries) for each in held) >= count:
            rows = concatenate(held)
            whole = len(rows.entries) // count * count
            for start in range(0, whole, count):
                yield Rows(rows.entries[start : start + count], rows.vectors[start : start + count])
            held = [Rows(rows.entries[whole:], rows.vectors[whole:])]
    if any(each.entries for each in held):
        yield concatenate(held)


def concatenate(held: Sequence[Rows]) -> Rows:
    """Return the rows of one or more groups as one."""
    return Rows(
        [entry for some in held for entry in some.entries], np.concatenate([some.vectors for some in held])
    )
