"""Where cleaned pictures go: a tree like that of the sources, and never over a picture that is read.

All of it is settled before anything is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lookalike.encoder.errors import DataError, InvalidArgumentError
from lookalike.encoder.images import IMAGE_SUFFIXES, WRITABLE_FORMATS, find_images
from lookalike.encoder.text import printable
from lookalike.indexer.sources import SourceFilter, as_text

_NAMED: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "PNM": (".ppm", ".pgm", ".pnm"),
    "AVIF": (".avif",),
}


@dataclass(frozen=True, slots=True)
class Task:
    """One picture and where it goes.

    Attributes:
        source: The file to read.
        path: What to call it: relative to the source that it was found in, with ``/``.
        target: The file to write.
    """

    source: Path
    path: str
    target: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """How files are called that are written.

    Attributes:
        out: The folder, or the file of a single picture.
        single: Whether ``out`` is that file.
        suffix: What is put between a name and its extension.
        kind: Kind of file that is written; None: as it was, with the same extension.
    """

    out: Path
    single: bool = False
    suffix: str = ""
    kind: str | None = None

    def target(self, relative: Path) -> Path:
        """Return where the picture with this path, relative to its source, goes."""
        if self.single:
            return self.out
        stem, extension = relative.stem, relative.suffix
        if extension.lower() not in IMAGE_SUFFIXES | {".avif"}:
            stem, extension = relative.name, ""
        if self.kind is not None and extension.lower() not in _NAMED[self.kind]:
            extension = WRITABLE_FORMATS[self.kind]
        return self.out / relative.with_name(f"{stem}{self.suffix}{extension}")


def destination_of(
    sources: Sequence[str], listed: Sequence[Path], *, out: str, kind: str | None, suffix: str
) -> Destination:
    """Return what ``--out`` means: a folder, or of a single file the file to write.

    Args:
        sources: Folders and files.
        listed: Files that were named in a list.
        out: As the user wrote it; a file when it has the extension of a picture, and there is one source.
        kind: Kind of file to write; None: as ``out`` or each picture says.
        suffix: What is put between names and extensions.

    Raises:
        InvalidArgumentError: these do not go together.
    """
    if "/" in suffix or "\0" in suffix:
        raise InvalidArgumentError(
            f"--suffix is part of a name, {printable(suffix)!r} cannot be; name a folder with --out"
        )
    folder, extension = Path(out), Path(out).suffix.lower()
    named = next((each for each, extensions in _NAMED.items() if extension in extensions), None)
    one = len(sources) == 1 and not listed and not Path(sources[0]).is_dir()
    if not one or named is None or out.endswith("/") or folder.is_dir():
        if folder.exists() and not folder.is_dir():
            raise InvalidArgumentError(f"--out is a folder, {printable(out)} is a file; name another")
        return Destination(out=folder, suffix=suffix, kind=kind)
    if kind not in (None, named):
        raise InvalidArgumentError(
            f"--format {kind} does not go with {printable(out)}; leave one of them out"
        )
    if suffix:
        raise InvalidArgumentError(
            f"--suffix is for files that go into a folder, {printable(out)} is a file; leave it out"
        )
    return Destination(out=folder, single=True, kind=named)


def find_tasks(
    sources: Sequence[str],
    listed: Sequence[Path],
    *,
    root: Path | None,
    reading: SourceFilter,
    destination: Destination,
    on_unreadable: Callable[[OSError], object] | None = None,
) -> list[Task]:
    """Find what there is to do, in the order of the sources and of the pictures in them.

    What lies in the destination is no source, also where the destination lies in a source.

    Args:
        sources: Folders and files.
        listed: Files that were named in a list.
        root: What the paths of listed files are relative to; None: the folder they have in common.
        reading: Which pictures in folders are taken.
        destination: Where they go.
        on_unreadable: Told of a folder that cannot be listed, which is then passed over.

    Raises:
        DataError: a source is not there.
        InvalidArgumentError: the destination cannot be, or a listed file lies outside the root.
    """
    found: dict[tuple[Path, Path], Task] = {}
    for source in sources:
        for task in _of_source(source, reading, destination, on_unreadable):
            found.setdefault((task.source, task.target), task)
    for task in _of_list(listed, root, destination):
        found.setdefault((task.source, task.target), task)
    return list(found.values())


def check_tasks(tasks: Sequence[Task]) -> None:
    """Refuse what would write one file twice, or over a picture that is read.

    Raises:
        InvalidArgumentError: names the two.
    """
    taken: dict[Path, Task] = {}
    there: list[Task] = []
    for task in tasks:
        first = taken.setdefault(task.target, task)
        if first is not task:
            raise InvalidArgumentError(
                f"{printable(str(first.source))} and {printable(str(task.source))} would both be written to "
                f"{printable(str(task.target))}; clean them into two folders, or give --suffix"
            )
        if os.path.exists(task.target):  # noqa: PTH110  # of each of many: a Path's own takes three times as long
            there.append(task)
    if not there:
        return
    inputs = {_identity(task.source): task for task in tasks}
    for task in there:
        read = inputs.get(_identity(task.target))
        if read is not None and _identity(task.target) is not None:
            raise InvalidArgumentError(
                f"{printable(str(read.source))} is to be read and would be written over; "
                "name another folder with --out, or give --suffix"
            )


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _of_source(
    source: str,
    reading: SourceFilter,
    destination: Destination,
    on_unreadable: Callable[[OSError], object] | None,
) -> Iterator[Task]:
    path = Path(source)
    if not source or not (path.exists() or path.is_symlink()):
        raise DataError(f"a source is a folder or a picture file; '{printable(source)}' is not there")
    if not path.is_dir():
        yield Task(path, source, destination.target(Path(path.name)))
        return
    if destination.single:
        raise InvalidArgumentError(
            f"a folder's pictures go into a folder, {printable(str(destination.out))} is a file; name a folder"
        )
    within, own = _inside(destination.out.resolve(), path.resolve())
    if own and not destination.suffix:
        raise InvalidArgumentError(
            f"--out {printable(str(destination.out))} is the source itself; name another folder, or give --suffix"
        )
    for relative in find_images(path, hidden=reading.hidden, on_unreadable=on_unreadable):
        if within is not None and relative.is_relative_to(within):
            continue
        if own and relative.stem.endswith(destination.suffix):
            continue
        text = as_text(relative)
        if reading.accepts(text):
            yield Task(path / relative, text, destination.target(relative))


def _inside(out: Path, source: Path) -> tuple[Path | None, bool]:
    """Where the destination lies in a source, if it does, and whether it is the source."""
    if out == source:
        return None, True
    return (out.relative_to(source), False) if out.is_relative_to(source) else (None, False)


def _of_list(listed: Sequence[Path], root: Path | None, destination: Destination) -> Iterator[Task]:
    if not listed:
        return
    # Not resolved whole: a link keeps its own name, as it does in a folder.
    absolute = [file.parent.resolve() / file.name for file in listed]
    folder = root.resolve() if root is not None else Path(os.path.commonpath([f.parent for f in absolute]))
    for file, whole in zip(listed, absolute, strict=True):
        if not whole.is_relative_to(folder):
            raise InvalidArgumentError(
                f"listed files lie under --root {printable(str(folder))}, {printable(str(file))} does not; "
                "name a folder that holds them all"
            )
        relative = whole.relative_to(folder)
        yield Task(file, as_text(relative), destination.target(relative))
