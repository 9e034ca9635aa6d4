"""Output paths of denoised images: a tree like that of the sources, and never over an image that is read.

All of it is decided before anything is written.
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

_EXTENSIONS: Final = {
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
    """One image and its output path.

    Attributes:
        source: The file to read.
        path: Its name: relative to the source that it was found in, with ``/``.
        target: The file to write.
    """

    source: Path
    path: str
    target: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """How output files are named.

    Attributes:
        out: The folder, or the file of a single image.
        single: Whether ``out`` is that file.
        suffix: Inserted between a name and its extension.
        kind: Format to write; None: as it was, with the same extension.
    """

    out: Path
    single: bool = False
    suffix: str = ""
    kind: str | None = None

    def target(self, relative: Path) -> Path:
        """Return the output path of the image with this path, relative to its source."""
        if self.single:
            return self.out
        stem, extension = relative.stem, relative.suffix
        if extension.lower() not in IMAGE_SUFFIXES | {".avif"}:
            stem, extension = relative.name, ""
        if self.kind is not None and extension.lower() not in _EXTENSIONS[self.kind]:
            extension = WRITABLE_FORMATS[self.kind]
        return self.out / relative.with_name(f"{stem}{self.suffix}{extension}")


def resolve_destination(
    sources: Sequence[str], listed: Sequence[Path], *, out: str, kind: str | None, suffix: str
) -> Destination:
    """Return what ``--out`` means: a folder, or for a single file the file to write.

    Args:
        sources: Folders and files.
        listed: Files named in a list.
        out: As given; a file when it has the extension of an image, and there is one source.
        kind: Format to write; None: as ``out`` or each image says.
        suffix: Inserted between names and extensions.

    Raises:
        InvalidArgumentError: these contradict each other.
    """
    if "/" in suffix or "\0" in suffix:
        raise InvalidArgumentError(
            f"--suffix is part of a file name, {printable(suffix)!r} is not; name a folder with --out"
        )
    folder, extension = Path(out), Path(out).suffix.lower()
    format_of_out = next((each for each, extensions in _EXTENSIONS.items() if extension in extensions), None)
    single = len(sources) == 1 and not listed and not Path(sources[0]).is_dir()
    if not single or format_of_out is None or out.endswith("/") or folder.is_dir():
        if folder.exists() and not folder.is_dir():
            raise InvalidArgumentError(f"--out is a folder, {printable(out)} is a file; name another")
        return Destination(out=folder, suffix=suffix, kind=kind)
    if kind not in (None, format_of_out):
        raise InvalidArgumentError(f"--format {kind} contradicts {printable(out)}; leave one of them out")
    if suffix:
        raise InvalidArgumentError(
            f"--suffix is for files that go into a folder, {printable(out)} is a file; leave it out"
        )
    return Destination(out=folder, single=True, kind=format_of_out)


def find_tasks(
    sources: Sequence[str],
    listed: Sequence[Path],
    *,
    root: Path | None,
    reading: SourceFilter,
    destination: Destination,
    on_unreadable: Callable[[OSError], object] | None = None,
) -> list[Task]:
    """Find the images to denoise, in the order of the sources and of the images in them.

    Files in the destination are not sources, also where the destination lies in a source.

    Args:
        sources: Folders and files.
        listed: Files named in a list.
        root: What the paths of listed files are relative to; None: the folder they have in common.
        reading: Which images in folders are taken.
        destination: Where their outputs go.
        on_unreadable: Called for a folder that cannot be listed, which is then skipped.

    Raises:
        DataError: a source does not exist.
        InvalidArgumentError: invalid destination, or a listed file lies outside the root.
    """
    tasks: dict[tuple[Path, Path], Task] = {}
    for source in sources:
        for task in _of_source(source, reading, destination, on_unreadable):
            tasks.setdefault((task.source, task.target), task)
    for task in _of_list(listed, root, destination):
        tasks.setdefault((task.source, task.target), task)
    return list(tasks.values())


def check_tasks(tasks: Sequence[Task]) -> None:
    """Refuse to write one file twice, or over an image that is read.

    Raises:
        InvalidArgumentError: names the two files.
    """
    taken: dict[Path, Task] = {}
    existing: list[Task] = []
    for task in tasks:
        first = taken.setdefault(task.target, task)
        if first is not task:
            raise InvalidArgumentError(
                f"{printable(str(first.source))} and {printable(str(task.source))} would both be written to "
                f"{printable(str(task.target))}; denoise them into two folders, or give --suffix"
            )
        if os.path.exists(task.target):  # noqa: PTH110  # called for each of many files: Path.exists takes three times as long
            existing.append(task)
    if not existing:
        return
    inputs = {_identity(task.source): task for task in tasks}
    for task in existing:
        read = inputs.get(_identity(task.target))
        if read is not None and _identity(task.target) is not None:
            raise InvalidArgumentError(
                f"{printable(str(read.source))} is an input and would be overwritten; "
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
        raise DataError(f"a source is a folder or an image file; '{printable(source)}' does not exist")
    if not path.is_dir():
        yield Task(path, source, destination.target(Path(path.name)))
        return
    if destination.single:
        raise InvalidArgumentError(
            f"--out must be a folder for a folder of images, {printable(str(destination.out))} is a file"
        )
    within, own = _inside(destination.out.resolve(), path.resolve())
    if own and not destination.suffix:
        raise InvalidArgumentError(
            f"--out {printable(str(destination.out))} is the source itself; name another, or give --suffix"
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
    """Return where the destination lies in a source, if it does, and whether it is the source."""
    if out == source:
        return None, True
    return (out.relative_to(source), False) if out.is_relative_to(source) else (None, False)


def _of_list(listed: Sequence[Path], root: Path | None, destination: Destination) -> Iterator[Task]:
    if not listed:
        return
    # The name is not resolved: a link keeps its own name, as it does in a folder.
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
