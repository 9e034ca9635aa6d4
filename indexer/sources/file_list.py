"""Lists of files, from a file or standard input: one per line, or separated by NUL (``find -print0``)."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np

from lookalike.encoder.errors import DataError, InvalidArgumentError, printable
from lookalike.encoder.files import MAX_BYTES, check_readable

_PIECE: Final = 1 << 20
_LONGEST: Final = 1 << 16


class FileList:
    """The files that a list names, in their order: read anew each time, and never held in memory.

    Args:
        source: A file, or ``-`` for standard input. That, and a pipe, is copied to a temporary file first.
        nul: Whether names are separated by NUL, not by line ends: for names that contain line breaks.

    Raises:
        DataError: the list cannot be read, or is empty.
    """

    def __init__(self, source: str, *, nul: bool) -> None:
        self._name, self._end = printable(source), b"\0" if nul else b"\n"
        try:
            self._spooled = self._spool(source)
        except OSError as error:
            raise self._unreadable(error) from error
        self._file = Path(source)
        if next(iter(self), None) is None:
            raise DataError(
                f"--files-from needs at least one name, {self._name} holds none; check what wrote it"
            )

    def __iter__(self) -> Iterator[Path]:
        """Yield the files; of a pipe, one iteration at a time.

        Raises:
            DataError: the list cannot be read any more.
        """
        try:
            if self._spooled is not None:
                self._spooled.seek(0)
                yield from self._files(self._spooled)
                return
            with self._file.open("rb") as file:
                yield from self._files(file)
        except OSError as error:
            raise self._unreadable(error) from error

    def _spool(self, source: str) -> BinaryIO | None:
        """Return a temporary file with what a pipe brings; None: the list is a file."""
        if source != "-":
            status = Path(source).stat()
            check_readable(status, pipe=True)
            if stat.S_ISREG(status.st_mode):
                return None
        spooled = tempfile.TemporaryFile()  # noqa: SIM115  # as long as this object
        weakref.finalize(self, spooled.close)
        with nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb") as stream:
            left = MAX_BYTES + 1  # who writes to a pipe may never end
            while left and (piece := stream.read(min(left, _PIECE))):
                spooled.write(piece)
                left -= len(piece)
        if not left:
            raise OSError(errno.EFBIG, f"there are more than {MAX_BYTES} bytes; write them to a file first")
        return spooled

    def _files(self, stream: BinaryIO) -> Iterator[Path]:
        left = b""
        while piece := stream.read(_PIECE):
            *whole, left = (left + piece).split(self._end)
            if len(left) > _LONGEST:
                raise OSError(errno.ENAMETOOLONG, f"a name has more than {_LONGEST} bytes")
            yield from (Path(os.fsdecode(name)) for name in map(self._stripped, whole) if name)
        if last := self._stripped(left):
            yield Path(os.fsdecode(last))

    def _stripped(self, name: bytes) -> bytes:
        return name.removesuffix(b"\r") if self._end == b"\n" else name

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(
            f"--files-from is a file or - for standard input, {self._name} cannot be read "
            f"({error.strerror or error}); check the path"
        )


def read_list(source: str, *, nul: bool) -> list[Path]:
    """Return the files that a list names, in their order; see :class:`FileList`.

    Raises:
        DataError: the list cannot be read, or is empty.
    """
    return list(FileList(source, nul=nul))


@dataclass(frozen=True, slots=True)
class ListedFiles:
    """Files that were named one by one, each once, in their order. Use :meth:`below` to make one.

    Of each that is named once nothing is in memory: the list is read whenever they are iterated.

    Attributes:
        files: As the user wrote them, also those named again; they can be iterated several times.
        root: Folder, resolved, that they lie in.
        count: How many there are.
        repeated: Hashes of the names that may be there several times.
    """

    files: Iterable[Path]
    root: Path
    count: int
    repeated: frozenset[int]

    @classmethod
    def below(cls, root: Path, files: Iterable[Path]) -> Self:
        """Look at all files once; 8 bytes of each are in memory meanwhile.

        Raises:
            InvalidArgumentError: a file lies outside the root.
            DataError: the list cannot be read.
        """
        hashes = np.fromiter(map(hash, names_below(str(root), files)), np.int64)
        hashes.sort()
        again = hashes[1:][hashes[1:] == hashes[:-1]]
        return cls(files, root, len(hashes) - len(again), frozenset(again.tolist()))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        """Yield the paths relative to the root, as the system spells them.

        Raises:
            InvalidArgumentError, DataError: as :meth:`below` says, of a list that has changed.
        """
        seen: set[str] = set()
        for name in names_below(str(self.root), self.files):
            if hash(name) in self.repeated:
                if name in seen:
                    continue
                seen.add(name)
            yield name


def names_below(folder: str, files: Iterable[Path]) -> Iterator[str]:
    """Yield the paths of files relative to a resolved folder; a link keeps its own name.

    Raises:
        InvalidArgumentError: a file lies outside.
    """
    top = folder if folder.endswith(os.sep) else folder + os.sep
    resolve = _resolving()
    for file in files:
        parent, name = os.path.split(file)
        resolved = resolve(parent)
        absolute = f"{resolved}{name}" if resolved.endswith(os.sep) else f"{resolved}{os.sep}{name}"
        if not absolute.startswith(top):
            raise InvalidArgumentError(
                f"listed files lie under --root {printable(folder)}, {printable(absolute)} does not; "
                "name a folder above all of them"
            )
        yield absolute.removeprefix(top)


def common_folder(files: Iterable[Path]) -> Path:
    """Return the deepest folder, resolved, that holds all files, of which there is at least one."""
    common = last = ""
    resolve = _resolving()
    for file in files:
        folder = resolve(os.path.dirname(file))  # noqa: PTH120  # no Path is made of each of millions
        if folder != last:
            last, common = folder, os.path.commonpath([common, folder]) if common else folder
    return Path(common)


def _resolving() -> Callable[[str], str]:
    """Return what resolves folders, and remembers the last ones: a list names many files of each."""
    return lru_cache(maxsize=4096)(os.path.realpath)
