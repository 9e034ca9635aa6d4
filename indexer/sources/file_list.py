"""Lists of files, from a file or standard input: one per line, or separated by NUL (``find -print0``)."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, Final

from lookalike.encoder.errors import DataError, printable
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
