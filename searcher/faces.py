"""Find the faces of many photographs on all cores, and cut them out, in bounded memory.

Decoding and detection run on threads: Pillow, libjpeg-turbo and OpenCV let others run meanwhile.

Legend: n faces, H, W height and width of a photograph as shown, S side of a face that is cut out.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lookalike.encoder.detect import INDEX_THRESHOLD, LFW_FRAME, Face, Frame, cut_faces, face_finder
from lookalike.encoder.errors import ImageError, InvalidArgumentError, printable
from lookalike.encoder.files import atomic_write, read_bounded
from lookalike.encoder.images import PixelBudget, decoded_rgb, encode_png, is_image, numbered_boxes
from lookalike.searcher.denoising import Destination, Task, find_tasks

Pixels = NDArray[np.uint8]
SHEET_SIDE: Final = 224
"""Of a photograph and of a face on a contact sheet, in pixels."""
WHOLE_HEAD: Final = 0.5
"""Margin of the frame with which hair and chin are seen."""
_MIN_SIDE: Final = 16
_MAX_SIDE: Final = 4096
_MAX_MARGIN: Final = 4.0
_PIXELS_PER_THREAD: Final = 25_000_000
"""Pixels in progress that each thread adds to the limit; a larger photograph runs alone."""

_FOR_ALL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
"""Errors of writing that the next photograph would meet too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceCut:
    """How faces are cut out.

    Attributes:
        size: S in pixels, 16 to 4096.
        frame: Where the landmarks lie in the square that a model sees.
        margin: How much more is shown on each side, in fractions of that square, 0 to 4.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    size: int = 256
    frame: Frame = LFW_FRAME
    margin: float = WHOLE_HEAD

    def __post_init__(self) -> None:
        if type(self.size) is not int or not _MIN_SIDE <= self.size <= _MAX_SIDE:
            raise InvalidArgumentError(
                f"the size of a face that is cut out is {_MIN_SIDE} to {_MAX_SIDE} pixels, not {self.size}"
            )
        if not 0 <= self.margin <= _MAX_MARGIN:  # NaN too
            raise InvalidArgumentError(
                f"the margin of a face that is cut out is 0 to {_MAX_MARGIN:g}, not {self.margin}; "
                f"{WHOLE_HEAD} shows the whole head, 0 what the model sees"
            )

    def __call__(self, pixels: Pixels, faces: Sequence[Face]) -> Pixels:
        """Return faces upright, uint8 (n, S, S, 3).

        Args:
            pixels: uint8 (H, W, 3), the photograph that they were found in.
            faces: n faces.
        """
        return cut_faces(pixels, list(faces), self.frame, self.size, margin=self.margin)


@dataclass(frozen=True, slots=True)
class FaceView:
    """What a contact sheet shows of a photograph.

    Attributes:
        photograph: uint8 (h, w, 3), reduced, the boxes numbered.
        faces: uint8 (n, S, S, 3).
    """

    photograph: Pixels
    faces: Pixels

    @classmethod
    def of(cls, pixels: Pixels, faces: Sequence[Face], cut: FaceCut) -> FaceView:
        """Return the view of a photograph uint8 (H, W, 3)."""
        shown = numbered_boxes(pixels, [face.box for face in faces], side=SHEET_SIDE)
        return cls(shown, FaceCut(size=SHEET_SIDE, frame=cut.frame, margin=cut.margin)(pixels, faces))


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundFaces:
    """The faces of one photograph.

    Attributes:
        path: Its name: relative to the source that it was found in, with ``/``.
        width: W; 0 where it failed.
        height: H; 0 where it failed.
        faces: From left to right.
        files: Where they were written, if they were.
        reason: Why it failed, one line; empty: it did not.
        view: For a contact sheet; None: not asked for.
    """

    path: str
    width: int = 0
    height: int = 0
    faces: tuple[Face, ...] = ()
    files: tuple[Path, ...] = ()
    reason: str = ""
    view: FaceView | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; coordinates in fractions of the photograph as shown."""
        if self.reason:
            return {"path": self.path, "error": self.reason}
        values = {"path": self.path, "width": self.width, "height": self.height}
        rows = [face.to_json() for face in self.faces]
        for row, file in zip(rows, self.files, strict=False):
            row["file"] = str(file)
        return values | {"faces": rows}


@dataclass(slots=True)
class FacesReport:
    """The counts of a run.

    Attributes:
        photographs: That could be read.
        faces: In them.
        without: Photographs without a face.
        failed: Path and one-line reason.
        seconds: Of the whole run.
    """

    photographs: int = 0
    faces: int = 0
    without: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, found: FoundFaces) -> None:
        """Count one photograph."""
        if found.reason:
            self.failed.append((found.path, found.reason))
            return
        self.photographs += 1
        self.faces += len(found.faces)
        self.without += not found.faces

    def summary(self) -> str:
        """Return one line for people."""
        speed = f", {self.photographs / self.seconds:.1f} photographs/s" if self.seconds else ""
        return (
            f"{_plural(self.photographs, 'photograph')}: {_plural(self.faces, 'face')}, {self.without} "
            f"without a face, {len(self.failed)} failed; {self.seconds:.1f} s{speed}"
        )


def find_photographs(
    sources: Sequence[str], listed: Sequence[Path], *, out: str | None, **options: Any
) -> list[Task]:
    """Find the photographs, and decide how the files of their faces begin.

    ``a/me.jpg`` of a folder begins ``OUT/a/me``, and where two would be the same, ``OUT/a/me.jpg``.

    Args:
        sources: Folders and files.
        listed: Files named in a list.
        out: Folder of the faces; None: they are not written.
        options: As for :func:`lookalike.searcher.denoising.find_tasks`.

    Returns:
        Tasks whose target is the file of a face without ``-NUMBER.png``.

    Raises:
        DataError: A source does not exist.
        InvalidArgumentError: Faces of two photographs would be written to one file, or the folder is a file
            or a source.
    """
    folder = Path(os.devnull if out is None else out)
    if out is not None:
        _check_folder(folder, sources)
    tasks = find_tasks(sources, listed, destination=Destination(out=folder), **options)
    if out is None:
        return tasks
    short = [task.target.with_name(_stem(task.target)) for task in tasks]
    keys = [str(path).casefold() for path in short]  # some disks ignore case
    taken = {key: keys.count(key) for key in keys} if len(set(keys)) < len(keys) else {}
    begun: dict[str, Task] = {}
    named = []
    for task, path, key in zip(tasks, short, keys, strict=True):
        target = task.target if taken.get(key, 1) > 1 else path
        first = begun.setdefault(str(target).casefold(), task)
        if first is not task:
            raise InvalidArgumentError(
                f"faces of {printable(str(first.source))} and {printable(str(task.source))} would both be "
                f"written to {printable(str(target))}-1.png; name another --out for one of them"
            )
        named.append(Task(task.source, task.path, target))
    return named


def find_faces(
    tasks: Sequence[Task],
    *,
    threshold: float = INDEX_THRESHOLD,
    max_pixels: int | None = None,
    cut: FaceCut | None = None,
    write: bool = False,
    views: int = 0,
    threads: int | None = None,
    on_found: Callable[[FoundFaces], object] = lambda _: None,
) -> FacesReport:
    """Find the faces of photographs; one that cannot be read or written fails alone.

    Args:
        tasks: From :func:`find_photographs`.
        threshold: Smallest score of a face.
        max_pixels: Larger photographs are refused; None: the default limit.
        cut: How faces are cut out; None: the default.
        write: Whether to write each face as PNG. A file that holds something else is not replaced: the
            photograph fails.
        views: So many photographs, the first ones, get a view for a contact sheet.
        threads: Threads; None: one for each core.
        on_found: Called with the faces of each photograph, in the order of the tasks.

    Raises:
        MissingExtraError: The extra ``faces`` is not installed.
    """
    face_finder()
    begun, report = time.perf_counter(), FacesReport()
    threads = threads or os.cpu_count() or 1
    reader = _Reader(
        threshold=threshold,
        max_pixels=max_pixels,
        cut=cut or FaceCut(),
        write=write,
        budget=PixelBudget(_PIXELS_PER_THREAD * max(2, threads)),
    )
    for found in _in_order(reader, tasks, views, threads):
        report.count(found)
        on_found(found)
    report.seconds = time.perf_counter() - begun
    return report


def _in_order(reader: _Reader, tasks: Sequence[Task], views: int, threads: int) -> Iterator[FoundFaces]:
    """Yield what is found in each photograph, some of them read ahead."""
    waiting, pending = enumerate(tasks), deque[Future[FoundFaces]]()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="faces")
    try:
        while True:
            for index, task in itertools.islice(waiting, 4 * threads - len(pending)):
                pending.append(pool.submit(reader.read, task, view=index < views))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    """What is done with each photograph; each attribute as in :func:`find_faces`."""

    threshold: float
    max_pixels: int | None
    cut: FaceCut
    write: bool
    budget: PixelBudget

    def read(self, task: Task, *, view: bool) -> FoundFaces:
        """Find the faces of a photograph, and write them."""
        try:
            data = read_bounded(task.source)
        except OSError as error:
            return FoundFaces(path=task.path, reason=f"cannot be read ({error.strerror or error})")
        try:
            with decoded_rgb(data, max_pixels=self.max_pixels, budget=self.budget, name=task.path) as pixels:
                del data
                faces = face_finder().find(pixels, threshold=self.threshold)
                shown = FaceView.of(pixels, faces, self.cut) if view else None
                images = self.cut(pixels, faces) if self.write else ()
            files = self._write(task, [encode_png(image) for image in images])
        except ImageError as error:
            return FoundFaces(path=task.path, reason=str(error).removeprefix(f"{printable(task.path)}: "))
        height, width = pixels.shape[:2]
        return FoundFaces(
            path=task.path, width=width, height=height, faces=tuple(faces), files=files, view=shown
        )

    def _write(self, task: Task, images: Sequence[bytes]) -> tuple[Path, ...]:
        """Write the faces of a photograph, all or none, and return the files.

        Raises:
            ImageError: One cannot be written, or holds something else.
        """
        files = [task.target.with_name(f"{task.target.name}-{n}.png") for n in range(1, len(images) + 1)]
        try:
            new = []
            for file, data in zip(files, images, strict=True):
                if not os.path.lexists(file):
                    new.append((file, data))
                elif not _holds(file, data):
                    raise ImageError(
                        f"{printable(str(file))} exists and is another picture; name another --out, "
                        "or delete it"
                    )
            for file, data in new:
                atomic_write(file, data)
        except OSError as error:
            if error.errno in _FOR_ALL:
                raise
            where = printable(str(task.target.parent))
            raise ImageError(
                f"its faces cannot be written to {where} ({error.strerror or error}); name another --out"
            ) from error
        return tuple(files)


def _holds(file: Path, data: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(data) + 1) == data


def _check_folder(folder: Path, sources: Sequence[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise InvalidArgumentError(
            f"--out is a folder, {printable(str(folder))} is a file; name another, or save one image with "
            "--sheet"
        )
    for source in sources:
        if folder.exists() and Path(source).is_dir() and folder.samefile(source):
            raise InvalidArgumentError(
                f"--out {printable(str(folder))} is a source itself; name another folder"
            )


def _stem(target: Path) -> str:
    return target.stem if is_image(target.name) else target.name


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
