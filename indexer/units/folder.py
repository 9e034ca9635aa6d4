"""Folders by path or URL (s3, gs, abfs, hdfs, file), through ``pyarrow.fs``.

Keys, regions and endpoints come from the variables that each kind of place has for them, such as
``AWS_ACCESS_KEY_ID`` and ``AWS_ENDPOINT_URL``. One module that imports ``pyarrow.fs``.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from urllib.parse import unquote

from lookalike.encoder.errors import DataError, InvalidArgumentError, MissingExtraError, one_line, printable
from lookalike.encoder.files import MAX_BYTES, atomic_file, read_stream, remove_stale

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SCHEMES: Final = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")
_PIECE: Final = 8 << 20
"""Bytes that are uploaded at a time."""


def is_url(address: str) -> bool:
    """Whether an address is a URL, not a path."""
    return _URL.match(address) is not None


class FileFacts(NamedTuple):
    """A file of a folder: its name there, with ``/``, size in bytes, and mtime in ns."""

    name: str
    size: int
    mtime_ns: int


class Folder:
    """A folder that need not exist yet; it can be pickled.

    Args:
        address: Path or URL.

    Attributes:
        address: The same, without ``/`` at its end; a path is absolute.
        local: Its path on this machine; None: it is elsewhere.

    Raises:
        InvalidArgumentError: the URL is of a kind that cannot be read.
        MissingExtraError: pyarrow is not installed.
        DataError: its place does not answer.
    """

    def __init__(self, address: str) -> None:
        if address.startswith("file://"):
            address = unquote(address.removeprefix("file://"))
        self.local = None if is_url(address) else Path(os.path.abspath(address))  # noqa: PTH100  # links stay
        self.address = str(self.local) if self.local else address.rstrip("/")

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.address,)

    def __str__(self) -> str:
        return printable(self.address)

    def join(self, name: str) -> str:
        """Return the address of a file in it."""
        return f"{self.address.rstrip('/')}/{name}"

    def listed(self, below: str = "") -> list[tuple[FileFacts, bool]]:
        """Return what lies directly in it, or in a folder ``below`` it, sorted: files, and whether a folder.

        A folder that does not exist is empty.

        Raises:
            DataError: it cannot be listed.
        """
        filesystem, path = self._place()
        prefix = f"{below}/" if below else ""
        with self._reaching():
            found = filesystem.get_file_info(
                _fs().FileSelector(f"{path}/{below}".rstrip("/"), allow_not_found=True)
            )
            directory = _fs().FileType.Directory
            # Some object stores have an empty file as the sign of a folder.
            return sorted(
                (
                    FileFacts(prefix + each.base_name, each.size or 0, each.mtime_ns or 0),
                    each.type == directory,
                )
                for each in found
                if each.base_name
            )

    def walk(self, below: str = "", *, hidden: bool = False) -> Iterator[FileFacts]:
        """Yield all files in it and below, folder by folder in sorted order.

        Memory holds what lies in one folder at a time.

        Args:
            below: A folder in it, where the walk begins.
            hidden: Whether files and folders are taken whose name begins with a dot.

        Raises:
            DataError: it, or a folder below it, cannot be listed.
        """
        for each, is_folder in self.listed(below):
            if not hidden and each.name.rpartition("/")[2].startswith("."):
                continue
            if is_folder:
                yield from self.walk(each.name, hidden=hidden)
            else:
                yield each

    def facts(self, name: str) -> FileFacts | None:
        """Return size and time of a file; None: there is none.

        Raises:
            DataError: the place does not answer.
        """
        filesystem, path = self._place()
        with self._reaching():
            info = filesystem.get_file_info(f"{path}/{name}")
        is_file = info.type == _fs().FileType.File
        return FileFacts(name, info.size or 0, info.mtime_ns or 0) if is_file else None

    def open(self, name: str) -> Any:
        """Open a file to read it at any place: a ``pyarrow.NativeFile``, which is not buffered.

        Raises:
            OSError: it cannot be opened.
        """
        filesystem, path = self._place()
        return filesystem.open_input_file(f"{path}/{name}")

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            OSError: it cannot be read, or is too large to be read whole.
        """
        filesystem, path = self._place()
        with filesystem.open_input_stream(f"{path}/{name}") as stream:
            return read_stream(stream, most=MAX_BYTES)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Open a file to write; it appears, whole and on disk, when the block ends without an exception.

        Raises:
            DataError: it cannot be written.
        """
        try:
            if self.local is not None:
                with atomic_file(self.local / name, durable=True) as file:
                    yield file
                return
            with tempfile.TemporaryFile() as draft:
                yield draft
                draft.seek(0)
                self._upload(draft, name)
        except OSError as error:
            raise DataError(
                f"{printable(self.join(name))} cannot be written ({one_line(error)[:300]}); make room or "
                "name another place, and run it again: what was finished is kept"
            ) from error

    def _upload(self, draft: BinaryIO, name: str) -> None:
        filesystem, path = self._place()
        # An object of a store appears whole; a file of HDFS grows as it is written.
        new = target = f"{path}/{name}"
        if filesystem.type_name == "hdfs":
            folder, _, last = target.rpartition("/")
            filesystem.create_dir(folder)
            new = f"{folder}/.{last}.new"
        stream = filesystem.open_output_stream(new)
        shutil.copyfileobj(draft, stream, _PIECE)
        stream.close()
        if new != target:
            filesystem.move(new, target)

    def remove(self, name: str) -> None:
        """Delete a file.

        Raises:
            DataError: that cannot be done.
        """
        filesystem, path = self._place()
        with self._reaching():
            filesystem.delete_file(f"{path}/{name}")

    def remove_drafts(self, below: str = "") -> None:
        """Remove what killed runs were writing here, or in a folder ``below`` it."""
        if self.local is not None:
            remove_stale([self.local / below])

    def _place(self) -> tuple[Any, str]:
        return _filesystem(self.address)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise _unreachable(self.address, error) from error


@lru_cache(maxsize=64)
def _filesystem(address: str) -> tuple[Any, str]:
    fs = _fs()
    if not is_url(address):
        return fs.LocalFileSystem(), address
    scheme = address.partition(":")[0]
    if scheme not in _SCHEMES:
        raise InvalidArgumentError(
            f"{printable(address)}: a place is a path or a URL with {', '.join(_SCHEMES)}, not {scheme}; "
            "name one of these"
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(address)
    except (OSError, ValueError, NotImplementedError) as error:
        raise _unreachable(address, error) from error
    return filesystem, path.rstrip("/")


def _unreachable(address: str, error: Exception) -> DataError:
    return DataError(
        f"{printable(address)} cannot be reached ({one_line(error)[:300]}); check the address, the keys "
        "and the endpoint"
    )


def _fs() -> Any:
    try:
        import pyarrow.fs
    except ImportError as error:
        needs = "parts of latents need pyarrow; pip install 'lookalike[parquet]'"
        raise MissingExtraError(needs) from error
    return pyarrow.fs
