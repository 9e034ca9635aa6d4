"""Finished parts of a file of latents, in a folder next to it, so that a killed run can be resumed.

::

    latents.parquet.part/000001.parquet   some thousand rows, complete and on disk
    latents.parquet.part/*.new            what a killed run was writing; removed by the next run
    latents.parquet.part/.lock            locked by the run that writes here
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import compress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.indexer.parquet.file import ROWS, LatentsFile, Rows, require_pyarrow, write_latents
from lookalike.indexer.store import CollectionSpec
from lookalike.indexer.sync import chunked


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


_ROW: Final = np.dtype([("key", "S16"), ("file", "S4")])
_SORTED: Final = "S20"
"""A row: its key, and the number of its file, most significant byte first; numpy sorts them in place."""
NO_KEY: Final = bytes(16)
"""A key that no row has."""


class ReusableRows:
    """Rows of earlier runs that a new run may reuse; 21 bytes of each are in memory.

    Several rows of one file that are of one image are its faces: they are reused together. Of an image that
    is in several files, the rows of the first count. All files are added before the first question.
    """

    def __init__(self) -> None:
        self._files: list[Path] = []
        self._added = bytearray()
        self._sorted: NDArray[np.bytes_] = np.empty(0, _SORTED)
        self._taken: NDArray[np.bool_] = np.empty(0, np.bool_)

    def add(self, file: Path, keys: Iterable[bytes]) -> None:
        """Add the rows of a file, by their keys in any order."""
        number = _number(len(self._files))
        self._files.append(file)
        for key in keys:
            self._added += key + number

    @property
    def taken(self) -> int:
        """How many rows are reused."""
        self._settle()
        return int(self._taken.sum())

    @property
    def left(self) -> int:
        """How many rows are not reused."""
        self._settle()
        return len(self._taken) - self.taken

    def contains(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Return for which of n keys there is a row, bool (n,)."""
        return self._find(keys)[1]

    def take(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Reuse the rows with these n keys; return for which there are some, bool (n,)."""
        starts, known = self._find(keys)
        for start, key in zip(starts[known], compress(keys, known), strict=True):
            end = self._sorted.searchsorted(key + b"\xff\xff\xff\xff")
            self._taken[start:end] = True
        return known

    def takes_all(self, keys: Iterable[bytes]) -> bool:
        """Whether all rows with these keys are reused."""
        return all(self._is_taken(chunk)[1].all() for chunk in chunked(keys))

    def rows(self) -> Iterator[Rows]:
        """Yield the reused rows.

        Raises:
            DataError: a file is damaged.
        """
        for number, file in enumerate(self._files):
            with LatentsFile.open(file) as part:
                for rows in part.rows():
                    places, taken = self._is_taken([entry.key for entry in rows.entries])
                    taken[taken] = self._sorted[places[taken]].view(_ROW)["file"] == _number(number)
                    yield rows.select(taken)

    def _is_taken(self, keys: Sequence[bytes]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the first row of each of n keys, and whether there is one that is reused."""
        places, known = self._find(keys)
        known[known] = self._taken[places[known]]
        return places, known

    def _find(self, keys: Sequence[bytes]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return where the rows of n keys begin, int (n,), and whether there are any, bool (n,)."""
        self._settle()
        wanted = np.frombuffer(b"".join(key + _number(0) for key in keys), _SORTED)
        places = self._sorted.searchsorted(wanted)
        known = places < len(self._sorted)
        found = self._sorted[places[known]].view(_ROW)
        known[known] = found["key"] == wanted[known].view(_ROW)["key"]
        return places, known

    def _settle(self) -> None:
        if not self._added:
            return
        rows = np.frombuffer(self._added, _SORTED)
        rows.sort()  # in place: by key, then by file
        self._added = bytearray()
        while True:  # once more for each face of an image that a later file has, too
            key = rows.view(_ROW)["key"]
            keep = np.append(True, (key[1:] != key[:-1]) | (rows[1:] == rows[:-1]))
            if keep.all():
                break
            rows = rows[keep]
        self._sorted, self._taken = rows, np.zeros(len(rows), np.bool_)


def _number(file: int) -> bytes:
    return file.to_bytes(4, "big")


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
